"""The command line of a program: placeholders, flags, and how a value is spelled."""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from hpo.trainers.hydra_values import hydra_value
from hpo.trainers.protocol import Run

ArgumentStyle = Literal["flags", "hydra", "none"]
RESERVED = ("trial", "study", "seed", "folder", "checkpoint_dir", "num_gpus", "python")
"""Placeholders that are no parameters."""

PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}\s]+)\}")


def split_command(command: str | Sequence[str]) -> list[str]:
    """The command as a list; one string is split as a shell splits words, but no shell runs it. Raises ValueError."""
    return shlex.split(command) if isinstance(command, str) else list(command)


def missing_program(command: Sequence[str]) -> str | None:
    """The command's program if it cannot be executed on this machine; None also if a placeholder names it."""
    program = command[0]
    return None if placeholders([program]) or shutil.which(program) else program


def placeholders(command: Iterable[str]) -> list[str]:
    """The names in braces, each once; ``{{`` and ``}}`` are braces."""
    names = [match[1] for part in command for match in PLACEHOLDER.finditer(part) if match[1] is not None]
    return list(dict.fromkeys(names))


def default_style(command: Iterable[str]) -> ArgumentStyle:
    """Flags for all parameters, unless the command places parameters itself."""
    return "none" if set(placeholders(command)) - set(RESERVED) else "flags"


def command_line(command: Sequence[str], style: ArgumentStyle, values: Mapping[str, Any], run: Run) -> list[str]:
    """The command with its placeholders filled and, by ``style``, the parameters that it does not place itself.

    A parameter that is not active in this trial has no value: the argument with its placeholder is left out, and so is
    an option such as ``--momentum`` right before an argument that is the placeholder alone.
    """
    known = {**_reserved(run), **{name: spelled(value) for name, value in values.items()}}
    filled: list[str] = []
    for part in command:
        names = placeholders([part])
        if any(name not in known for name in names):
            if part == f"{{{names[0]}}}" and filled and filled[-1].startswith("-") and "=" not in filled[-1]:
                filled.pop()
            continue
        filled.append(PLACEHOLDER.sub(lambda match: known[match[1]] if match[1] else match[0][0], part))
    placed = set(placeholders(command))
    unplaced = {name: value for name, value in values.items() if name not in placed}
    if style == "flags":
        filled += [f"--{name}={spelled(value)}" for name, value in unplaced.items()]
    elif style == "hydra":
        filled += [f"{name}={hydra_value(value)}" for name, value in unplaced.items()]
    return filled


def spelled(value: Any) -> str:
    """A value as an argument: text as it is, everything else as JSON has it (``true``, ``0.001``, ``null``)."""
    return value if isinstance(value, str) else json.dumps(value)


def _reserved(run: Run) -> dict[str, str]:
    return {
        "trial": str(run.trial),
        "study": run.study,
        "seed": str(run.seed),
        "folder": str(run.trial_folder or run.folder),
        "checkpoint_dir": str((run.trial_folder or run.folder) / "checkpoints"),
        "num_gpus": str(len(run.devices)),
        "python": sys.executable,
    }
