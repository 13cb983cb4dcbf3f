"""How a configuration's type is built: its fields, the models within them, their defaults, aliases and names.

This reads pydantic models and dataclasses; :mod:`hpo.studyfile.config_fields` checks values with it.
"""

import dataclasses
import enum
import functools
import pathlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

MISSING: Any = object()
"""Stands for no value if None is a value."""

CONVERTING = (pydantic.BeforeValidator, pydantic.PlainValidator, pydantic.WrapValidator)
MOST_DEPTH = 20


@dataclasses.dataclass(frozen=True)
class ConfigField:
    """One field.

    Attributes:
        name: its name in a study file, dotted within other fields.
        spelled_keys: the keys under which it was found; they differ from ``keys`` for another spelling of it.
        keys: the keys that lead to it in the nested tables that the configuration is validated from.
        attribute: its name in Python; None for an entry of a dict.
        annotation: its type with its bounds.
        default: its default as the trainer sees it, or MISSING.
        models: the models and dataclasses that it may hold, whose fields have names below its own.
        entry: the type of its entries if it holds a dict with text as keys, or MISSING.
        converts: whether a validator of the model reads the value before its type does.
    """

    name: str
    spelled_keys: tuple[str, ...]
    keys: tuple[str, ...]
    attribute: str | None
    annotation: Any
    default: Any
    models: tuple[type, ...]
    entry: Any
    converts: bool

    @property
    def spelled(self) -> str:
        """The name under which it was found."""
        return ".".join(self.spelled_keys)

    @property
    def is_table(self) -> bool:
        """Whether it holds exactly one model, so that a table for it is a table of its fields."""
        return len(self.models) == 1 and self.entry is MISSING

    @property
    def is_mapping(self) -> bool:
        """Whether it may hold a dict with text as keys."""
        return self.entry is not MISSING

    def below(self, all_spellings: bool = False) -> Iterator["ConfigField"]:
        """The fields of the models that it may hold, with their names within this one."""
        for model in self.models:
            for field in spelled_fields(model) if all_spellings else fields_of(model):
                yield dataclasses.replace(
                    field,
                    name=f"{self.name}.{field.name}",
                    spelled_keys=(*self.spelled_keys, *field.spelled_keys),
                    keys=(*self.keys, *field.keys),
                    default=self._default(field),
                )

    def _default(self, field: "ConfigField") -> Any:
        """The value of a field within this one if only this one's default counts."""
        if self.default is MISSING or self.default is None or field.attribute is None:
            return field.default
        return getattr(self.default, field.attribute, field.default)


@functools.lru_cache(maxsize=1024)
def fields_of(model: Any) -> tuple[ConfigField, ...]:
    """The fields of one model or dataclass, each in the first spelling that pydantic reads."""
    seen: dict[str, ConfigField] = {}
    for field in spelled_fields(model):
        seen.setdefault(field.attribute or field.name, field)
    return tuple(seen.values())


@functools.lru_cache(maxsize=1024)
def spelled_fields(model: Any) -> tuple[ConfigField, ...]:
    """The fields of one model or dataclass in every spelling that pydantic reads, its own name before its aliases."""
    options = getattr(model, "model_config", None) or getattr(model, "__pydantic_config__", None) or {}
    decorators = getattr(model, "__pydantic_decorators__", None)
    converting = {
        name
        for decorator in (decorators.field_validators.values() if decorators else ())
        if decorator.info.mode in ("before", "plain", "wrap")
        for name in decorator.info.fields
    }
    fields = []
    for attribute, info in _infos(model):
        annotation: Any = info.rebuild_annotation()
        if info.discriminator is not None:
            annotation = Annotated[annotation, pydantic.Field(discriminator=info.discriminator)]
        members = list(_members(annotation, 0))
        models = tuple(dict.fromkeys(member for member in members if is_model(member)))
        entries = [get_args(m)[1] for m in members if _is_text_mapping(m)] + [Any for m in members if m is dict]
        # A model that allows unknown names holds them as a dict does.
        entries += [Any for member in models if getattr(member, "model_config", {}).get("extra") == "allow"]
        spellings = _spellings(attribute, info, options)
        for spelled_keys in spellings:
            fields.append(
                ConfigField(
                    ".".join(spellings[0]),
                    spelled_keys,
                    spellings[0],
                    attribute,
                    annotation,
                    _default(info),
                    models,
                    entries[0] if entries else MISSING,
                    attribute in converting or "*" in converting,
                )
            )
    return tuple(fields)


