"""The fields of a trainer's configuration by their names in a study file, and whether a value fits a field.

A configuration is a pydantic model, a dataclass, or models and dataclasses within each other. A field within another
one has a dotted name, ``model.optimizer.lr``; a field with an alias has the name that pydantic reads. A trainer whose
configuration has no model accepts every name, see :class:`OpenFields`.
"""

import functools
from collections.abc import Mapping
from typing import Any

import pydantic

from hpo.studyfile.config_tree import (
    MISSING,
    ConfigField,
    as_given,
    fields_of,
    filled,
    has_converter,
    item_models,
    literals,
    search,
    spelled_fields,
)
from hpo.studyfile.validation import explain, shown

SPELLINGS: dict[str, Any] = {"none": None, "inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}
"""Texts that mean a value which TOML or JSON cannot hold, for a field that accepts the value and not the text."""

TYPE_OPTIONS = ("allow_inf_nan", "strict", "arbitrary_types_allowed", "coerce_numbers_to_str", "use_enum_values")


class ConfigFields:
    """The fields of one configuration.

    Attributes:
        names: the names at the top.
    """

    def __init__(self, config: type) -> None:
        self.config = config
        self.names = list(dict.fromkeys(field.name for field in fields_of(config)))
        self._adapters: dict[Any, pydantic.TypeAdapter[Any] | None] = {}

    def __contains__(self, name: str) -> bool:
        return bool(self.alternatives(name))

    def find(self, name: str) -> ConfigField | None:
        """The field of that name, in any spelling that pydantic reads; None if there is none."""
        return next(iter(self.alternatives(name)), None)

    def alternatives(self, name: str) -> tuple[ConfigField, ...]:
        """The field of that name; several if models that exclude each other have one of that name."""
        return tuple(search(tuple(spelled_fields(self.config)), name, 0))

    def level_of(self, name: str) -> tuple[str, list[str]]:
        """For an unknown name: the part of it that is unknown, and the names that are possible there."""
        prefix, names = "", self.names
        for dot in [index for index, letter in enumerate(name) if letter == "."]:
            field = self.find(name[:dot])
            if field is not None and field.models:
                prefix = name[: dot + 1]
                names = [below.name.removeprefix(field.name + ".") for below in field.below()]
            elif field is not None and (models := item_models(field.annotation)):
                prefix = name[: name.rindex(".") + 1]
                names = [inner.name for model in models for inner in fields_of(model)]
        return name[len(prefix) :].partition(".")[0], list(dict.fromkeys(names))

    def leads_on(self, name: str) -> bool:
        """Whether a name is no field but the beginning of one, by an alias that is a path."""
        return any(field.spelled.startswith(name + ".") for field in spelled_fields(self.config))

    def default(self, name: str) -> Any:
        """The field's default as a study file would spell it, or MISSING."""
        field = self.find(name)
        return MISSING if field is None else as_given(field.default)

    def literals(self, name: str) -> tuple[Any, ...] | None:
        """The values of a field that accepts only listed ones, or None."""
        listed = [literals(field.annotation) for field in self.alternatives(name)]
        if not listed or any(values is None for values in listed):
            return None
        return tuple(dict.fromkeys(value for values in listed for value in values or ()))

    def read(self, name: str, value: Any) -> tuple[Any, str | None]:
        """The value that a study file gives for a field, and what is wrong with it, or None.

        A text of SPELLINGS becomes its value; otherwise the value is the given one. This is stricter than pydantic,
        which reads ``"10"`` as 10 and 1 as true: in a study file that is a mistake.
        """
        first: str | None = None
        for field in self.alternatives(name):
            wrong = self._wrong(field, value)
            if wrong is None:
                return value, None
            if isinstance(value, str) and value in SPELLINGS and self._wrong(field, SPELLINGS[value]) is None:
                return SPELLINGS[value], None
            first = first or wrong
        if isinstance(value, str) and value.lower() in ("none", "null", "nil", "") and self.accepts(name, None):
            first = f'{first}, or "none" for no value'
        return value, first or "is not a parameter of the trainer's configuration"

    def accepts(self, name: str, value: Any) -> bool:
        return any(self._wrong(field, value) is None for field in self.alternatives(name))

    def held(self, name: str, value: Any) -> Any:
        """The value as the field holds it; the value itself if the field does not accept it."""
        for field in self.alternatives(name):
            if not field.converts and (adapter := self._adapter(field.annotation)) is not None:
                try:
                    return adapter.validate_python(value)
                except Exception:
                    continue
        return value

    def errors(self, name: str, value: Any) -> list[Any]:
        """pydantic's errors about a value, which may be a table."""
        for field in self.alternatives(name)[:1]:
            if field.converts or (adapter := self._adapter(field.annotation)) is None:
                continue
            try:
                adapter.validate_python(value)
            except pydantic.ValidationError as error:
                return error.errors(include_url=False)
            except Exception:
                return []
        return []

    def build(self, given: Mapping[str, Any]) -> Any:
        """The configuration of nested given values. Raises pydantic.ValidationError, or what a validator raises."""
        table = self._prepared(self.config, given, MISSING, "")
        if issubclass(self.config, pydantic.BaseModel):
            return self.config.model_validate(table)
        adapter = self._adapter(self.config)
        return self.config(**table) if adapter is None else adapter.validate_python(table)

    def _prepared(self, model: type, given: Mapping[str, Any], instance: Any, prefix: str) -> dict[str, Any]:
        """``given`` with texts of SPELLINGS as values, and nested defaults where only a part of one is given.

        A field with ``Optimizer(lr=0.1)`` as default keeps that lr if only its ``kind`` is given.
        """
        table = dict(given)
        for field in spelled_fields(model):
            if field.spelled_keys[0] not in table or len(field.spelled_keys) > 1:
                continue
            key, name = field.spelled_keys[0], prefix + field.spelled
            value = table[key]
            if isinstance(value, Mapping) and field.models:
                default = field.default if instance is MISSING else getattr(instance, field.attribute or "", MISSING)
                held_by = next((m for m in field.models if isinstance(default, m)), None)
                candidates = field.models if held_by is None else (held_by,)
                inner = self._prepared(candidates[0], value, default if held_by else MISSING, f"{name}.")
                table[key] = inner if held_by is None else filled(inner, held_by, default, field)
            elif isinstance(value, str) and value in SPELLINGS:
                table[key] = self.read(name, value)[0]
        return table

    def _wrong(self, field: ConfigField, value: Any) -> str | None:
        """What is wrong with a value, or None."""
        if field.converts or (adapter := self._adapter(field.annotation)) is None:
            return None
        try:
            held = adapter.validate_python(value)
        except pydantic.ValidationError as error:
            return "; ".join(dict.fromkeys(explain(item) for item in error.errors(include_url=False)))
        except Exception as error:
            return f"{shown(value)} is refused: {type(error).__name__}: {error}"
        scalars = isinstance(value, str | bool | int | float) and type(held) in (bool, int, float)
        if scalars and _kind(value) != _kind(held) and not has_converter(field.annotation):
            return f"{shown(value)} is {_kind(value)}; expected {_kind(held)}"
        return None

    def _adapter(self, annotation: Any) -> pydantic.TypeAdapter[Any] | None:
        """What validates one field; None if pydantic cannot: then only the whole configuration does."""
        key = id(annotation)
        if key not in self._adapters:
            options = getattr(self.config, "model_config", {})
            config: Any = {name: options[name] for name in TYPE_OPTIONS if name in options}
            try:
                try:
                    self._adapters[key] = pydantic.TypeAdapter(annotation, config=config)
                except pydantic.errors.PydanticUserError:  # a model or a dataclass, which has options of its own
                    self._adapters[key] = pydantic.TypeAdapter(annotation)
            except Exception:
                self._adapters[key] = None
        return self._adapters[key]


class OpenFields(ConfigFields):
    """Stands for the fields of a trainer that has no model of its configuration: any name, any value."""

    def __init__(self) -> None:
        self.names = []

    def alternatives(self, name: str) -> tuple[ConfigField, ...]:
        return (ConfigField(name, (name,), (name,), None, Any, MISSING, (), MISSING, True),)

    def leads_on(self, name: str) -> bool:
        return False

    def build(self, given: Mapping[str, Any]) -> Any:
        return dict(given)


@functools.lru_cache(maxsize=64)
def config_fields(config: type | None) -> ConfigFields:
    """The fields of a trainer's configuration; ``config`` is None for a trainer without a model of it."""
    return OpenFields() if config is None else ConfigFields(config)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "a number"
