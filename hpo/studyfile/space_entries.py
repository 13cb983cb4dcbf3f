"""The entries of ``[space]`` by their dotted names, however the file spells them: with dots or as nested tables."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hpo.studyfile import hints
from hpo.studyfile.config_fields import ConfigFields, OpenFields
from hpo.studyfile.config_tree import ConfigField
from hpo.studyfile.json_values import parameter_name_mistake
from hpo.studyfile.parse_values import add_unknown
from hpo.studyfile.validation import Mistakes, toml_path


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of ``[space]``: the parameter's name, the path at which the file has it, and what it says."""

    name: str
    path: tuple[str, ...]
    raw: Any

    def at(self, *more: str | int) -> str:
        return toml_path(*self.path, *more)


def read_entries(
    table: Mapping[str, Any],
    fields: ConfigFields,
    mistakes: Mistakes,
    path: tuple[str, ...] = ("space",),
    prefix: str = "",
) -> dict[str, Entry]:
    """The entries by their dotted names, whether spelled with dots or as nested tables."""
    entries: dict[str, Entry] = {}
    for key, raw in table.items():
        name, here = prefix + key, (*path, key)
        field = fields.find(name)
        if field is None and not (isinstance(raw, Mapping) and fields.leads_on(name)):
            add_unknown(name, fields, here, mistakes)
            continue
        if isinstance(fields, OpenFields) and (wrong := parameter_name_mistake(name)) is not None:
            mistakes.add(toml_path(*here), wrong)
            continue
        if field is None:
            inner = read_entries(raw, fields, mistakes, here, f"{name}.")
        elif _is_group(raw, field, fields):
            inner = read_entries(raw, fields, mistakes, here, f"{field.name}.")
        else:
            inner = {field.name: Entry(field.name, here, raw)}
        for inner_name, entry in inner.items():
            if inner_name in entries:
                mistakes.add(entry.at(), f"is given twice; it is the same as {entries[inner_name].at()}")
            entries.setdefault(inner_name, entry)
    return entries


def _is_group(raw: Any, field: ConfigField, fields: ConfigFields) -> bool:
    """Whether an entry is no parameter but a table of the parameters below its name."""
    if not isinstance(raw, Mapping) or not raw or hints.is_function(raw):
        return False
    if isinstance(fields, OpenFields):
        return all(isinstance(value, list | Mapping) for value in raw.values()) and not raw.keys() & hints.LISTS
    names_a_field = field.models != () and any(f"{field.name}.{key}" in fields for key in raw)
    holds_fields = field.models != () or field.is_mapping
    return names_a_field or (holds_fields and not raw.keys() & {"low", "high", "choices"})
