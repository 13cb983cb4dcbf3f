"""What a study file may hold as a name and as a value: names of experiments and parameters, JSON-compatible values."""

import datetime
import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from hpo.studyfile.validation import Mistakes, shown, toml_path

MOST_NAME_BYTES = 200
"""Names become parts of file names, of which most file systems allow 255 bytes."""

MOST_PARAMETER_NAME = 200
DEEPEST = 40  # tables within tables


def name_mistake(name: str) -> str | None:
    """Why an experiment or a sampler's studies cannot be called so, or None.

    A name stands in commands, paths, addresses of pages and names of files, so it must be harmless in all of them.
    """
    try:
        num_bytes = len(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return f"{shown(name)} is refused; expected text that UTF-8 can hold"
    if not name.strip(" .") or num_bytes > MOST_NAME_BYTES:
        return (
            f"{shown(name)} is refused; expected 1 to {MOST_NAME_BYTES} characters (those beyond ASCII count 2 to 4), "
            "not only spaces and dots"
        )
    if name != name.strip():
        return f"{shown(name)} is refused; expected no space at either end"
    if name.startswith("-"):
        mend = name.lstrip("- ")
        hint = f", for instance {mend!r}" if mend else ""
        return f"{shown(name)} begins with a dash, as an option of a command does; expected another first letter{hint}"
    wrong = next((c for c in name if c not in "-_. " and unicodedata.category(c)[0] not in "LMN"), None)
    if wrong is None:
        return None
    return f"{shown(wrong)} in {shown(name)} is refused; expected letters, digits, spaces and - _ ."


def parameter_name_mistake(name: str) -> str | None:
    """Why a parameter cannot be called so, or None."""
    if not name.strip() or len(name) > MOST_PARAMETER_NAME:
        return f"expected a name of 1 to {MOST_PARAMETER_NAME} characters"
    wrong = next((c for c in name if unicodedata.category(c)[0] == "C"), None)
    return None if wrong is None else f"{shown(wrong)} in the name is refused; expected no control characters"


def json_compatible(value: Any, path: tuple[str | int, ...], mistakes: Mistakes, *, finite: bool = False) -> Any:
    """The value with dates as text. What JSON cannot hold is left out and becomes a mistake.

    Numbers that are not finite stay unless ``finite``: fields of a configuration may hold them.
    """
    if isinstance(value, Mapping):
        held = {}
        for key, item in value.items():
            if not isinstance(key, str):
                mistakes.add(toml_path(*path), f"the key {shown(key)} is refused; expected text")
            elif (wrong := why_not_json(item, len(path), finite)) is not None:
                mistakes.add(toml_path(*path, key), wrong)
            else:
                held[key] = json_compatible(item, (*path, key), mistakes, finite=finite)
        return held
    if isinstance(value, list | tuple):
        items = []
        for index, item in enumerate(value):
            if (wrong := why_not_json(item, len(path), finite)) is not None:
                mistakes.add(toml_path(*path, index), wrong)
            else:
                items.append(json_compatible(item, (*path, index), mistakes, finite=finite))
        return items
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value


def why_not_json(value: Any, depth: int, finite: bool = False) -> str | None:
    """Why a value cannot be stored, or None."""
    if depth > DEEPEST:
        return "is nested too deeply"
    if isinstance(value, int):
        within = abs(value) < 2**63
        return None if within else f"{shown(value)} is too large; expected a number of at most 64 bits"
    if isinstance(value, float):
        return f"{shown(value)} is refused; expected a finite number" if finite and not math.isfinite(value) else None
    if value is None or isinstance(value, str | Mapping | list | tuple | datetime.date | datetime.time):
        return None
    return f"{type(value).__name__} is nothing that a study file can hold"
