"""The table of trainers: a row for each name that a study file's ``trainer`` may say."""

import importlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping
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
        config: the pydantic model of its hyperparameters; None if the study file's space and fixed values are all that
            is known of them (a program, an objective). A configuration is then a plain dict.
        build: makes the trainer in a worker; imports what it needs (torch) only there.
        description: one line.
        metrics: the metrics that it yields and the direction in which each is better (None: neither, or not known).
            None if the trainer did not say; then they are known after its first epoch.
        check: called once before an experiment starts, with one full configuration: raises TrainerError for data that
            is absent, altered or does not fit; returns what the export records of the data (its fingerprint).
        max_slots: most trials it can train at once; 1 for a generator.
        max_epochs: how many epochs a configuration will have: the name of the configuration's field that says so, or a
            number. Pruners and the time left use it; a trainer may yield more or fewer times. None for the field
            ``epochs`` if there is one.
        nan_is_no_report: whether a NaN of the study's metric marks an epoch that was not validated.
        module: the module that registered it, for the error about two trainers of one name.
        more_modules: names of further modules with its code, such as networks of a user's own.
        portfolio: returns configurations, or parts of them, that are good on average over data sets, the best first;
            None if there are none.
        fixes_anew: given the names that a study file fixes or searches, values that a new experiment fixes besides if
            the file gives none. The fields' defaults remain what earlier experiments and exported files mean by them.
        suggests: whether it suggests its own parameters as it runs, so that a study has no space: an Optuna objective.
    """

    name: str
    config: type[pydantic.BaseModel] | None
    build: Callable[[BuildOptions], Trainer]
    description: str
    metrics: Mapping[str, Direction | None] | None = None
    check: Callable[[Any, Path | None, bool], dict[str, Any]] | None = None
    max_slots: int | None = None
    max_epochs: str | int | None = None
    nan_is_no_report: bool = False
    module: str = ""
    suggests: bool = False
    portfolio: Callable[[], list[dict[str, Any]]] | None = None
    more_modules: Callable[[], Iterable[str]] | None = None
    fixes_anew: Callable[[Collection[str]], Mapping[str, Any]] | None = None

    @property
    def epochs_field(self) -> str | None:
        """Name of the configuration's field that says how many epochs there will be, or None."""
        if isinstance(self.max_epochs, str):
            return self.max_epochs
        return "epochs" if self.max_epochs is None else None

    @property
    def source_module(self) -> str:
        return self.module or ("" if self.config is None else self.config.__module__)


class TrainerTable(MutableMapping[str, TrainerEntry]):
    """Rows by their names. A trainer of the package is imported when its row is asked for: the classifier's
    configuration takes a tenth of the start of a worker that trains something else."""

    def __init__(self, built_in: Mapping[str, str]) -> None:
        self._rows: dict[str, TrainerEntry | str] = dict(built_in)  # a text: the module that registers the row

    def __getitem__(self, name: str) -> TrainerEntry:
        row = self._rows[name]
        if isinstance(row, str):
            importlib.import_module(row)
            row = self._rows[name]
            assert not isinstance(row, str), f"the module of the trainer {name!r} does not register it"
        return row

    def __setitem__(self, name: str, entry: TrainerEntry) -> None:
        self._rows[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def awaits(self, entry: TrainerEntry) -> bool:
        """Whether the row of this name is one of the package's, and ``entry`` is what its module registers."""
        return self._rows.get(entry.name) == entry.build.__module__


TRAINERS = TrainerTable({"classifier": "hpo.trainers.classifier.entry", "program": "hpo.trainers.program"})


def register(entry: TrainerEntry) -> TrainerEntry:
    """Adds a trainer to the table; a second one with the same name from another place raises TrainerError."""
    registered = None if TRAINERS.awaits(entry) else TRAINERS.get(entry.name)
    if registered is not None and _file(registered.source_module) != _file(entry.source_module):
        raise TrainerError(
            f"two trainers are called {entry.name!r}: in {registered.source_module} and {entry.source_module}"
        )
    TRAINERS[entry.name] = entry
    return entry


def _file(module: str) -> str:
    """The file of a module, or its name: a script and its import under its own name are the same place."""
    return getattr(sys.modules.get(module), "__file__", None) or module
