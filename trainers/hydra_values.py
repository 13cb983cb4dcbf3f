"""How a value is spelled in an override of Hydra's, ``name=value``, so that Hydra reads the same value.

The grammar is that of https://hydra.cc/docs/advanced/override_grammar/basic/: a text that is no plain word stands in
quotes, or it would become a number, a list, a sweep or an error.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_/.+*%@?|-]*")
"""Texts that Hydra takes as they are, also as the name of an option of a config group."""
WORDS = ("null", "true", "false", "inf", "nan")
"""Plain words that are no texts to Hydra, in any mix of capitals."""


def hydra_value(value: Any) -> str:
    """The value as Hydra's grammar has it: numbers and words bare, text quoted if it must be, lists, dictionaries."""
    if isinstance(value, str):
        return value if PLAIN.fullmatch(value) and value.lower() not in WORDS else _quoted(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(str(key))}:{hydra_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra_value, value)) + "]"
    return json.dumps(value)


def _quoted(text: str) -> str:
    # Text that looks like an interpolation is one to OmegaConf, in quotes too, unless a backslash stands before it.
    literal = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", text)
    # Of backslashes only those right before a quote have a meaning; the closing quote is one.
    escaped = re.sub(r"(\\*)'", lambda match: 2 * match[1] + r"\'", literal)
    return "'" + re.sub(r"(\\+)\Z", lambda match: 2 * match[1], escaped) + "'"


def _key(text: str) -> str:
    """A key of a dictionary, which cannot be quoted."""
    return re.sub(r"[\\()\[\]{}:=, \t]", lambda match: "\\" + match[0], text)