def can_refuse(model: type, within: tuple[type, ...] = ()) -> bool:
    """Whether a configuration can refuse values each of which its own field accepts: it has code of its own."""
    decorators = getattr(model, "__pydantic_decorators__", None)
    if decorators is not None and (
        decorators.model_validators
        or decorators.field_validators
        or decorators.validators
        or decorators.root_validators
    ):
        return True
    own = {name for base in model.__mro__ if base not in (pydantic.BaseModel, object) for name in vars(base)}
    if "__post_init__" in own or "model_post_init" in own:
        return True
    inner = {model for field in fields_of(model) for model in field.models} - {model, *within}
    return any(can_refuse(one, (*within, model)) for one in inner)


def as_given(value: Any) -> Any:
    """A value of a configuration as a study file would spell it, or MISSING for what has no such spelling."""
    if value is None or (isinstance(value, str | bool | int | float) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, enum.Enum):
        return as_given(value.value)
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        items = [as_given(item) for item in value]
        return MISSING if any(item is MISSING for item in items) else items
    if isinstance(value, Mapping):
        held = {key: as_given(item) for key, item in value.items()}
        return MISSING if any(v is MISSING or not isinstance(k, str) for k, v in held.items()) else held
    if is_model(type(value)):
        held = {}
        for field in fields_of(value.__class__):
            if len(field.keys) > 1 or (item := as_given(getattr(value, field.attribute or "", MISSING))) is MISSING:
                return MISSING
            held[field.keys[0]] = item
        return held
    return MISSING


def search(fields: Sequence[ConfigField], name: str, depth: int) -> Iterator[ConfigField]:
    """The fields that a name leads to, of several spellings that fit the longest."""
    fitting = [field for field in fields if name == field.spelled or name.startswith(field.spelled + ".")]
    longest = max((len(field.spelled) for field in fitting), default=0)
    for field in [field for field in fitting if len(field.spelled) == longest]:
        if name == field.spelled:
            yield field
        elif depth < MOST_DEPTH:
            below = list(search(tuple(field.below(all_spellings=True)), name, depth + 1))
            if not below and field.entry is not MISSING:
                below = list(search([_entry(field, name)], name, depth + 1))
            yield from below


def _entry(field: ConfigField, name: str) -> ConfigField:
    """The entry of a dict whose key is the next part of a name."""
    rest = name.removeprefix(field.spelled + ".")
    members = list(_members(field.entry, 0))
    models = tuple(member for member in members if is_model(member))
    entries = [get_args(m)[1] for m in members if _is_text_mapping(m)]
    key = rest.partition(".")[0] if models or entries else rest
    default = field.default.get(key, MISSING) if isinstance(field.default, Mapping) else MISSING
    return ConfigField(
        f"{field.name}.{key}",
        (*field.spelled_keys, key),
        (*field.keys, key),
        None,
        field.entry,
        default,
        models,
        entries[0] if entries else MISSING,
        field.converts,
    )


