"""The search space: Float, Int and Categorical parameters, some of them only under a condition on another.

A space is define-by-run for Optuna (``suggest`` asks for parents before children, and for no parameter that its
condition rules out), a list of cells for grid search, and a table of distributions for a trial whose values are known
already. A parameter that is not active is absent from the values and takes its fixed value or default.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Choice = str | int | float | bool
When = Mapping[str, tuple[Choice, ...]]
"""Parent -> the values of it under which a parameter is active; all parents must hold."""

MOST_CELLS = 1_000_000
"""A grid of more cells than this is refused: it is a slip of the pen, not a search."""


class GridTooLargeError(ValueError):
    """A grid has more than MOST_CELLS cells."""


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
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

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
        points = [min(max(value, self.low), self.high) for value in points]
        if self.step is not None:
            points = [self.low + self.step * math.floor((value - self.low) / self.step + 0.5) for value in points]
            points = [min(float(f"{value:.10g}"), self.high) for value in points]
        return tuple(dict.fromkeys(points))

    def every_value(self) -> tuple[float, ...] | None:
        """All values, where there are finitely many and not very many."""
        if self.step is None or (self.high - self.low) / self.step > 1_000:
            return None
        return self.points(round((self.high - self.low) / self.step) + 1)

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
        choice = trial.suggest_categorical(name, self.choices)
        assert choice is not None
        return choice

    def contains(self, value: Any) -> bool:
        return isinstance(value, str | int | float | bool) and value in self.choices

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


@dataclass(frozen=True)
class Space:
    """Parameters by name, in the file's order. Conditions name parameters of the space and have no cycle.

    Attributes:
        base: what a parameter is where nothing is sampled for it: its fixed value, else its default.
    """

    parameters: Mapping[str, Parameter]
    base: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Names, parents before children, else in the file's order."""
        return parents_first({name: tuple(p.when) for name, p in self.parameters.items()})

    @cached_property
    def conditions(self) -> dict[str, tuple[tuple[str, tuple[Choice, ...]], ...]]:
        """Name -> all that must hold for it to be active: its own conditions and those of its parents."""
        found: dict[str, dict[tuple[str, tuple[Choice, ...]], None]] = {}
        for name in self.order:
            found[name] = {}
            for parent, allowed in self.parameters[name].when.items():
                found[name].update(found[parent])
                found[name][(parent, tuple(allowed))] = None
        return {name: tuple(conditions) for name, conditions in found.items()}

    def is_active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether a parameter's conditions hold; a parent without a value has its base value."""
        return all(
            (values[parent] if parent in values else self.base.get(parent)) in allowed
            for parent, allowed in self.conditions[name]
        )

    def suggest(self, trial: "optuna.trial.BaseTrial") -> dict[str, Choice]:
        """Values of the active parameters, from the sampler of the trial's study."""
        values: dict[str, Choice] = {}
        for name in self.order:
            if self.is_active(name, values):
                values[name] = self.parameters[name].suggest(trial, name)
        return values

    def distributions(self) -> dict[str, "BaseDistribution"]:
        """Name -> Optuna's distribution, of all parameters."""
        return {name: self.parameters[name].distribution() for name in self.order}

    def active_distributions(self, values: Mapping[str, Any]) -> dict[str, "BaseDistribution"]:
        """Name -> Optuna's distribution, of the parameters that ``values`` gives and that are active under them.

        A value outside its parameter's range has none: Optuna could not hold it.
        """
        return {
            name: self.parameters[name].distribution()
            for name in self.order
            if name in values and self.is_active(name, values) and self.parameters[name].contains(values[name])
        }

    @cached_property
    def unconditional(self) -> dict[str, "BaseDistribution"]:
        """Name -> distribution of the parameters that every trial has and that vary: what samplers model jointly."""
        found = {name: self.parameters[name].distribution() for name in self.order if not self.parameters[name].when}
        return {name: distribution for name, distribution in found.items() if not distribution.single()}

    def grid(self) -> list[dict[str, Choice]]:
        """The cells of grid search, the first parameter of the file varying slowest.

        A cell holds the parameters with grid values that are active in it, so no two cells are alike.

        Raises:
            GridTooLargeError: for more than MOST_CELLS cells.
        """
        return list(self._cells)

    def size(self) -> int | None:
        """Number of the grid's cells; None where the space has parameters and none of them has grid values.

        Raises:
            GridTooLargeError: for more than MOST_CELLS cells.
        """
        if self.parameters and not self.gridded:
            return None
        return len(self._cells)

    @property
    def gridded(self) -> list[str]:
        """Names of the parameters that have grid values."""
        return [name for name, parameter in self.parameters.items() if parameter.grid is not None]

    @cached_property
    def _cells(self) -> list[dict[str, Choice]]:
        cells: list[dict[str, Choice]] = [{}]
        for name in self.order:
            grid = self.parameters[name].grid
            if grid is None:
                continue
            longer: list[dict[str, Choice]] = []
            for cell in cells:
                longer += [{**cell, name: value} for value in grid] if self.is_active(name, cell) else [cell]
                if len(longer) > MOST_CELLS:
                    raise GridTooLargeError(f"the grid has more than {MOST_CELLS} cells")
            cells = longer
        return cells

    def as_table(self) -> dict[str, Any]:
        """The space as the study file's table, every grid as its values."""
        return {name: parameter.as_table() for name, parameter in self.parameters.items()}


def parents_first(parents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Names with every parent before its children, else in the given order; those on or below a cycle are left out."""
    placed: dict[str, None] = {}
    found = True
    while found:
        found = False
        for name, wanted in parents.items():
            if name not in placed and all(parent in placed for parent in wanted):
                placed[name] = None
                found = True
    return tuple(placed)


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


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float holds exactly: whole ones up to 2**53."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) <= 2**53
    return isinstance(value, float) and math.isfinite(value)
