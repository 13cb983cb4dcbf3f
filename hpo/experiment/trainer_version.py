"""Which version of a trainer's code trained what: a hash of its source file, and the commit of its repository.

A configuration says what a trial was given, not what the code did with it. So a launch records the version of the
trainer's source, each trial carries the hash of what trained it, and an experiment whose trials come from several
versions says so.
"""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hpo.database import attributes
from hpo.trainers.registry import TRAINERS

PACKAGE = Path(__file__).resolve().parents[1]
SHOWN_DIGITS = 8


@dataclass(frozen=True)
class TrainerVersion:
    """The version of a trainer's code.

    Attributes:
        source: ``sha256:...`` of its source files; of a trainer of the package its version, ``hpo-service 0.2.0``.
        files: names of the source files that were hashed.
        commit: the commit of the repository that holds the first of them, if there is one.
        uncommitted: whether that repository has changes beside the commit.
    """

    source: str
    files: tuple[str, ...] = ()
    commit: str | None = None
    uncommitted: bool = False

    def __str__(self) -> str:
        kind, _, digest = self.source.partition(":")
        text = f"{kind}:{digest[:SHOWN_DIGITS]}" if digest else self.source
        if self.commit is not None:
            text += f" (commit {self.commit[:SHOWN_DIGITS]}{' and uncommitted changes' if self.uncommitted else ''})"
        return text


def source_files(trainer: str, study_file: Mapping[str, Any] | None = None) -> list[Path]:
    """The user's files with the trainer's code: its module, for a program the scripts in its command; [] for ours.

    A network or a data set of the user's own for the classifier counts too.
    """
    entry = TRAINERS.get(trainer)
    if entry is None:
        return []
    modules = [entry.source_module, *(addition() for addition in entry.additions)]
    files = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
    paths = [Path(file).resolve() for file in files if file]
    command = (study_file or {}).get("command")
    if isinstance(command, list):
        paths += [Path(word).resolve() for word in command if isinstance(word, str) and Path(word).is_file()]
    return [path for path in dict.fromkeys(paths) if not path.is_relative_to(PACKAGE) and path.is_file()]
