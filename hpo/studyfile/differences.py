"""What differs between two study files, given as the JSON that the database keeps."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

NOT_COMPARED = ("provenance", "starts")
"""Where a file is from, and what a launch looked up for the file's key ``like``, which is compared itself."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """``path: before -> after`` for each value that differs; provenance does not count."""
    theirs, ours = (
        {path: value for leaves in _by_key(data).values() for path, value in leaves.items()} for data in (before, after)
    )
    lines = [
        f"{path}: {theirs.get(path, 'not given')} -> {ours.get(path, 'not given')}"
        for path in dict.fromkeys([*theirs, *ours])
        if theirs.get(path) != ours.get(path)
    ]
    old_order, new_order = list(before["space"]), list(after["space"])
    if old_order != new_order and sorted(old_order) == sorted(new_order):
        lines.append(f"order of [space]: {', '.join(old_order)} -> {', '.join(new_order)}")
    return lines


def keys_that_differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """The keys of the study file whose values differ; nested tables and dotted names are the same."""
    theirs, ours = _by_key(before), _by_key(after)
    return {key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key)}


def _by_key(data: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Key -> the leaves of its tables by their paths, as text."""
    samplers = {entry["label"]: entry for entry in data["samplers"]}
    named = {**data, "samplers": samplers}
    return {key: dict(_leaves(value, key)) for key, value in named.items() if key not in NOT_COMPARED}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, json.dumps(value, ensure_ascii=False)
