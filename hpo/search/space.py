"""The search space: parameters by name, some of them only under a condition on another.

A space is define-by-run for Optuna (``suggest`` asks for parents before children, and for no parameter that its
condition rules out), a list of cells for grid search, and a table of distributions for a trial that has its values
already. A parameter that is not active is absent from the values and takes its fixed value or default.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hpo.search.forbidden import Forbidden, forbids
from hpo.search.parameters import (
    Categorical,
    Choice,
    Float,
    Int,
    Parameter,
    When,
    is_among,
    is_choice,
    is_number,
)

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

__all__ = [
    "MOST_CELLS",
    "Categorical",
    "Choice",
    "Float",
    "GridTooLargeError",
    "Int",
    "Parameter",
    "Space",
    "When",
    "is_among",
    "is_choice",
    "is_number",
    "parents_first",
]

MOST_CELLS = 1_000_000
"""A grid of more cells than this is refused: it is a slip of the pen, not a search."""


class GridTooLargeError(ValueError):
    """A grid has more than MOST_CELLS cells."""


_NO_VALUE: Any = object()


@dataclass(frozen=True)
class Space:
    """Parameters by name, in the file's order. Conditions name parameters of the space and have no cycle.

    Attributes:
        base: what a parameter is where nothing is sampled for it: its fixed value, else its default.
        forbidden: combinations that are never drawn and no cell of the grid.
    """

    parameters: Mapping[str, Parameter]
    base: Mapping[str, Any] = field(default_factory=dict, compare=False)
    forbidden: tuple[Forbidden, ...] = field(default=(), compare=False)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Names, parents before children, else in the file's order."""
        return parents_first({name: tuple(p.when) for name, p in self.parameters.items()})

    @cached_property
    def conditions(self) -> dict[str, tuple[tuple[str, tuple[Choice, ...]], ...]]:
        """Name -> all that must hold for it to be active: its own conditions and those of its parents."""
        conditions: dict[str, dict[tuple[str, tuple[Choice, ...]], None]] = {}
        for name in self.order:
            conditions[name] = {}
            for parent, allowed in self.parameters[name].when.items():
                conditions[name].update(conditions[parent])
                conditions[name][(parent, tuple(allowed))] = None
        return {name: tuple(held) for name, held in conditions.items()}

    def is_active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether a parameter's conditions hold; a parent without a value has its base value."""
        return all(
            is_among(values[parent] if parent in values else self.base.get(parent, _NO_VALUE), allowed)
            for parent, allowed in self.conditions[name]
        )

    def allows(self, values: Mapping[str, Any]) -> bool:
        """Whether a complete set of values is not forbidden; a parameter without a value has its base value."""
        if not self.forbidden:
            return True
        base = {name: value for name, value in self.base.items() if name in self.parameters}
        return not forbids(self.forbidden, {**base, **values})

    def rules_out(self, values: Mapping[str, Any]) -> bool:
        """Whether these values are forbidden whatever the other parameters are."""
        return forbids(self.forbidden, values)

    def suggest(self, trial: "optuna.trial.BaseTrial") -> dict[str, Choice]:
        """Values of the active parameters, from the sampler of the trial's study."""
        values: dict[str, Choice] = {}
        for name in self.order:
            if self.is_active(name, values):
                values[name] = self.parameters[name].suggest(trial, name)
        return values

    def draw(self, rng: random.Random) -> dict[str, Choice]:
        """Random values of the active parameters."""
        values: dict[str, Choice] = {}
        for name in self.order:
            if self.is_active(name, values):
                values[name] = self.parameters[name].draw(rng)
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
        conditions = {
            name: self.parameters[name].distribution() for name in self.order if not self.parameters[name].when
        }
        return {name: distribution for name, distribution in conditions.items() if not distribution.single()}

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
        return [cell for cell in cells if self.allows(cell)]

    @classmethod
    def from_table(cls, table: Mapping[str, Mapping[str, Any]]) -> "Space":
        """The inverse of :meth:`as_table`."""
        return cls({name: _parameter(entry) for name, entry in table.items()})

    def as_table(self) -> dict[str, Any]:
        """The space as the study file's table, every grid as its values."""
        return {name: parameter.as_table() for name, parameter in self.parameters.items()}


def _parameter(table: Mapping[str, Any]) -> Parameter:
    grid = None if table.get("grid") is None else tuple(table["grid"])
    when = {parent: tuple(values) for parent, values in table.get("when", {}).items()}
    if "choices" in table:
        return Categorical(tuple(table["choices"]), grid, when)
    low, high, log, step = table["low"], table["high"], table.get("log", False), table.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return Int(low, high, log, step or 1, grid, when)
    return Float(float(low), float(high), log, step, grid, when)


def parents_first(parents: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Names with every parent before its children, else in the given order; those on or below a cycle are left out."""
    placed: dict[str, None] = {}
    placed_one = True
    while placed_one:
        placed_one = False
        for name, wanted in parents.items():
            if name not in placed and all(parent in placed for parent in wanted):
                placed[name] = None
                placed_one = True
    return tuple(placed)
