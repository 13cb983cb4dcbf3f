"""Reads the ``when`` of the parameters of ``[space]`` and checks what the conditions name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hpo.errors import near_miss
from hpo.search.space import Categorical, Choice, Float, Parameter, is_choice, parents_first
from hpo.studyfile.config_fields import ConfigFields
from hpo.studyfile.space_entries import Entry
from hpo.studyfile.validation import Mistakes, extent, shown


def read_when(
    entry: Entry, raw: Mapping[str, Any], fields: ConfigFields, mistakes: Mistakes, path: tuple[str, ...] = ()
) -> dict[str, tuple[Choice, ...]]:
    """Parent -> the values under which the parameter is active; parents may be spelled with dots or as tables."""
    when: dict[str, tuple[Choice, ...]] = {}
    for key, allowed in raw.items():
        here = (*path, key)
        if isinstance(allowed, Mapping):
            when.update(read_when(entry, allowed, fields, mistakes, here))
            continue
        spelled = ".".join(here)
        parent = spelled if (field := fields.find(spelled)) is None else field.name
        values = allowed if isinstance(allowed, list) else [allowed]
        place = entry.at("when", *here)
        if not values:
            mistakes.add(place, "is empty; expected a value or a list of values")
        for value in values:
            if not is_choice(value):
                mistakes.add(place, f"{shown(value)} is refused; expected a value of {parent}")
        when[parent] = tuple(fields.read(parent, value)[0] for value in values if is_choice(value))
    return when


def check_conditions(
    parameters: Mapping[str, Parameter], entries: Mapping[str, Entry], fields: ConfigFields, mistakes: Mistakes
) -> dict[str, Parameter]:
    """Checks what conditions name; returns the parameters whose conditions and parents make sense."""
    broken: set[str] = set()
    for name, parameter in parameters.items():
        for parent, allowed in parameter.when.items():
            path = entries[name].at("when", parent)
            if parent not in entries:
                known = [*entries, *fields.names]
                hint = "" if parent in known else near_miss(parent, known)
                mistakes.add(path, f"{parent} is not in [space]{hint}; a condition names another searched parameter")
                broken.add(name)
            elif parent not in parameters:
                broken.add(name)  # the parent has mistakes of its own
            else:
                for value in allowed:
                    if wrong := _impossible(parameters[parent], parent, value):
                        mistakes.add(path, wrong)
                        broken.add(name)
    parents = {name: tuple(p for p in parameter.when if p in parameters) for name, parameter in parameters.items()}
    placed = parents_first(parents)
    for name in parameters:
        if name not in placed:
            mistakes.add(
                entries[name].at("when"),
                f"the conditions go round in a circle ({_circle(name, parents)}); leave one of them out",
            )
    kept: dict[str, Parameter] = {}
    for name in placed:
        if name not in broken and all(parent in kept for parent in parents[name]):
            kept[name] = _with_conditions_on_steps(parameters[name], parameters)
    return {name: kept[name] for name in parameters if name in kept}


def _with_conditions_on_steps(parameter: Parameter, parameters: Mapping[str, Parameter]) -> Parameter:
    """The parameter with the values of its conditions as its parents spell them."""
    when = {}
    for name, allowed in parameter.when.items():
        parent = parameters[name]
        is_real = isinstance(parent, Float)
        when[name] = tuple(parent.on_step(value) if is_real else value for value in allowed)  # type: ignore[union-attr, arg-type]
    return dataclasses.replace(parameter, when=when)


def _impossible(parent: Parameter, name: str, value: Choice) -> str | None:
    """Why a condition's value is never one of its parent's, or None."""
    if isinstance(parent, Float) and parent.step is None:
        return f"{name} is a range of real numbers, which never equals {shown(value)}; name a list or a whole number"
    if parent.contains(value):
        return None
    texts = [choice for choice in parent.choices if isinstance(choice, str)] if isinstance(parent, Categorical) else []
    return f"{name} is never {shown(value)}{near_miss(str(value), texts)}; it is {extent(parent)}"


def _circle(start: str, parents: Mapping[str, tuple[str, ...]]) -> str:
    """A cycle that leads back to or is reached from a name, as ``a -> b -> a``."""
    placed = set(parents_first(parents))
    trail = [start]
    while True:
        following = next(parent for parent in parents[trail[-1]] if parent not in placed)
        if following in trail:
            return " -> ".join([*trail[trail.index(following) :], following])
        trail.append(following)
