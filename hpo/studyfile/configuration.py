"""From given values to a trainer's configuration and back: the one merge, and how configurations are compared.

*Given* values are what a trial's configuration is made of: the fixed values of the study file and the sampled ones, as
nested tables that JSON can hold, before the trainer's configuration has validated them. They are kept with each trial
and validated again by every attempt, by an export and by ``hpo train``: a validated configuration that is dumped and
read again need not be equal (aliases, computed fields, validators that convert).
"""

import dataclasses
import datetime
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic

from hpo.studyfile.config_fields import ConfigFields, OpenFields
from hpo.studyfile.config_tree import MISSING, as_given, fields_of, is_model


def encode(value: Any) -> Any:
    """A given value as JSON can hold it: dates and numbers that are not finite become text."""
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value


def merge(fields: ConfigFields, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested given values of layers of values by their names; a later layer goes before an earlier one."""
    given: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            _place(given, fields, name, encode(value))
    return given


def _place(given: dict[str, Any], fields: ConfigFields, name: str, value: Any) -> None:
    field = fields.find(name)
    keys = (name,) if field is None else field.keys
    table = given
    for depth, key in enumerate(keys[:-1], start=1):
        inner = table.get(key)
        if not isinstance(inner, Mapping):
            # A dict of the configuration keeps the entries of its default beside the one that is given.
            holder = fields.find(".".join(keys[:depth]))
            default = MISSING if holder is None or holder.entry is MISSING else as_given(holder.default)
            inner = encode(default) if isinstance(default, Mapping) else {}
        table[key] = dict(inner)
        table = table[key]
    table[keys[-1]] = value


def flat_values(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested given values by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in given.items():
        if isinstance(value, Mapping):
            flat.update(flat_values(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def base_values(fields: ConfigFields, names: Iterable[str], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """What parameters are where nothing is sampled for them: their fixed values, else their defaults."""
    given = merge(fields, fixed)
    base = {}
    for name in names:
        field = fields.find(name)
        value: Any = given
        for key in (name,) if field is None else field.keys:
            value = value.get(key, MISSING) if isinstance(value, Mapping) else MISSING
        if value is MISSING:
            value = fields.default(name)
        if value is not MISSING:
            base[name] = value
    return base


def as_fixed(fields: ConfigFields, given: Mapping[str, Any]) -> dict[str, Any]:
    """The table ``[fixed]`` of a study file that trains with these given values.

    The defaults of the other fields are written out, so that the file means the same under a version of the trainer
    with other defaults, unless the configuration would not come back equal with them.
    """
    full = dict(given)
    if not isinstance(fields, OpenFields):
        for field in fields_of(fields.config):
            default = as_given(field.default)
            if len(field.keys) == 1 and field.keys[0] not in given and default is not MISSING:
                full[field.keys[0]] = encode(default)
    try:
        full = full if first_difference(fields.build(full), fields.build(given)) is None else dict(given)
    except Exception:  # a default that its own field refuses
        full = dict(given)
    return {key: _spelled(fields, key, value) for key, value in full.items()}


def _spelled(fields: ConfigFields, name: str, value: Any) -> Any:
    """``value`` with "none" in place of each None that the field reads back from that text."""
    if value is None and fields.read(name, "none") == (None, None):
        return "none"
    if isinstance(value, Mapping):
        return {key: _spelled(fields, f"{name}.{key}", item) for key, item in value.items()}
    return value


def first_difference(one: Any, other: Any, path: str = "") -> str | None:
    """Where two configurations differ, as a dotted path; None if they are equal. NaN equals NaN."""
    here = path or "the configuration"
    if type(one) is not type(other):
        return here
    if isinstance(one, float) and math.isnan(one) and math.isnan(other):
        return None
    if is_model(type(one)) or (
        "__eq__" not in _class_names(type(one)) and hasattr(one, "__dict__") and not callable(one)
    ):
        one, other = _attributes(one), _attributes(other)
    if isinstance(one, Mapping):
        if one.keys() != other.keys():
            return here
        pairs = [(f"{path}.{key}" if path else str(key), one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple) and len(one) == len(other):
        pairs = [(f"{path}[{index}]", *pair) for index, pair in enumerate(zip(one, other, strict=True))]
    else:
        return None if _are_equal(one, other) else here
    differences = (first_difference(mine, theirs, name) for name, mine, theirs in pairs)
    return next((difference for difference in differences if difference is not None), None)


def _class_names(kind: type) -> set[str]:
    """Names that a class and its bases define, without those of ``object``."""
    return {name for base in kind.__mro__[:-1] for name in vars(base)}


def _attributes(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, MISSING) for field in dataclasses.fields(value)}
    return {**vars(value), **(getattr(value, "__pydantic_extra__", None) or {})}


def _are_equal(one: Any, other: Any) -> bool:
    try:
        equal = one == other
        return bool(equal.all()) if hasattr(equal, "all") else bool(equal)
    except Exception:  # a comparison of the user's own
        return repr(one) == repr(other)


def display_dump(config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """A validated configuration as JSON can hold it, for display alone; the given values if it cannot be dumped."""
    try:
        if isinstance(config, pydantic.BaseModel):
            dumped = config.model_dump(mode="json")
        elif dataclasses.is_dataclass(config) and not isinstance(config, type):
            dumped = pydantic.TypeAdapter(type(config)).dump_python(config, mode="json")
        else:
            dumped = dict(given)
        dumped = encode(dumped)
        json.dumps(dumped, allow_nan=False)
    except Exception:  # a serializer of the user's own, or a value that JSON cannot hold
        return dict(given)
    return dict(dumped)
