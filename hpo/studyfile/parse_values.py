"""Reads ``[fixed]`` and ``[[try_first]]``: tables of values of the trainer's configuration, by dotted names."""

from collections.abc import Mapping
from typing import Any

from hpo.search.space import Float, Parameter, Space, is_among
from hpo.studyfile.config_fields import ConfigFields, OpenFields
from hpo.studyfile.configuration import encode
from hpo.studyfile.json_values import json_compatible, parameter_name_mistake
from hpo.studyfile.validation import Mistakes, explain, extent, location, near_or_all, shown, toml_path

Path = tuple[str | int, ...]


def read_fixed(table: Mapping[str, Any], fields: ConfigFields, mistakes: Mistakes) -> dict[str, Any]:
    """The fixed values by their dotted names, as JSON can hold them."""
    fixed = {}
    for name, (path, value) in _named_values(
        json_compatible(table, ("fixed",), mistakes), fields, ("fixed",), mistakes
    ).items():
        if (read := _read(name, value, fields, path, mistakes)) is not None:
            fixed[name] = encode(read[0])
    return fixed


def read_try_first(
    entries: list[Any], space: Space, unsound: set[str], fields: ConfigFields, mistakes: Mistakes
) -> list[dict[str, Any]]:
    """The configurations to try first; names in ``unsound`` are parameters of the space that have mistakes already."""
    first = []
    for index, entry in enumerate(json_compatible(entries, ("try_first",), mistakes)):
        values: dict[str, Any] = {}
        for name, (path, value) in _named_values(entry, fields, ("try_first", index), mistakes, space).items():
            if name in unsound:
                continue
            if (read := _read(name, value, fields, path, mistakes, space.parameters.get(name))) is not None:
                values[name] = encode(read[0])
        for name in values:
            for parent, allowed in space.conditions.get(name, ()):
                if parent in values and not is_among(values[parent], allowed):
                    mistakes.add(
                        toml_path("try_first", index, name),
                        f"is not active with {parent} = {shown(values[parent])}; "
                        f"leave it out, or give {parent} one of {shown(allowed)}",
                    )
        first.append(values)
    return first


def _read(
    name: str, value: Any, fields: ConfigFields, path: Path, mistakes: Mistakes, parameter: Parameter | None = None
) -> tuple[Any] | None:
    """The value as the configuration is given it, in a tuple of one; None after a mistake."""
    if isinstance(value, Mapping | list) and (errors := fields.errors(name, value)):
        for item in errors:
            inner = location(item, value)
            known = fields.level_of(".".join(map(str, (name, *inner))))[1]
            mistakes.add(toml_path(*path, *inner), explain(item, known))
        return None
    given, wrong = fields.read(name, value)
    if parameter is not None:
        if not parameter.contains(given):
            mistakes.add(toml_path(*path), f"{shown(value)} is outside the space; expected {extent(parameter)}")
            return None
        return (parameter.on_step(given) if isinstance(parameter, Float) else given,)
    if wrong is not None:
        mistakes.add(toml_path(*path), wrong)
        return None
    return (given,)


def _named_values(
    table: Mapping[str, Any],
    fields: ConfigFields,
    path: Path,
    mistakes: Mistakes,
    space: Space | None = None,
    prefix: str = "",
) -> dict[str, tuple[Path, Any]]:
    """Dotted name -> path and value of everything in a table, whether spelled with dots or as nested tables."""
    named: dict[str, tuple[Path, Any]] = {}
    for key, value in table.items():
        name, here = prefix + key, (*path, key)
        field = fields.find(name)
        if field is None and not (isinstance(value, Mapping) and fields.leads_on(name)):
            add_unknown(name, fields, here, mistakes, space)
            continue
        if isinstance(fields, OpenFields) and (wrong := parameter_name_mistake(name)) is not None:
            mistakes.add(toml_path(*here), wrong)
            continue
        if field is None:
            inner = _named_values(value, fields, here, mistakes, space, f"{name}.")
        elif isinstance(value, Mapping) and value and (field.is_table or isinstance(fields, OpenFields)):
            inner = _named_values(value, fields, here, mistakes, space, f"{field.name}.")
        else:
            inner = {field.name: (here, value)}
        for inner_name, entry in inner.items():
            if inner_name in named:
                mistakes.add(
                    toml_path(*entry[0]), f"is given twice; it is the same as {toml_path(*named[inner_name][0])}"
                )
            named[inner_name] = entry
    return named


def add_unknown(name: str, fields: ConfigFields, path: Path, mistakes: Mistakes, space: Space | None = None) -> None:
    """Adds the mistake of a name that is no field, with the near miss among the names at its own level."""
    part, names = fields.level_of(name)
    known = names if space is None or part != name else list(dict.fromkeys([*space.parameters, *names]))
    kind = "parameter" if space is not None else "parameter of the trainer's configuration:"
    if part == name:
        mistakes.unknown(toml_path(*path), kind, name, known)
    else:
        mistakes.add(toml_path(*path), f"unknown name {shown(part)}{near_or_all(part, known)}")
