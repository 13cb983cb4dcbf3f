"""Whether two versions of a trainer's configuration mean the same for the trials of an experiment.

A new field with a default, a wider bound, one more choice or one more type change nothing: older trials are what the
default says. Another default, a field that is gone, another type, and bounds that a value of the experiment leaves are
changes. What is compared are the descriptions of `config_schema`, which experiments of every version hold as text.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MISSING = "not there"
OPENING, CLOSING = "([{", ")]}"
LOWER, UPPER = ("ge", "gt"), ("le", "lt")


@dataclass(frozen=True)
class FieldText:
    """A field's description in parts.

    Attributes:
        types: the alternatives of its type: ``int``, ``None``, ``'sgd'``, ``{nested: int, default 1}``.
        constraints: ``ge`` -> ``1`` and the like; a validator is ``checked by name`` -> ``""``.
        default: its text, or None for a field that must be given.
    """

    types: tuple[str, ...]
    constraints: Mapping[str, str]
    default: str | None


def changes(
    before: Mapping[str, str], after: Mapping[str, str], study_file: Mapping[str, Any] | None = None
) -> list[str]:
    """What matters of the differences, as ``name: before -> after``.

    Args:
        before, after: name -> description, as `config_schema.fingerprint` gives them.
        study_file: the experiment's, as JSON: its values decide whether a narrower bound matters. Without it every
            narrower bound does.
    """
    names = dict.fromkeys([*before, *after])
    changed = [name for name in names if not _means_the_same(before.get(name), after.get(name), name, study_file)]
    if any(name not in after for name in changed):
        # A field that is gone may be one of the new ones under its old name.
        changed = [name for name in names if name in changed or name not in before]
    return [f"{name}: {before.get(name, MISSING)} -> {after.get(name, MISSING)}" for name in changed]


def _means_the_same(before: str | None, after: str | None, path: str, study_file: Mapping[str, Any] | None) -> bool:
    if before == after:
        return True
    if after is None:
        return False
    new = parse(after)
    if before is None:
        return new.default is not None
    old = parse(before)
    # The values of the experiment, and the default, which the rest of its trials have.
    values = None if study_file is None else list(_values(study_file, path))
    return (
        _same_default(old, new)
        and _types_hold(old, new, path, values, study_file)
        and _constraints_hold(old.constraints, new.constraints, values)
    )


def _same_default(old: FieldText, new: FieldText) -> bool:
    if old.default == new.default or old.default is None:
        # A field that had to be given was given in every trial.
        return True
    if new.default is None:
        return False
    # A nested model's default shows its fields: more of them are new fields with defaults.
    first, second = _call(old.default), _call(new.default)
    if first is None or second is None:
        return _number(old.default) is not None and _number(old.default) == _number(new.default)
    return first[0] == second[0] and first[1].items() <= second[1].items()


def _types_hold(
    old: FieldText, new: FieldText, path: str, values: list[Any] | None, study_file: Mapping[str, Any] | None
) -> bool:
    """Whether everything that the old type took, or at least every value of the experiment, fits the new one."""
    for alternative in old.types:
        if alternative in new.types:
            continue
        if alternative.startswith("{"):
            others = (other for other in new.types if other.startswith("{"))
            if any(not _nested_changes(alternative, other, path, study_file) for other in others):
                continue
            return False
        if any(_holds(other, alternative) for other in new.types):
            continue
        if not _is_literal(alternative):
            return False
        if values is None or any(repr(value) == alternative for value in values):
            return False
    return True


def _holds(outer: str, inner: str) -> bool:
    """Whether a container or an enumeration takes what another takes: ``list[int]`` what ``list[int, ge=1]`` does."""
    first, second = re.fullmatch(r"(\w+)\[(.*)\]", outer), re.fullmatch(r"(\w+)\[(.*)\]", inner)
    if first is not None and second is not None and first[1] == second[1]:
        old, new = parse(second[2]), parse(first[2])
        return _types_hold(old, new, "", None, None) and _constraints_hold(old.constraints, new.constraints, None)
    members, others = re.fullmatch(r"(\w+)\((.*)\)", outer), re.fullmatch(r"(\w+)\((.*)\)", inner)
    if members is not None and others is not None and members[1] == others[1]:
        return set(_split(others[2], ", ")) <= set(_split(members[2], ", "))
    return False


def _nested_changes(before: str, after: str, path: str, study_file: Mapping[str, Any] | None) -> list[str]:
    first, second = _nested(before), _nested(after)
    return [
        name
        for name in dict.fromkeys([*first, *second])
        if not _means_the_same(first.get(name), second.get(name), f"{path}.{name}", study_file)
    ]


def _nested(text: str) -> dict[str, str]:
    pairs = (part.partition(": ") for part in _split(text[1:-1], "; "))
    return {name: description for name, _, description in pairs if name}


def _constraints_hold(old: Mapping[str, str], new: Mapping[str, str], values: list[Any] | None) -> bool:
    for name, text in new.items():
        if old.get(name) == text or _is_wider(name, text, old):
            continue
        if values is None or not all(_fits(value, name, text) for value in values):
            return False
    return True


def _is_wider(name: str, text: str, old: Mapping[str, str]) -> bool:
    """Whether the bound ``name=text`` allows everything that the old bounds on that side did."""
    limit = _number(text)
    if limit is None:
        return False
    for side, sign in ((LOWER, 1), (UPPER, -1)):
        if name in side:
            olds = [(_number(old[other]), other) for other in side if other in old]
            return any(
                value is not None
                and (sign * value > sign * limit or (value == limit and not (name in ("gt", "lt") and other != name)))
                for value, other in olds
            )
    if name in ("min_length", "max_length") and name in old:
        before = _number(old[name])
        return before is not None and (limit <= before if name == "min_length" else limit >= before)
    return False


def _fits(value: Any, name: str, text: str) -> bool:
    """Whether a value of the experiment keeps a bound; False if that cannot be told."""
    limit = _number(text)
    if value is None:
        return True
    if limit is None:
        return False
    if isinstance(value, str | list | tuple) and name in ("min_length", "max_length"):
        return len(value) >= limit if name == "min_length" else len(value) <= limit
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    fits = {"ge": value >= limit, "gt": value > limit, "le": value <= limit, "lt": value < limit}
    return fits.get(name, False)


def _values(study_file: Mapping[str, Any], path: str) -> Iterator[Any]:
    """All values at ``path`` that the study file gives or lets the search draw: of a range its ends."""
    for table in (study_file.get("fixed") or {}, *(study_file.get("try_first") or [])):
        yield from _at(table, path)
    searched = (study_file.get("space") or {}).get(path)
    if isinstance(searched, list):
        yield from searched
    elif isinstance(searched, Mapping):
        for key in ("low", "high"):
            if key in searched:
                yield searched[key]
        for key in ("choices", "grid"):
            yield from searched.get(key) or ()


def _at(table: Any, path: str) -> Iterator[Any]:
    if isinstance(table, Mapping):
        if path in table:
            yield table[path]
        head, _, rest = path.partition(".")
        if rest and head in table:
            yield from _at(table[head], rest)


def parse(text: str) -> FieldText:
    """The parts of a description, such as ``float, gt=0, le=1, default 0.1``."""
    parts = list(_split(text, ", "))
    default: str | None = None
    for index, part in enumerate(parts):
        if part.startswith("default ") or part == "required":
            default = None if part == "required" else ", ".join(parts[index:]).removeprefix("default ")
            parts = parts[:index]
            break
    constraints = {}
    for part in parts[1:]:
        name, _, value = part.partition("=")
        constraints[name] = value
    # A validator that only refuses is narrower than none; its function may be the old one under another path.
    return FieldText(tuple(_split(parts[0], " | ")) if parts else (), constraints, default)


def _split(text: str, separator: str) -> Iterator[str]:
    """``text`` cut at the separators that stand outside of brackets and quotes."""
    depth, quote, start, index = 0, "", 0, 0
    while index < len(text):
        character = text[index]
        if quote:
            if character == "\\":
                index += 1
            elif character == quote:
                quote = ""
        elif character in "'\"":
            quote = character
        elif character in OPENING:
            depth += 1
        elif character in CLOSING:
            depth -= 1
        elif depth == 0 and text.startswith(separator, index):
            yield text[start:index]
            start = index = index + len(separator)
            continue
        index += 1
    yield text[start:]


def _call(text: str) -> tuple[str, dict[str, str]] | None:
    """``Name(a=1, b='x')`` as its name and arguments, or None."""
    found = re.fullmatch(r"(\w+)\((.*)\)", text, re.DOTALL)
    if found is None:
        return None
    pairs = [part.partition("=") for part in _split(found[2], ", ") if part]
    return found[1], {name: value for name, _, value in pairs}


def _number(text: str) -> float | None:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return text != "None"
