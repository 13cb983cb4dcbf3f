"""Reads ``forbidden``: a list of tables of parameters and the values that must not come together."""

from collections.abc import Mapping
from typing import Any

from hpo.search.forbidden import AnyOf, Between, Forbidden
from hpo.search.parameters import Categorical, Parameter, is_number
from hpo.search.space import Space
from hpo.studyfile.json_values import json_compatible
from hpo.studyfile.sample_configs import first_fitting_draw
from hpo.studyfile.validation import Mistakes, extent, shown, toml_path

Path = tuple[str | int, ...]


def read_forbidden(raw: Any, space: Space, unsound: set[str], mistakes: Mistakes) -> list[Forbidden]:
    """The forbidden combinations; ``unsound`` are parameters of the space that have mistakes of their own."""
    if not isinstance(raw, list) or not all(isinstance(entry, Mapping) for entry in raw):
        mistakes.add("forbidden", f"{shown(raw)} is refused; expected a list of tables, parameter = value or values")
        return []
    combinations = []
    for index, entry in enumerate(json_compatible(raw, ("forbidden",), mistakes)):
        named = _flat(entry, space)
        before = len(mistakes)
        conditions: dict[str, AnyOf | Between] = {}
        for name, given in named.items():
            path: Path = ("forbidden", index, name)
            if name in unsound:
                continue
            if name not in space.parameters:
                mistakes.unknown(toml_path(*path), "parameter of [space]:", name, list(space.parameters))
            elif (condition := _condition(given, space.parameters[name], path, mistakes)) is not None:
                conditions[name] = condition
        if not named:
            mistakes.add(toml_path("forbidden", index), "is empty and forbids everything; expected parameter = values")
        elif len(mistakes) == before and conditions.keys() == named.keys():
            combinations.append(Forbidden(conditions))
    return combinations


def check_forbidden(space: Space, try_first: list[dict[str, Any]], mistakes: Mistakes) -> None:
    """Adds what is forbidden and must not be: the whole space, or what is to be tried first."""
    if space.forbidden and first_fitting_draw(space, space.allows, most=2_000) is None:
        mistakes.add("forbidden", "forbids everything: none of 2,000 random configurations of [space] is left")
    for index, values in enumerate(try_first):
        if space.rules_out(values):
            mistakes.add(toml_path("try_first", index), "is forbidden; leave it out, or change forbidden")


def _flat(table: Mapping[str, Any], space: Space, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> what is given, whether spelled with dots or as nested tables."""
    named: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        is_nested = isinstance(value, Mapping) and any(other.startswith(f"{name}.") for other in space.parameters)
        named.update(_flat(value, space, f"{name}.") if is_nested else {name: value})
    return named


def _condition(given: Any, parameter: Parameter, path: Path, mistakes: Mistakes) -> AnyOf | Between | None:
    if isinstance(given, Mapping):
        return _range(given, parameter, path, mistakes)
    values = given if isinstance(given, list) else [given]
    if not values:
        mistakes.add(toml_path(*path), "is empty; expected at least one value")
    for index, value in enumerate(values):
        if not parameter.contains(value):
            where = (*path, index) if isinstance(given, list) else path
            mistakes.add(toml_path(*where), f"{shown(value)} is outside the space; expected {extent(parameter)}")
            return None
    return AnyOf(tuple(values)) if values else None


def _range(given: Mapping[str, Any], parameter: Parameter, path: Path, mistakes: Mistakes) -> Between | None:
    if isinstance(parameter, Categorical):
        mistakes.add(toml_path(*path), f"has no range; expected {extent(parameter)}")
        return None
    if not given or given.keys() - {"low", "high"} or not all(is_number(bound) for bound in given.values()):
        mistakes.add(toml_path(*path), f"{shown(given)} is refused; expected numbers low, high or both")
        return None
    low, high = given.get("low", parameter.low), given.get("high", parameter.high)
    if low > high or low > parameter.high or high < parameter.low:
        mistakes.add(toml_path(*path), f"{shown(given)} holds no value; expected {extent(parameter)}")
        return None
    return Between(given.get("low"), given.get("high"))
