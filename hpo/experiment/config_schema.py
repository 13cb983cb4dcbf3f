"""A trainer's configuration in words, which an experiment keeps; `config_changes` compares two of them.

Each field is one line of text: its type, bounds and default. Descriptions do not count, nor where a class was imported
from: the same module may be named by its name on one machine and by its path on another.
"""

import dataclasses
import enum
import re
import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

MOST_SHOWN = 6


def fingerprint(config: type[pydantic.BaseModel] | None) -> dict[str, str]:
    """Name -> description of each field, such as ``float, gt=0, le=1, default 0.1``; none without a model."""
    return {} if config is None else {name: _field(field, ()) for name, field in config.model_fields.items()}


def shown_changes(lines: list[str]) -> str:
    """The changes on one line, of many the first."""
    more = len(lines) - MOST_SHOWN
    return "; ".join(lines[:MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _field(field: FieldInfo, within: tuple[type, ...]) -> str:
    if field.is_required():
        default = "required"
    elif field.default_factory is not None:
        default = f"default made by {getattr(field.default_factory, '__qualname__', 'a function')}"
    else:
        default = f"default {_value(field.default)}"
    return ", ".join([_type(field.annotation, within), *_bounds(field.metadata), default])


def _type(annotation: Any, within: tuple[type, ...]) -> str:
    if annotation is None or annotation is types.NoneType:
        return "None"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([_type(arguments[0], within), *_bounds(arguments[1:])])
    if origin is Literal:
        return " | ".join(map(_value, arguments))
    if origin in (Union, types.UnionType):
        return " | ".join(_type(argument, within) for argument in arguments)
    if origin is not None:
        inner = ", ".join("..." if argument is ... else _type(argument, within) for argument in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    if not isinstance(annotation, type):
        return _value(annotation)
    if issubclass(annotation, enum.Enum):
        return f"{annotation.__name__}({', '.join(_value(member.value) for member in annotation)})"
    if issubclass(annotation, pydantic.BaseModel) and annotation not in within:
        fields = annotation.model_fields.items()
        return "{" + "; ".join(f"{name}: {_field(field, (*within, annotation))}" for name, field in fields) + "}"
    return annotation.__name__


def _bounds(metadata: Iterable[Any]) -> list[str]:
    """The constraints on a field: ``gt=0``, ``max_length=3``; of a validator its function's name."""
    found: list[str] = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            found += _bounds(item.metadata)
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            pairs = [(part.name, getattr(item, part.name)) for part in dataclasses.fields(item)]
            functions = [value.__qualname__ for _, value in pairs if isinstance(value, types.FunctionType)]
            found += [f"checked by {name}" for name in functions] or [f"{n}={_value(v)}" for n, v in pairs]
        else:
            found += [f"{name}={_value(value)}" for name, value in sorted(getattr(item, "__dict__", {}).items())]
    return found


def _value(value: Any) -> str:
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(_value, value))) + "}"
    if "__repr__" not in {name for cls in type(value).__mro__[:-1] for name in vars(cls)}:
        return f"a {type(value).__name__}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
