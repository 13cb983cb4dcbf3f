"""What came of training an exported file again: the runs, their mean and spread, and whether the value came out again.

Whatever the runs gave, nothing here raises: a metric that is not finite, or a run that ended with an error, is left out
of the means and counted.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

LAST_BITS = 1e-6
"""Relative difference up to which two results differ by rounding."""


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """The result of ``hpo train``.

    Attributes:
        config: the configuration, as JSON can hold it.
        metric: the file's metric.
        runs: for each seed the metrics of the epoch that counts, and ``seed``; with ``error`` if it failed.
        expected: the value that the file says, if the run had the file's own seed.
        differences: what was otherwise here than where the value was found, such as ``torch: 2.13 there, 2.14 here``.
        trained_on: what the file says of where it was found.
        folder: where the runs' files are, if they have left any.
        own_seed: whether the run had the file's own seed, so that it may reproduce the value.
    """

    config: dict[str, Any]
    metric: str
    runs: Sequence[Mapping[str, Any]]
    expected: float | None = None
    differences: Sequence[str] = ()
    trained_on: Mapping[str, Any] | None = None
    folder: str | None = None
    own_seed: bool = False

    @property
    def names(self) -> list[str]:
        """The metrics of all runs, in their order."""
        left_out = ("seed", "seconds", "seconds_per_epoch", "error")
        return list(dict.fromkeys(name for run in self.runs for name in run if name not in left_out))

    def finite(self, name: str) -> list[float]:
        """The finite values of a metric."""
        values = [run[name] for run in self.runs if name in run]
        return [value for value in values if math.isfinite(value)]

    def mean(self, name: str) -> float | None:
        """The mean of a metric's finite values; None if there is none."""
        values = self.finite(name)
        return _finite(math.fsum(value / len(values) for value in values)) if values else None

    def std(self, name: str) -> float | None:
        """The standard deviation of a metric's finite values; None below two."""
        values = self.finite(name)
        try:
            return statistics.stdev(values) if len(values) > 1 else None
        except OverflowError:
            return None

    @property
    def obtained(self) -> float | None:
        """The value of the run with the file's own seed."""
        return self.runs[0].get(self.metric) if self.own_seed else None

    @property
    def reproduced(self) -> bool | None:
        """Whether the value came out again to the last bit; None if none was expected."""
        if self.expected is None or not self.own_seed:
            return None
        return self.obtained == self.expected

    @property
    def is_right(self) -> bool:
        """Whether the command ends with 0: nothing failed, and what was expected came out."""
        return self.reproduced is not False and not any("error" in run for run in self.runs)

    def verdict(self) -> str | None:
        """One line on whether the value came out again, and how far off it is; None if none was expected."""
        if self.reproduced is None:
            return None
        seed = self.runs[0]["seed"]
        values = f"expected {self.expected!r}, obtained {self.obtained!r} (seed {seed})"
        if self.reproduced:
            return f"reproduced: {values}"
        assert self.expected is not None
        if self.obtained is None or not math.isfinite(self.obtained):
            text = f"not reproduced: {values}"
        else:
            off = abs(self.obtained - self.expected)
            share = off / abs(self.expected) if self.expected else math.inf
            if share <= LAST_BITS:
                text = f"the same but for rounding (off by {off:.2g}, {share:.1g} of the value): {values}"
            else:
                relative = f", {share:.2%} of the value" if share < 1 else f", {share:.3g} times the value"
                text = f"not reproduced, off by {off:.3g}{relative if math.isfinite(share) else ''}: {values}"
        if self.differences:
            text += f"; different from where it was found: {'; '.join(self.differences)}"
        return text

    def as_dict(self) -> dict[str, Any]:
        """What ``hpo train --json`` prints; strict JSON, with null for what is not finite."""
        result: dict[str, Any] = {
            "config": self.config,
            "runs": [{name: _finite(value) for name, value in run.items()} for run in self.runs],
            "mean": {name: self.mean(name) for name in self.names},
            "std": {name: self.std(name) for name in self.names},
            "n": len(self.runs),
            "not_finite": {
                name: missing for name in self.names if (missing := len(self.runs) - len(self.finite(name)))
            },
            "metric": self.metric,
            "expected": self.expected,
            "obtained": _finite(self.obtained),
            "reproduced": self.reproduced,
            "differences": list(self.differences),
            "folder": self.folder,
        }
        if self.reproduced is not None:
            result["trained_on"] = None if self.trained_on is None else dict(self.trained_on)
        return result


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
