"""The study file's keys for a program: ``command``, ``args``, ``[metrics]``, ``stop_grace_seconds``."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hpo.errors import StudyFileError, near_miss
from hpo.studyfile.validation import Mistakes, shown, toml_path
from hpo.trainers.program_command import RESERVED, default_style, missing_program, placeholders, split_command

TRAINER = "program"
KEYS = ("command", "args", "metrics", "stop_grace_seconds")


def read_program(
    given: Mapping[str, Any],
    trainer: str | None,
    searched: Iterable[str],
    parameters: Iterable[str],
    mistakes: Mistakes,
) -> dict[str, Any] | None:
    """The keys of a program as the study file's model holds them; None for another trainer, or after mistakes.

    ``given`` holds the keys that the file has; ``parameters`` are the names of all its parameters, ``searched`` those
    of its space.
    """
    if trainer != TRAINER:
        for key in KEYS:
            if trainer is not None and key in given:
                mistakes.add(key, f'is for trainer = "{TRAINER}" only, not for {shown(trainer)}')
        return None
    before = len(mistakes)
    command = _command(given.get("command"), mistakes)
    metrics = given.get("metrics", {})
    if isinstance(metrics, Mapping):
        metrics = _metrics(metrics, mistakes)
    args = given.get("args") or default_style(command)
    known = list(parameters)
    is_export = bool(given.get("provenance"))  # of it, parameters that are not active are missing
    for name in placeholders(command):
        if name not in known and name not in RESERVED and not is_export:
            mistakes.add("command", f"the placeholder {{{name}}} names nothing{near_miss(name, [*known, *RESERVED])}")
    for name in known:
        if name in RESERVED and name in placeholders(command):
            mistakes.add(toml_path("space", name), f"the placeholder {{{name}}} has a meaning of its own; rename it")
    unused = [name for name in searched if name not in placeholders(command)]
    if "args" not in given and args == "none" and unused:
        mistakes.add(
            "command",
            f"does not pass {', '.join(unused)}: add a placeholder such as {{{unused[0]}}}, or say how the others are "
            'passed: args = "flags" (--name=value), "hydra" (name=value) or "none" (the file $HPO_PARAMS alone)',
        )
    if len(mistakes) > before:
        return None
    return {"command": command, "args": args, "metrics": metrics}


def check_program(command: Iterable[str], source: str) -> None:
    """Raises StudyFileError if the program is not on this machine, where it is to run."""
    if (program := missing_program(list(command))) is not None:
        what = f"there is no program {program!r} here that can be executed; give its path, or {{python}} for Python"
        raise StudyFileError(source, [f"command: {what}"])


def _command(given: Any, mistakes: Mistakes) -> list[str]:
    if given is None:
        mistakes.add("command", 'missing; expected such as ["python", "train.py"] or "python train.py --lr {lr}"')
        return []
    if not isinstance(given, str) and not (isinstance(given, list) and all(isinstance(part, str) for part in given)):
        mistakes.add("command", f"{shown(given)} is refused; expected text or a list of texts")
        return []
    try:
        command = split_command(given)
    except ValueError as error:
        mistakes.add("command", f"{shown(given)} cannot be split into words: {error}")
        return []
    if not command or not command[0].strip():
        mistakes.add("command", "is empty; expected a program and its arguments")
    if any("\x00" in part for part in command):
        mistakes.add("command", "holds a zero byte, which no argument can")
    return command


def _metrics(given: Mapping[str, Any], mistakes: Mistakes) -> dict[str, str]:
    metrics = {}
    for name, pattern in given.items():
        path = toml_path("metrics", name)
        if not isinstance(pattern, str):
            mistakes.add(path, f"{shown(pattern)} is refused; expected a regular expression")
            continue
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            mistakes.add(path, f"{shown(pattern)} is no regular expression: {error}")
            continue
        if compiled.groups < 1:
            mistakes.add(path, f"{shown(pattern)} has no group; put the number into one: 'acc: ([0-9.]+)'")
        else:
            metrics[name] = pattern
    return metrics