def filled(table: dict[str, Any], model: type, default: Any, field: ConfigField) -> dict[str, Any]:
    """A part of a nested default completed by the rest of that default; unchanged if it is another model's."""
    named = {inner.spelled_keys[0]: inner for inner in spelled_fields(model)}
    if any(key not in named for key in table):
        return table
    for key, value in table.items():  # the tag of a union
        tags = literals(named[key].annotation)
        if len(field.models) > 1 and tags is not None and value not in tags:
            return table
    given = {named[key].attribute for key in table}
    full = dict(table)
    for inner in fields_of(model):
        value = getattr(default, inner.attribute or "", MISSING)
        is_tag = len(field.models) > 1 and literals(inner.annotation) is not None
        if inner.attribute in given or value is MISSING or len(inner.keys) > 1:
            continue
        if is_tag or inner.default is MISSING or not _equal(value, inner.default):
            full[inner.keys[0]] = value
    return full


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False


def _infos(model: type) -> Iterator[tuple[str, FieldInfo]]:
    """Name and pydantic's description of each field that can be given."""
    described = getattr(model, "model_fields", None) or getattr(model, "__pydantic_fields__", None)
    if described is not None:
        yield from ((name, info) for name, info in described.items() if info.init is not False)
        return
    try:
        hints = typing.get_type_hints(model, include_extras=True)
    except Exception:
        hints = {}
    for field in dataclasses.fields(model):
        if not field.init:
            continue
        info = FieldInfo.from_annotation(hints.get(field.name, Any))
        if field.default is not dataclasses.MISSING:
            info.default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            info.default_factory = field.default_factory
        yield field.name, info


def _spellings(attribute: str, info: FieldInfo, options: Mapping[str, Any]) -> list[tuple[str, ...]]:
    alias = info.validation_alias or info.alias
    choices = alias.choices if isinstance(alias, pydantic.AliasChoices) else [alias]
    spelled: list[tuple[str, ...]] = []
    for choice in choices:
        if isinstance(choice, str):
            spelled.append((choice,))
        elif isinstance(choice, pydantic.AliasPath) and all(isinstance(part, str) for part in choice.path):
            spelled.append(tuple(str(part) for part in choice.path))
    by_name = options.get("populate_by_name") or options.get("validate_by_name")
    if options.get("validate_by_alias", True) is False:
        spelled = []
    return [(attribute,), *spelled] if by_name or not spelled else spelled


def _default(info: FieldInfo) -> Any:
    if info.is_required() or (info.default_factory is not None and info.default_factory_takes_validated_data):
        return MISSING
    try:
        return info.get_default(call_default_factory=True)
    except Exception:  # a factory of the user's own
        return MISSING


def _members(annotation: Any, depth: int) -> Iterator[Any]:
    """The types that an annotation allows, without None."""
    origin = get_origin(annotation)
    if depth > MOST_DEPTH:
        return
    if origin is Annotated:
        yield from _members(get_args(annotation)[0], depth + 1)
    elif origin in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _members(argument, depth + 1)
    elif hasattr(annotation, "__value__"):  # type X = …
        yield from _members(annotation.__value__, depth + 1)
    elif annotation is not type(None):
        yield annotation


def item_models(annotation: Any) -> tuple[type, ...]:
    """The models that the lists, tuples and sets of an annotation hold."""
    items = [item for member in _members(annotation, 0) for item in get_args(member)]
    return tuple(model for item in items for model in _members(item, 0) if is_model(model))


def is_model(member: Any) -> bool:
    if not isinstance(member, type) or get_origin(member) is not None:
        return False
    return (issubclass(member, pydantic.BaseModel) and not issubclass(member, pydantic.RootModel)) or (
        dataclasses.is_dataclass(member)
    )


def _is_text_mapping(member: Any) -> bool:
    origin = get_origin(member)
    return isinstance(origin, type) and issubclass(origin, Mapping) and get_args(member)[:1] == (str,)


def has_converter(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return any(isinstance(item, CONVERTING) for item in metadata) or has_converter(inner)
    return any(has_converter(argument) for argument in get_args(annotation))


def literals(annotation: Any) -> tuple[Any, ...] | None:
    members = list(_members(annotation, 0))
    if not members or any(get_origin(member) is not Literal for member in members):
        return None
    return tuple(value for member in members for value in get_args(member))
