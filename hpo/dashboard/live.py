"""What the pages read, kept for as long as nothing has ended, begun or been added.

Two depths: the *overview* of an experiment comes from sums of the database within milliseconds; the *records*, every
trial with its curve, are read when a figure is asked for. Where computing takes long (many trials), a busy experiment's
figures are computed less often, and readers get the last ones in the meantime.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import sqlalchemy as sa

from hpo.compare.comparison import Comparison, compare_studies
from hpo.compare.load import Loader, StudyEntry
from hpo.compare.records import StudyRecord
from hpo.dashboard.overview import Overview, overview, state_of
from hpo.dashboard.progress import Progress, progress
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.errors import ExperimentError, StorageError
from hpo.experiment import results

T = TypeVar("T")

SHARED_SECONDS = 0.5  # several readers' polls within this share one query
PAUSE_FACTOR = 3.0  # of the time that figures take, before the next ones of the same experiment


@dataclass(frozen=True)
class ExperimentRow:
    """One line of the list of experiments; ``finished``, ``running`` and ``failed`` count lineages.

    ``began`` and ``ended`` are POSIX timestamps of the first start and the last end; None if there is none.
    """

    name: str
    samplers: tuple[str, ...]
    repeats: int
    state: str
    finished: int
    running: int
    failed: int
    budget: float | None
    best: float | None
    maximize: bool
    metric: str
    began: float | None
    ended: float | None
    study_ids: tuple[int, ...]

    @property
    def share(self) -> float:
        """Of the budget, 0 to 1."""
        if not self.budget:
            return 1.0 if self.state == "finished" else 0.0
        return min(1.0, self.finished / self.budget)

    @property
    def seconds(self) -> float | None:
        """From the first start to the last end, or to now if it runs."""
        if self.began is None:
            return None
        until = time.time() if self.state == "running" or self.ended is None else self.ended
        return max(0.0, until - self.began)


@dataclass(frozen=True)
class Standing:
    """An overview and the token of the numbers that it was made from."""

    token: str
    overview: Overview
    entries: tuple[StudyEntry, ...]


class Current:
    """Every trial, and the token of the numbers that they were read from; their comparison, once it is asked for.

    ``took`` is what reading and comparing have taken in seconds; ``made`` when they were done, on the monotonic clock.
    """

    def __init__(self, token: str, records: tuple[StudyRecord, ...], took: float) -> None:
        self.token, self.records = token, records
        self.took, self.made = took, time.monotonic()
        self._lock = threading.Lock()
        self._comparison: Comparison | None = None

    @property
    def comparison(self) -> Comparison:
        """Raises ExperimentError if the studies cannot be compared."""
        with self._lock:
            if self._comparison is None:
                started = time.monotonic()
                self._comparison = compare_studies(self.records)
                self.made = time.monotonic()
                self.took += self.made - started
            return self._comparison


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    reading: threading.Lock = field(default_factory=threading.Lock)
    read: tuple[float, tuple[StudyEntry, ...]] | None = None
    standing: Standing | None = None
    current: Current | None = None


class Live:
    """What the pages read; safe to use from the server's threads."""

    def __init__(self, storage: Storage) -> None:
        self.loader = Loader(storage)
        self.engine = storage.engine
        self._slots: dict[str, _Slot] = {}
        self._rows: dict[str, tuple[str, ExperimentRow]] = {}
        self._lock = threading.Lock()
        self._list_lock = threading.Lock()
        self._listed: tuple[float, dict[str, list[StudyEntry]]] | None = None

    def experiments(self) -> tuple[str, list[ExperimentRow]]:
        """The token of the list, and its lines, the newest first.

        Raises:
            StorageError: if the database does not answer.
        """
        with self._list_lock:
            if self._listed is None or time.monotonic() - self._listed[0] > SHARED_SECONDS:
                self._listed = None  # a query that fails must not leave old numbers that look new
                self._listed = time.monotonic(), self.loader.entries()
            entries = self._listed[1]
        token = _token([entry for group in entries.values() for entry in group])
        return token, [self._row(name, group) for name, group in reversed(entries.items())]

    def _row(self, name: str, group: Sequence[StudyEntry]) -> ExperimentRow:
        token = _token(group)
        known = self._rows.get(name)
        if known is None or known[0] != token:
            known = self._rows[name] = token, row(name, group)
        return known[1]

    def entries(self, name: str) -> tuple[StudyEntry, ...]:
        """The studies of an experiment as they stand.

        Raises:
            ExperimentError: for an unknown experiment, with the near miss.
            StorageError: if the database does not answer.
        """
        slot = self._slot(name)
        with slot.reading:
            if slot.read is None or time.monotonic() - slot.read[0] > SHARED_SECONDS:
                slot.read = None
                try:
                    slot.read = time.monotonic(), tuple(self.loader.entries_of(name))
                except ExperimentError:
                    with self._lock:
                        self._slots.pop(name, None)  # deleted, or never there
                    raise
            return slot.read[1]

    def standing(self, name: str) -> Standing:
        """The overview of an experiment as it stands; raises as :meth:`entries` and :func:`overview` do."""
        entries = self.entries(name)
        token, slot = _token(entries), self._slot(name)
        known = slot.standing
        if known is None or known.token != token:
            known = slot.standing = Standing(token, self.read(lambda: overview(self.engine, name, entries)), entries)
        return known

    def progress(self, name: str) -> Progress:
        """How fast it goes; raises as :meth:`entries`."""
        entries = self.entries(name)
        return self.read(lambda: progress(self.engine, entries))

    def current(self, name: str) -> Current:
        """The trials as they stand, or as they stood a moment ago.

        Raises:
            ExperimentError: for an unknown experiment, with the near miss.
            StorageError: if the database does not answer.
        """
        entries = self.entries(name)
        token, slot = _token(entries), self._slot(name)
        with slot.lock:
            now, known = time.monotonic(), slot.current
            is_due = known is None or (known.token != token and now - known.made >= PAUSE_FACTOR * known.took)
            if known is None or is_due:
                records = tuple(self.loader.studies(entries))
                known = slot.current = Current(token, records, time.monotonic() - now)
            return known

    def _slot(self, name: str) -> _Slot:
        with self._lock:
            return self._slots.setdefault(name, _Slot())

    @staticmethod
    def read(query: Callable[[], T]) -> T:
        """What a query returns; raises StorageError if the database does not answer."""
        try:
            return query()
        except sa.exc.SQLAlchemyError as error:
            line = str(error.__cause__ or error).strip().splitlines()[0]
            raise StorageError(f"the database does not answer: {line}") from error


