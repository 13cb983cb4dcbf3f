"""What a study file may hold as a name and as a value that is stored as it is."""

import datetime
import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from hpo.studyfile.validation import Mistakes, shown, toml_path

LONGEST_NAME = 200
DEEPEST = 40  # tables within tables


def name_mistake(name: str) -> str | None:
    """Why an experiment or a sampler's studies cannot be called so, or None."""
    if not name.strip(" .") or len(name) > LONGEST_NAME:
        return f"{shown(name)} is refused; expected 1 to {LONGEST_NAME} characters, not only spaces and dots"
    if name != name.strip():
        return f"{shown(name)} is refused; expected no space at either end"
    wrong = next((c for c in name if c not in "-_. " and unicodedata.category(c)[0] not in "LMN"), None)
    if wrong is None:
        return None
    return f"{shown(wrong)} in {shown(name)} is refused; expected letters, digits, spaces and - _ ."


def plain(value: Any, path: tuple[str | int, ...], mistakes: Mistakes) -> Any:
    """The value as JSON can hold it: dates become text. What cannot be held is left out, and a mistake."""
    if isinstance(value, Mapping):
        held = {}
        for key, item in value.items():
            if not isinstance(key, str):
                mistakes.add(toml_path(*path), f"the key {shown(key)} is refused; expected text")
            elif (wrong := _refusal(item, len(path))) is not None:
                mistakes.add(toml_path(*path, key), wrong)
            else:
                held[key] = plain(item, (*path, key), mistakes)
        return held
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if (wrong := _refusal(item, len(path))) is not None:
                mistakes.add(toml_path(*path, index), wrong)
        return [
            plain(item, (*path, index), mistakes)
            for index, item in enumerate(value)
            if _refusal(item, len(path)) is None
        ]
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value


def _refusal(value: Any, depth: int) -> str | None:
    """Why a value cannot be held, or None."""
    if depth > DEEPEST:
        return "is nested too deeply"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{shown(value)} is refused; expected a finite number"
    if isinstance(value, int):
        within = abs(value) < 2**63
        return None if within else f"{shown(value)} is too large; expected a number of at most 64 bits"
    if value is None or isinstance(value, str | Mapping | list | tuple | datetime.date | datetime.time):
        return None
    return f"{type(value).__name__} is nothing that a study file can hold"
