"""Reads a call that another tool writes as text, such as ``tag(log, interval(0.001, 0.1))``."""

import ast
import re
from typing import Any


def call(text: Any) -> tuple[str, list[Any]] | None:
    """The name of the call and its arguments, themselves calls or plain values; None if the text is no call."""
    if not isinstance(text, str) or not re.fullmatch(r"\s*[\w.]+\s*\(.*\)\s*", text, re.DOTALL):
        return None
    name, _, rest = text.strip().partition("(")
    return name.strip().rpartition(".")[2], [_value(part) for part in _split(rest[:-1])]


def _split(text: str) -> list[str]:
    """The parts between the commas that stand outside of brackets and quotes."""
    parts, depth, quote, part = [], 0, "", ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        if letter == "," and not depth and not quote:
            parts.append(part.strip())
            part = ""
        else:
            part += letter
    return [*parts, part.strip()] if part.strip() else parts


def _value(text: str) -> Any:
    """A plain value, a call as text, or the text itself, as Hydra's words without quotes."""
    text = re.sub(r"^\w+\s*=\s*", "", text) if call(text) is None else text
    words = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
