"""A trainer's configuration, field by field: what a study file may set, and whether a value fits."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic

from hpo.studyfile.validation import Mistakes, explain, shown, toml_path

MISSING: Any = object()
"""Stands for no value where None is one."""


class Fields:
    """The fields of a configuration's pydantic model."""

    def __init__(self, config: type[pydantic.BaseModel]) -> None:
        self.config = config
        self.names = list(config.model_fields)
        self._adapters: dict[str, pydantic.TypeAdapter[Any]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.config.model_fields

    def default(self, name: str) -> Any:
        """The field's default, or MISSING where it has none that can be told without the other fields."""
        field = self.config.model_fields[name]
        if field.is_required() or (field.default_factory is not None and field.default_factory_takes_validated_data):
            return MISSING
        return field.get_default(call_default_factory=True)

    def required(self) -> list[str]:
        """Names of the fields that have no default."""
        return [name for name, field in self.config.model_fields.items() if field.is_required()]

    def check(self, name: str, value: Any) -> tuple[Any, str | None]:
        """The value as the field holds it and None, or MISSING and what is wrong with it.

        Stricter than pydantic, which reads ``"10"`` as 10 and 1 as true: in a study file that is a mistake.
        """
        try:
            held = self._adapter(name).validate_python(value)
        except pydantic.ValidationError as error:
            return MISSING, "; ".join(dict.fromkeys(explain(item) for item in error.errors(include_url=False)))
        except (RecursionError, OverflowError, ValueError, TypeError) as error:
            return MISSING, f"{shown(value)} is refused: {type(error).__name__}"
        if isinstance(value, str | bool | int | float) and isinstance(held, bool | int | float):
            was, is_now = _kind(value), _kind(held)
            if was != is_now:
                return MISSING, f"{shown(value)} is {was}; expected {is_now}"
        return held, None

    def report(self, name: str, value: Any, mistakes: Mistakes, *path: str | int) -> bool:
        """Adds what is wrong with a value, which may be a table, below ``path``; whether it fits."""
        before = len(mistakes)
        try:
            self._adapter(name).validate_python(value)
        except pydantic.ValidationError as error:
            mistakes.add_errors(error, value, *path)
            return False
        if (wrong := self.check(name, value)[1]) is not None:
            mistakes.add(toml_path(*path), wrong)
        return len(mistakes) == before

    def _adapter(self, name: str) -> pydantic.TypeAdapter[Any]:
        if name not in self._adapters:
            field = self.config.model_fields[name]
            annotation: Any = field.rebuild_annotation()
            if field.discriminator is not None:
                annotation = Annotated[annotation, pydantic.Field(discriminator=field.discriminator)]
            self._adapters[name] = pydantic.TypeAdapter(annotation)
        return self._adapters[name]

    def literals(self, name: str) -> tuple[Any, ...] | None:
        """The values of a field that takes only listed ones, or None."""
        return _literals(self.config.model_fields[name].annotation)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "a number"


def _literals(annotation: Any) -> tuple[Any, ...] | None:
    if get_origin(annotation) is Annotated:
        return _literals(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_literals(part) for part in get_args(annotation) if part is not type(None)]
        return None if any(part is None for part in parts) else tuple(value for part in parts for value in part or ())
    return get_args(annotation) if get_origin(annotation) is Literal else None
