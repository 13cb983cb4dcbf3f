"""Comparisons for the pages, computed anew only when a trial has ended, begun or been added.

A poll costs one short query. Where computing takes long (many trials), a busy experiment is recomputed less often, and
readers get the last numbers in the meantime.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpo.compare.comparison import Comparison, compare_studies
from hpo.compare.load import Loader, StudyEntry
from hpo.compare.records import TrialRecord
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.experiment import results, stored

LIST_SECONDS = 0.5  # several readers' polls within this share one query
PAUSE_FACTOR = 3.0  # of the time that a comparison takes, before the next one of the same experiment


@dataclass(frozen=True)
class ExperimentRow:
    """One line of the list of experiments; ``finished``, ``running`` and ``failed`` count lineages."""

    name: str
    samplers: tuple[str, ...]
    repeats: int
    state: str
    finished: int
    running: int
    failed: int
    budget: float | None
    best: dict[str, float]
    metric: str
    study_ids: tuple[int, ...]

    @property
    def share(self) -> float:
        """Of the budget, 0 to 1."""
        if not self.budget:
            return 1.0 if self.state == "finished" else 0.0
        return min(1.0, self.finished / self.budget)


@dataclass(frozen=True)
class Current:
    """A comparison and the token of the numbers that it was made from; ``failed``: study and trial of each lineage
    that failed, with the reason."""

    token: str
    comparison: Comparison
    entries: tuple[StudyEntry, ...]
    failed: tuple[tuple[str, TrialRecord], ...] = ()


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    current: Current | None = None
    took: float = 0.0
    made: float = 0.0


class Live:
    """What the pages read; safe to use from the server's threads."""

    def __init__(self, storage: Storage) -> None:
        self.loader = Loader(storage)
        self._slots: dict[str, _Slot] = {}
        self._lock = threading.Lock()
        self._listed: tuple[float, dict[str, list[StudyEntry]]] | None = None

    def entries(self) -> dict[str, list[StudyEntry]]:
        with self._lock:
            if self._listed is None or time.monotonic() - self._listed[0] > LIST_SECONDS:
                self._listed = None  # a query that fails must not leave old numbers that look new
                self._listed = time.monotonic(), self.loader.entries()
            return self._listed[1]

    def experiments(self) -> tuple[str, list[ExperimentRow]]:
        """The token of the list, and its lines, the newest first.

        Raises:
            StorageError: where the database does not answer.
        """
        entries = self.entries()
        token = _token([entry for group in entries.values() for entry in group])
        return token, [row(name, group) for name, group in reversed(entries.items())]

    def comparison(self, name: str) -> Current:
        """The comparison of an experiment as it stands, or as it stood a moment ago.

        Raises:
            ExperimentError: for an unknown experiment, with the near miss, or one that cannot be compared.
            StorageError: where the database does not answer.
        """
        known = self.entries()
        if name not in known:
            raise stored.unknown_experiment(name, known)
        entries, token = known[name], _token(known[name])
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
        with slot.lock:
            now = time.monotonic()
            fresh = slot.current is not None and slot.current.token == token
            if slot.current is None or (not fresh and now - slot.made >= PAUSE_FACTOR * slot.took):
                records = self.loader.studies(entries)
                failed = tuple(
                    (record.name, trial)
                    for record in records
                    for trial in record.last_attempts()
                    if trial.state == "failed"
                )
                slot.current = Current(token, compare_studies(records), tuple(entries), failed)
                slot.made = time.monotonic()
                slot.took = slot.made - now
            return slot.current


def row(name: str, entries: Sequence[StudyEntry]) -> ExperimentRow:
    """Adds up the studies of one experiment."""
    counts: Counter[str] = Counter()
    outcomes: dict[str, list[results.Outcome]] = {}
    for entry in entries:
        counts.update(entry.counts.states)
        outcomes.setdefault(entry.sampler, []).extend(entry.outcomes)
    best = {
        sampler: results.ranked(found, entries[0].maximize)[0].outcome.value
        for sampler, found in outcomes.items()
        if found
    }
    budgets = [entry.budget.get("trials") for entry in entries]
    study_file = entries[0].attrs.get(attributes.STUDY_FILE) or {}
    return ExperimentRow(
        name=name,
        samplers=tuple(outcomes),
        repeats=len({entry.attrs.get(attributes.REPEAT) for entry in entries}),
        state=_state(entries, counts),
        finished=counts["complete"] + counts["pruned"],
        running=counts["running"],
        failed=counts["failed"],
        budget=sum(b for b in budgets if b is not None) if all(b is not None for b in budgets) else None,
        best=best,
        metric=str(study_file.get("metric", "value")),
        study_ids=tuple(entry.study_id for entry in entries),
    )


def _state(entries: Sequence[StudyEntry], counts: Counter[str]) -> str:
    if all(entry.finished for entry in entries):
        return "finished"
    if counts["running"]:
        return "running"
    return "stopped" if counts.total() else "not started"


def _token(entries: Sequence[StudyEntry]) -> str:
    return hashlib.sha256(repr([entry.token for entry in entries]).encode()).hexdigest()[:16]
