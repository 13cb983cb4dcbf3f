"""Combinations of parameters that a study file forbids: they are never drawn and no cell of a grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.search.parameters import Choice, is_among, is_number


@dataclass(frozen=True)
class AnyOf:
    """A parameter has one of these values."""

    values: tuple[Choice, ...]

    def contains(self, value: Any) -> bool:
        return is_among(value, self.values)


@dataclass(frozen=True)
class Between:
    """A parameter is a number in [low, high]; None is no bound."""

    low: float | None = None
    high: float | None = None

    def contains(self, value: Any) -> bool:
        return (
            is_number(value) and (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        )


@dataclass(frozen=True)
class Forbidden:
    """A combination of conditions on parameters, all of which must hold for it to be forbidden."""

    conditions: Mapping[str, AnyOf | Between]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether values are of this combination; a condition on a parameter without a value does not hold."""
        return all(name in values and condition.contains(values[name]) for name, condition in self.conditions.items())

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Forbidden":
        """The inverse of :meth:`as_table`."""
        conditions: dict[str, AnyOf | Between] = {}
        for name, given in table.items():
            is_range = isinstance(given, Mapping)
            conditions[name] = Between(given.get("low"), given.get("high")) if is_range else AnyOf(tuple(given))
        return cls(conditions)

    def as_table(self) -> dict[str, Any]:
        """Name -> the values as a list, or ``{ low, high }`` with the bounds that there are."""
        table: dict[str, Any] = {}
        for name, condition in self.conditions.items():
            if isinstance(condition, AnyOf):
                table[name] = list(condition.values)
            else:
                bounds = {"low": condition.low, "high": condition.high}
                table[name] = {bound: value for bound, value in bounds.items() if value is not None}
        return table


def forbids(forbidden: Sequence[Forbidden], values: Mapping[str, Any]) -> bool:
    """Whether values are of one of the forbidden combinations."""
    return any(combination.holds(values) for combination in forbidden)
