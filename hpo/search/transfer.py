"""Configurations of one search space in another: what of them fits, what is moved to the nearest value, what is not.

:func:`translate` makes a configuration to try of one that was good elsewhere. :func:`fitting` is stricter: a trial that
is taken over with its value must be a point of the new space, because its value belongs to exactly that point.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpo.search.parameters import Categorical, Choice, Float, Int, Parameter, is_among, is_number
from hpo.search.space import Space

MOVED_SHARE = 0.1
"""A number outside a range by at most this share of the range, on the parameter's scale, is moved to its bound."""

_ABSENT: Any = object()


@dataclass(frozen=True)
class Translated:
    """A configuration, or a part of one, in another space.

    Attributes:
        values: of the parameters that have one; the others are for the sampler to draw.
        moved: name -> the value that the nearest possible one has replaced.
        dropped: name -> the value that does not fit.
    """

    values: dict[str, Choice]
    moved: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, Any] = field(default_factory=dict)


def translate(space: Space, known: Mapping[str, Any]) -> Translated:
    """What of ``known`` values, by their names, can be tried in ``space``.

    A value that is possible stays. A number between the bounds goes to the nearest step or whole number, or the nearest
    of the choices if all are numbers; one that is outside of a range by little (:data:`MOVED_SHARE`) goes to the bound.
    """
    found = Translated({})
    for name in space.order:
        value = known.get(name, _ABSENT)
        if value is _ABSENT or not _may_be_active(space, name, found.values):
            continue
        nearest = _nearest(space.parameters[name], value)
        if nearest is _ABSENT:
            if value is not None:
                found.dropped[name] = value
            continue
        found.values[name] = nearest
        if not is_among(value, (nearest,)):
            found.moved[name] = value
    return found


def fitting(space: Space, known: Mapping[str, Any]) -> tuple[dict[str, Choice], str | None]:
    """The values of the parameters that are active in ``space``, and None; or why they are no point of it.

    The reason names a parameter without its value, so that equal reasons can be counted.
    """
    values: dict[str, Choice] = {}
    for name in space.order:
        if not space.is_active(name, values):
            continue
        if name not in known:
            return {}, f"{name} has no value"
        value = _same_point(space.parameters[name], known[name])
        if value is _ABSENT:
            of_choices = isinstance(space.parameters[name], Categorical)
            return {}, f"{name} is {'none of its choices' if of_choices else 'outside of its range'}"
        values[name] = value
    return (values, None) if space.allows(values) else ({}, "the combination is forbidden")


def _may_be_active(space: Space, name: str, values: Mapping[str, Any]) -> bool:
    """Whether nothing in ``values`` rules the parameter out; a parent that is drawn may activate it."""
    return all(parent not in values or is_among(values[parent], allowed) for parent, allowed in space.conditions[name])


def _same_point(parameter: Parameter, value: Any) -> Any:
    """The value as the parameter spells it; _ABSENT if it is no value of it."""
    if isinstance(parameter, Categorical):
        return next((choice for choice in parameter.choices if is_among(value, (choice,))), _ABSENT)
    if isinstance(parameter, Int) and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not parameter.contains(value):
        return _ABSENT
    return parameter.on_step(value) if isinstance(parameter, Float) else value


def _nearest(parameter: Parameter, value: Any) -> Any:
    """The value of the parameter that is nearest to ``value``; _ABSENT if none is near."""
    if (same := _same_point(parameter, value)) is not _ABSENT or not is_number(value):
        return same
    if isinstance(parameter, Categorical):
        if not all(map(is_number, parameter.choices)):
            return _ABSENT
        numbers = [choice for choice in parameter.choices if isinstance(choice, int | float)]
        scale = _scale(is_log=min(*numbers, value) > 0)
        return (
            min(numbers, key=lambda n: abs(scale(n) - scale(value))) if min(numbers) <= value <= max(numbers) else same
        )
    if parameter.log and value <= 0:
        return _ABSENT
    scale = _scale(is_log=parameter.log)
    low, high = scale(parameter.low), scale(parameter.high)
    if not low - MOVED_SHARE * (high - low) <= scale(value) <= high + MOVED_SHARE * (high - low):
        return _ABSENT
    inside = min(max(value, parameter.low), parameter.high)
    if isinstance(parameter, Int):
        return min(parameter.low + parameter.step * round((inside - parameter.low) / parameter.step), parameter.high)
    return parameter.on_step(inside)


def _scale(*, is_log: bool) -> Any:
    return math.log if is_log else float
