"""One parameter of a search space: a Float, an Int or a Categorical, and what can be a choice.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import decimal
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Choice = str | int | float | bool | None
When = Mapping[str, tuple[Choice, ...]]
"""Parent -> the values of it under which a parameter is active; all parents must hold."""


@dataclass(frozen=True)
class Float:
    """A real number in [low, high]; ``step`` makes it a multiple of step above low; it excludes log."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    grid: tuple[float, ...] | None = None
    when: When = field(default_factory=dict)

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> float:
        return self.on_step(trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step))

    def on_step(self, value: float) -> float:
        """The value as the study file would spell it: on a step, 0.3 and not 0.30000000000000004."""
        return float(value) if self.step is None else on_step(value, self.low, self.step)

    def draw(self, rng: random.Random) -> float:
        """A random value, uniform on the parameter's own scale."""
        if self.step is not None:
            return on_step(self.low + self.step * rng.randint(0, self._num_steps), self.low, self.step)
        if self.log:
            return min(max(math.exp(rng.uniform(math.log(self.low), math.log(self.high))), self.low), self.high)
        return rng.uniform(self.low, self.high)

    @property
    def _num_steps(self) -> int:
        assert self.step is not None
        return round((self.high - self.low) / self.step)

    def contains(self, value: Any) -> bool:
        if not is_number(value) or not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return bool(abs(steps - round(steps)) < 1e-8)

    def middle(self) -> float:
        """The value halfway, on the parameter's own scale."""
        return self.points(1)[0]

    def ends(self) -> dict[str, Choice]:
        """Values to be tried in the check of a study file, by their TOML keys."""
        return {"low": self.low, "high": self.high}

    def points(self, count: int) -> tuple[float, ...]:
        """``count`` values, evenly spaced (in the logarithm where log), the ends among them; on steps where there are.

        Rounded to 10 digits, so that a cell reads 0.01 and not 0.010000000000000002.
        """
        ends = (self.low, self.high)
        points = [value if value in ends else float(f"{value:.10g}") for value in _spaced(self, count)]
        points = [self.on_step(min(max(value, self.low), self.high)) for value in points]
        return tuple(dict.fromkeys(points))

    def every_value(self) -> tuple[float, ...] | None:
        """All values, where there are finitely many and not very many."""
        if self.step is None or (self.high - self.low) / self.step > 1_000:
            return None
        return self.points(self._num_steps + 1)

    def as_table(self) -> dict[str, Any]:
        return _without_defaults(
            {"low": self.low, "high": self.high, "log": self.log, "step": self.step, "grid": self.grid}, self.when
        )


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high]; ``step`` makes it a multiple of step above low; it excludes log."""

    low: int
    high: int
    log: bool = False
    step: int = 1
    grid: tuple[int, ...] | None = None
    when: When = field(default_factory=dict)

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step)

    def draw(self, rng: random.Random) -> int:
        """A random value, uniform on the parameter's own scale."""
        if self.log:
            return min(max(round(math.exp(rng.uniform(math.log(self.low), math.log(self.high)))), self.low), self.high)
        return self.low + self.step * rng.randint(0, (self.high - self.low) // self.step)

    def contains(self, value: Any) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
            and (value - self.low) % self.step == 0
        )

    def middle(self) -> int:
        """The value halfway, on the parameter's own scale."""
        return self.points(1)[0]

    def ends(self) -> dict[str, Choice]:
        """Values to be tried in the check of a study file, by their TOML keys."""
        return {"low": self.low, "high": self.high}

    def points(self, count: int) -> tuple[int, ...]:
        """Up to ``count`` values, evenly spaced (in the logarithm where log), with the ends; repeats are dropped."""
        points = [self.low + self.step * math.floor((x - self.low) / self.step + 0.5) for x in _spaced(self, count)]
        return tuple(dict.fromkeys(min(max(point, self.low), self.high) for point in points))

    def every_value(self) -> tuple[int, ...] | None:
        """All values, where there are not very many."""
        values = range(self.low, self.high + 1, self.step)
        return tuple(values) if len(values) <= 1_000 else None

    def as_table(self) -> dict[str, Any]:
        table = {"low": self.low, "high": self.high, "log": self.log, "grid": self.grid}
        return _without_defaults({**table, "step": self.step if self.step != 1 else None}, self.when)


@dataclass(frozen=True)
class Categorical:
    """One of ``choices``, between which there is no order."""

    choices: tuple[Choice, ...]
    grid: tuple[Choice, ...] | None = None
    when: When = field(default_factory=dict)

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.choices)

    def suggest(self, trial: "optuna.trial.BaseTrial", name: str) -> Choice:
        return trial.suggest_categorical(name, self.choices)

    def draw(self, rng: random.Random) -> Choice:
        """A random choice."""
        return rng.choice(self.choices)

    def contains(self, value: Any) -> bool:
        return is_choice(value) and is_among(value, self.choices)

    def middle(self) -> Choice:
        return self.choices[0]

    def ends(self) -> dict[str, Choice]:
        """Values to be tried in the check of a study file: all choices."""
        return {f"choices[{index}]": choice for index, choice in enumerate(self.choices)}

    def every_value(self) -> tuple[Choice, ...] | None:
        return self.choices

    def as_table(self) -> dict[str, Any]:
        return _without_defaults({"choices": self.choices, "grid": self.grid}, self.when)


Parameter = Float | Int | Categorical


def _spaced(parameter: Float | Int, count: int) -> Iterator[float]:
    low, high = parameter.low, parameter.high
    for index in range(count):
        share = index / (count - 1) if count > 1 else 0.5
        if share in (0, 1):
            yield (low, high)[int(share)]
        elif parameter.log:
            yield math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            yield low + share * (high - low)


def _without_defaults(table: dict[str, Any], when: When) -> dict[str, Any]:
    kept = {key: value for key, value in table.items() if value is not None and value is not False}
    kept = {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}
    return {**kept, "when": {parent: list(values) for parent, values in when.items()}} if when else kept


def on_step(value: float, low: float, step: float) -> float:
    """The multiple of ``step`` above ``low`` that is nearest to ``value``, as the nearest float to its decimal text."""
    start, width = decimal.Decimal(repr(low)), decimal.Decimal(repr(step))
    return float(start + width * math.floor((value - low) / step + 0.5))


def is_choice(value: Any) -> bool:
    """Whether a value can be a choice: text, a finite number, true, false or None."""
    return value is None or isinstance(value, str | bool) or is_number(value)


def is_among(value: Any, choices: Sequence[Any]) -> bool:
    """Whether a value is one of the choices; true is not 1 and false is not 0."""
    return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float holds exactly: whole ones up to 2**53."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) <= 2**53
    return isinstance(value, float) and math.isfinite(value)
