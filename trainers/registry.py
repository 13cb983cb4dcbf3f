"""The table of trainers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import BuildOptions, Direction, Trainer


@dataclass(frozen=True)
class TrainerEntry:
    """One row of the table of trainers.

    Attributes:
        name: what a study file calls it.
        config: the pydantic model of its hyperparameters.
        build: makes the trainer in a worker; imports what it needs (torch) only there.
        description: one line.
        metrics: the metrics that it yields and the direction in which each is better (None: neither, or not known).
            None where the trainer did not say, and then only its first epoch can tell.
        check: called once before an experiment starts, with one full configuration: raises TrainerError for data that
            is absent, altered or does not fit; returns what the export records of the data (its fingerprint).
        max_slots: most trials it can train at once; 1 for a generator.
    """

    name: str
    config: type[pydantic.BaseModel]
    build: Callable[[BuildOptions], Trainer]
    description: str
    metrics: Mapping[str, Direction | None] | None = None
    check: Callable[[Any, Path | None, bool], dict[str, Any]] | None = None
    max_slots: int | None = None


TRAINERS: dict[str, TrainerEntry] = {}


def register(entry: TrainerEntry) -> TrainerEntry:
    """Adds a trainer to the table; a second one with the same name from another place raises TrainerError."""
    known = TRAINERS.get(entry.name)
    if known is not None and known.config.__module__ != entry.config.__module__:
        raise TrainerError(
            f"two trainers are called {entry.name!r}: in {known.config.__module__} and {entry.config.__module__}"
        )
    TRAINERS[entry.name] = entry
    return entry
