"""A hyperparameter as an axis: linear, logarithmic, or a list of choices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpo.compare.records import StudyRecord

Choice = str


@dataclass(frozen=True)
class ParamAxis:
    """``choices`` of a categorical parameter, which are drawn at 0, 1, …; else the ends ``low`` and ``high``."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Choice, ...] = ()

    def place(self, value: Any) -> float:
        """A value's place in [0, 1]."""
        if self.choices:
            return 0.5 if len(self.choices) == 1 else self.choices.index(_choice(value)) / (len(self.choices) - 1)
        low, high, number = (math.log(v) if self.log else v for v in (self.low, self.high, float(value)))
        return 0.5 if high == low else (number - low) / (high - low)

    def drawn(self, value: Any) -> float:
        """The value on plotly's axis."""
        return float(self.choices.index(_choice(value))) if self.choices else float(value)

    def at(self, place: float) -> float:
        """The value on plotly's axis at a place in [0, 1]."""
        if self.choices:
            return place * (len(self.choices) - 1)
        if self.log:
            return math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        return self.low + place * (self.high - self.low)

    def ticks(self, number: int) -> list[tuple[float, str]]:
        """Places in [0, 1] with their labels."""
        if self.choices:
            step = max(1, math.ceil(len(self.choices) / 8))
            return [(self.place(choice), _short(choice)) for choice in self.choices[::step]]
        if self.low == self.high:
            return [(0.5, f"{self.low:.3g}")]
        return [(k / (number - 1), f"{self.at(k / (number - 1)):.3g}") for k in range(number)]

    def plotly(self) -> dict[str, Any]:
        """Settings of plotly's axis."""
        if self.choices:
            labels = [_short(choice) for choice in self.choices]
            ends = {"range": [-0.5, len(labels) - 0.5], "zeroline": False}
            return {"tickvals": list(range(len(labels))), "ticktext": labels, **ends}
        low, high = (math.log10(end) if self.log else end for end in (self.low, self.high))
        pad = 0.03 * (high - low) or 0.05 * (abs(high) or 1.0)
        scale: dict[str, Any] = {"range": [low - pad, high + pad], "zeroline": False}
        if not self.log:
            return scale
        # Powers of ten; between fewer than two of them also their multiples by 2 and 5.
        ticks = {"dtick": 1, "exponentformat": "power"} if high - low > 2 else {"dtick": "D2", "tickformat": ".4~g"}
        return {**scale, "type": "log", **ticks}


def param_axis(name: str, values: Sequence[Any], studies: Sequence[StudyRecord]) -> ParamAxis:
    """The axis of a parameter: its bounds in the search space, or, if those are not recorded, of its values."""
    entry = (studies[0].study_file.get("space") or {}).get(name)
    entry = entry if isinstance(entry, dict) else {}
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if entry.get("choices") is not None or not numeric:
        listed = [_choice(choice) for choice in entry.get("choices") or ()]
        return ParamAxis(name, choices=tuple(dict.fromkeys([*listed, *sorted(map(_choice, values))])))
    low, high = (entry.get(end) for end in ("low", "high"))
    low = min(values) if low is None else min(low, *values)
    high = max(values) if high is None else max(high, *values)
    return ParamAxis(name, float(low), float(high), bool(entry.get("log")) and low > 0)


def _choice(value: Any) -> Choice:
    return str(value)


def _short(choice: Choice) -> str:
    return choice if len(choice) <= 18 else f"{choice[:17]}…"
