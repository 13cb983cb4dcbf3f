"""The numbers that a trainer yields: checked, and read as the report and the value of a trial.

Look here for which epoch gives a trial its value, and for when an epoch counts as one without a report.
"""

import itertools
import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal


def checked_metrics(metrics: Mapping[Any, Any], objective: str) -> dict[str, float]:
    """What a trainer yielded, as floats; what is None is left out.

    ``objective`` may be absent: that is an epoch without a report.

    Raises:
        TypeError: if one of them is no number; the message names it.
    """
    checked = {}
    for name, value in metrics.items():
        if value is None:
            continue
        try:
            if isinstance(value, (str, bytes)):
                raise TypeError
            checked[str(name)] = float(value)
        except Exception:
            raise TypeError(f"the trainer yields {reprlib.repr(value)} as {name!r}; a number was expected") from None
    return checked


def reported_value(
    history: Sequence[Mapping[str, float]], objective: str, *, nan_is_no_report: bool = False
) -> float | None:
    """What the last epoch of ``history`` reports; None if it is an epoch without a report.

    A NaN is a report (training diverged) unless the trainer says that it marks an epoch without validation
    (``nan_is_no_report``), or the epochs say so: another loss of the same epoch is finite, and no more epochs in a row
    were NaN than lay between earlier validations.
    """
    value = history[-1].get(objective)
    if value is None or not math.isnan(value):
        return value
    if nan_is_no_report:
        return None
    losses = [number for name, number in history[-1].items() if name != objective and "loss" in name.lower()]
    if not losses or not all(map(math.isfinite, losses)):
        return value
    reports = [0] + [e for e, metrics in enumerate(history, 1) if math.isfinite(metrics.get(objective, math.nan))]
    longest_gap = max((after - before for before, after in itertools.pairwise(reports)), default=None)
    return value if longest_gap is not None and len(history) - reports[-1] >= longest_gap else None


def value_epoch(
    history: Sequence[Mapping[str, float]],
    objective: str,
    which: Literal["last", "best"],
    direction: Literal["minimize", "maximize"],
) -> int | None:
    """Index in ``history`` of the epoch that gives a trial its value: the last that reported it, or the best.

    NaN counts only if nothing else was reported. None if no epoch has the objective.
    """
    having = [index for index, metrics in enumerate(history) if objective in metrics]
    numbers = [index for index in having if not math.isnan(history[index][objective])]
    if not (candidates := numbers or having):
        return None
    if which == "last":
        return candidates[-1]
    sign = 1 if direction == "maximize" else -1
    return max(candidates, key=lambda index: sign * history[index][objective])


def with_latest(
    metrics: Mapping[str, float], history: Sequence[Mapping[str, float]], index: int | None, name: str
) -> dict[str, float]:
    """The metrics of the epoch ``index``; if they lack ``name``, with its latest value up to then, else its first.

    A trainer may yield what does not change, such as a number of parameters, at one epoch only.
    """
    end = len(history) if index is None or index < 0 else index + 1
    found = [epoch[name] for epoch in reversed(history[:end]) if name in epoch]
    found += [epoch[name] for epoch in history[end:] if name in epoch]
    return {**({name: found[0]} if found else {}), **metrics}


def missing_objective(history: Sequence[Mapping[str, float]], objective: str) -> KeyError:
    """The error of a trial that ended without having reported its objective at any epoch."""
    names = sorted({name for metrics in history for name in metrics})
    return KeyError(f"the trainer yields no {objective!r}, only {', '.join(names) or 'nothing'}")