def row(name: str, entries: Sequence[StudyEntry]) -> ExperimentRow:
    """Adds up the studies of one experiment."""
    states = {state: sum(entry.counts.states[state] for entry in entries) for state in entries[0].counts.states}
    budgets = [entry.budget.get("trials") for entry in entries]
    study_file = entries[0].attrs.get(attributes.STUDY_FILE) or {}
    maximize = entries[0].maximize
    best = results.best((outcome for entry in entries for outcome in entry.ended.outcomes), maximize)
    return ExperimentRow(
        name=name,
        samplers=tuple(dict.fromkeys(entry.sampler for entry in entries)),
        repeats=len({entry.repeat for entry in entries}),
        state=state_of(entries),
        finished=states["complete"] + states["pruned"],
        running=states["running"],
        failed=states["failed"],
        budget=sum(b for b in budgets if b is not None) if all(b is not None for b in budgets) else None,
        best=None if best is None else best.outcome.value,
        maximize=maximize,
        metric=str(study_file.get("metric", "value")),
        began=min((e.ended.began for e in entries if e.ended.began is not None), default=None),
        ended=max((e.ended.ended for e in entries if e.ended.ended is not None), default=None),
        study_ids=tuple(entry.study_id for entry in entries),
    )


def _token(entries: Sequence[StudyEntry]) -> str:
    return hashlib.sha256(repr([entry.token for entry in entries]).encode()).hexdigest()[:16]
