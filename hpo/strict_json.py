"""JSON as the standard has it: a number that is not finite is null, so that every reader can read it."""

import json
import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """The same with None in place of each number that is NaN or infinite, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumps(content: Any, *, indent: int | None = None) -> str:
    """``content`` as text; raises TypeError for what JSON cannot hold."""
    return json.dumps(finite(content), indent=indent, allow_nan=False)
