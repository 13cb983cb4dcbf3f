"""Gathers the mistakes of a study file, each a line ``TOML path: what is wrong; what was expected``.

pydantic's errors are put into the same form: a path in the words of TOML (the tags of discriminated unions, which
stand in pydantic's paths but not in the file, are dropped) and a near miss for every misspelt name.
"""

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pydantic

from hpo.errors import near_miss
from hpo.search.space import Categorical, Int, Parameter

Model = TypeVar("Model", bound=pydantic.BaseModel)
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
LONGEST_VALUE = 80  # characters of a wrong value that a message shows


def toml_path(*parts: str | int) -> str:
    """``space.lr.low`` or ``try_first[0].lr``, as the file would spell it."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            key = part if BARE_KEY.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            path += f".{key}" if path else key
    return path


def shown(value: Any, depth: int = 0) -> str:
    """A value as a message shows it: on one line, in TOML's words, cut where it is long or deep."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int) and abs(value) >= 10**LONGEST_VALUE:
        text = f"a number of more than {LONGEST_VALUE} digits"  # Python refuses to print the longest of them
    elif isinstance(value, Mapping | list | tuple) and depth > 3:
        text = "…"
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key} = {shown(item, depth + 1)}" for key, item in list(value.items())[:20]) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(shown(item, depth + 1) for item in value[:40]) + "]"
    elif isinstance(value, datetime.date | datetime.time):
        text = value.isoformat()
    else:
        text = "none" if value is None else repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def listed(values: Mapping[str, Any]) -> str:
    """``lr = 0.1, scheduler = 'step'``."""
    return ", ".join(f"{name} = {shown(value)}" for name, value in values.items())


class Mistakes:
    """The mistakes found so far, in the order in which they were found, each once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, path: str, what: str) -> None:
        line = " ".join(f"{path}: {what}".split() if path else what.split())
        if line not in self.lines:
            self.lines.append(line)

    def unknown(self, path: str, kind: str, name: Any, known: Iterable[str], hint: str = "") -> None:
        """A name that is in none of our tables."""
        names = [str(other) for other in known]
        self.add(path, f"unknown {kind} {shown(name)}{near_or_all(str(name), names)}{hint}")

    def validate(self, model: type[Model], data: Any, *path: str | int, known: Sequence[str] = ()) -> Model | None:
        """The model of ``data``, or None after its errors have been added below ``path``."""
        try:
            return model.model_validate(data)
        except pydantic.ValidationError as error:
            self.add_errors(error, data, *path, known=known or list(model.model_fields))
        return None

    def add_errors(
        self, error: pydantic.ValidationError, data: Any, *path: str | int, known: Sequence[str] = ()
    ) -> None:
        """Adds each of pydantic's errors about ``data``, which stands at ``path``."""
        for item in error.errors(include_url=False):
            self.add_error(item, data, *path, known=known)

    def add_error(self, item: Any, data: Any, *path: str | int, known: Sequence[str] = ()) -> None:
        """Adds one of pydantic's errors about ``data``, which stands at ``path``."""
        self.add(toml_path(*path, *location(item, data)), explain(item, known))


def extent(parameter: Parameter) -> str:
    """The values of a parameter in words: ``a whole number from 1 to 8 in steps of 2``."""
    if isinstance(parameter, Categorical):
        return f"one of {shown(parameter.choices)}"
    steps = f" in steps of {parameter.step}" if parameter.step not in (None, 1) else ""
    kind = "a whole number" if isinstance(parameter, Int) else "a number"
    return f"{kind} from {shown(parameter.low)} to {shown(parameter.high)}{steps}"


def near_or_all(name: str, known: Sequence[str]) -> str:
    """The near miss, else all that is known."""
    return near_miss(name, known) or (f"; known: {', '.join(known)}" if known else "; there is none")


def location(item: Any, data: Any) -> list[str | int]:
    """The part of a pydantic error's path that the data has; a missing key ends it."""
    parts: list[str | int] = []
    loc = item["loc"]
    for index, part in enumerate(loc):
        in_table = isinstance(data, Mapping) and part in data
        if in_table or (isinstance(data, list | tuple) and isinstance(part, int) and 0 <= part < len(data)):
            parts.append(part)
            data = data[part]
        elif item["type"] == "missing" and index == len(loc) - 1:
            parts.append(part)
    return parts


def explain(item: Any, known: Sequence[str] = ()) -> str:
    """What is wrong and what was expected, from one of pydantic's errors."""
    kind, context, value = item["type"], item.get("ctx", {}), item.get("input")
    if kind == "missing":
        return "missing; it must be given"
    if kind == "extra_forbidden":
        return f"unknown name{near_or_all(str(item['loc'][-1]), known)}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context.get("expected", ""))
        return f"{shown(value)} is not known{near_miss(str(value), choices)}; expected {context.get('expected')}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error") or item["msg"])
    message = item["msg"]
    for prefix in ("Input should be ", "Value should be "):
        message = message.removeprefix(prefix)
    return f"{shown(value)} is refused; expected {message}"
