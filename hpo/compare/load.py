"""Reads experiments from the database into records.

:class:`Loader` keeps what it has read: a finished trial never changes, so a study whose numbers of trials by state are
what they were is not read again. One query for all studies says which those are; the dashboard runs it at every poll.
What counts, what is finished and which result is the best is decided in :mod:`hpo.experiment`.
"""

import datetime
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import FrozenTrial

from hpo.compare.ended import EndedReader, EndedTrials
from hpo.compare.records import StudyRecord, TrialRecord
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.database.study_budget import read_budgets
from hpo.errors import StorageError
from hpo.experiment import stored
from hpo.experiment.results import numbers
from hpo.experiment.status import STATES, Counts, count_trials

Token = tuple[Any, ...]


@dataclass(frozen=True)
class StudyEntry:
    """A study of an experiment, as the list of studies has it.

    Attributes:
        counts: its lineages by state, and the trials that count for nothing.
        budget: ``trials``, ``epochs`` and ``seconds``, those that there are.
        finished: whether its budget is spent and nothing runs or waits.
        epochs: epochs of its ended trials.
        seconds_left: of a budget in time; None if time ends nothing.
        num_workers: workers that train its trials now and have sent a heartbeat lately.
        ended: what its ended trials add up to, and its candidates for the best configuration.
    """

    study_id: int
    name: str
    maximize: bool
    attrs: Mapping[str, Any]
    counts: Counts
    budget: Mapping[str, float]
    epochs_per_trial: int
    finished: bool
    epochs: int
    seconds_left: float | None
    ended: EndedTrials
    num_workers: int = 0
    halt: str | None = None

    @property
    def sampler(self) -> str:
        return str(self.attrs.get(attributes.SAMPLER, ""))

    @property
    def best(self) -> float | None:
        """The value of its best result."""
        return None if self.ended.best is None else self.ended.best.outcome.value

    @property
    def repeat(self) -> int:
        return int(self.attrs.get(attributes.REPEAT, 0))

    @property
    def token(self) -> Token:
        """Changes whenever a record of this study would."""
        again = json.dumps(self.attrs.get(attributes.RETRAINED))
        budget = tuple(self.budget.items())
        return (
            self.study_id,
            self.name,
            self.counts.key(),
            budget,
            self.finished,
            self.num_workers > 0,
            self.halt,
            again,
        )


class Loader:
    """Experiments of one storage, read as little as possible; safe to use from several threads."""

    def __init__(self, storage: Storage) -> None:
        self.storage = optuna.storages.get_storage(storage)
        self._engine = storage.engine
        self._lock = threading.Lock()
        self._records: dict[int, tuple[Token, StudyRecord]] = {}
        self._finished: dict[int, TrialRecord] = {}
        self._ended = EndedReader()

    def entries(self, experiment: str | None = None) -> dict[str, list[StudyEntry]]:
        """All experiments, or the one of that name, with their studies, in the order in which they were made.

        Raises:
            StorageError: if the database does not answer.
        """
        try:
            found = self._entries(experiment)
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise StorageError(f"the database does not answer: {_first_line(error)}") from error
        experiments: dict[str, list[StudyEntry]] = {}
        for entry in found:
            experiments.setdefault(str(entry.attrs[attributes.EXPERIMENT]), []).append(entry)
        return experiments

    def entries_of(self, experiment: str) -> list[StudyEntry]:
        """Raises ExperimentError for an unknown experiment, with the near miss."""
        found = self.entries(experiment)
        if experiment not in found:
            with self._engine.connect() as connection:
                raise stored.unknown_experiment(experiment, stored.names(connection))
        return found[experiment]

    def studies(self, entries: Sequence[StudyEntry]) -> list[StudyRecord]:
        """The records of these studies, from memory if nothing has ended, begun or been added since."""
        with self._lock:
            return [self._study(entry) for entry in entries]

    def load(self, experiment: str) -> list[StudyRecord]:
        """The records of an experiment's studies; errors as :meth:`entries_of` and :meth:`entries`."""
        return self.studies(self.entries_of(experiment))

    def _study(self, entry: StudyEntry) -> StudyRecord:
        kept = self._records.get(entry.study_id)
        if kept is not None and kept[0] == entry.token:
            return kept[1]
        try:
            trials = self.storage.get_all_trials(entry.study_id, deepcopy=False)
            with self._engine.connect() as connection:
                places = _lineages(connection, entry.study_id)
        except KeyError:
            trials, places = [], {}  # deleted since it was listed
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise StorageError(f"the database does not answer: {_first_line(error)}") from error
        study_file = entry.attrs.get(attributes.STUDY_FILE) or {}
        record = StudyRecord(
            experiment=str(entry.attrs[attributes.EXPERIMENT]),
            sampler=entry.sampler,
            repeat=entry.repeat,
            direction="maximize" if entry.maximize else "minimize",
            trials=tuple(self._trial(trial, *places[trial._trial_id]) for trial in trials if trial._trial_id in places),
            budget=entry.budget,
            finished=entry.finished,
            imported=entry.counts.imported,
            infeasible=entry.counts.infeasible,
            knowledge=entry.counts.knowledge,
            metric=str(study_file.get("metric", "value")),
            study_file=study_file,
            study_id=entry.study_id,
            name=entry.name,
            epochs_per_trial=entry.epochs_per_trial,
            retrained=entry.attrs.get(attributes.RETRAINED) or {},
        )
        self._records[entry.study_id] = (entry.token, record)
        return record

    def _trial(self, trial: FrozenTrial, lineage: int, attempt: int) -> TrialRecord:
        kept = self._finished.get(trial._trial_id)
        if kept is None:
            kept = trial_record(trial, lineage, attempt)
            if trial.state.is_finished():
                self._finished[trial._trial_id] = kept
        return kept

    def _entries(self, experiment: str | None) -> list[StudyEntry]:
        with self._engine.connect() as connection:
            rows = [row for row in stored.study_rows(connection, experiment) if attributes.EXPERIMENT in row[2]]
            ids = [study_id for study_id, _, _ in rows]
            counted = count_trials(connection, ids)
            spent = {b.study_id: b for b in read_budgets(connection, ids)}
            parameters = {"study_ids": ids, "seconds": ALIVE_SECONDS}
            alive = {s: int(number) for s, number in connection.execute(sa.text(ALIVE), parameters)}
            directions = {study_id: _maximizes(attrs) for study_id, _, attrs in rows}
            keys = {study_id: counts.key() for study_id, counts in counted.items()}
            ended = self._ended.read(connection, keys, directions)
        entries = []
        for study_id, name, attrs in rows:
            place = spent.get(study_id)
            if place is None:
                continue  # deleted between the two queries
            entries.append(
                StudyEntry(
                    study_id,
                    name,
                    directions[study_id],
                    attrs,
                    counted[study_id],
                    place.units,
                    place.epochs_per_trial,
                    place.finished,
                    place.epochs_spent,
                    place.seconds_left,
                    ended[study_id],
                    alive.get(study_id, 0),
                    place.halt,
                )
            )
        return entries


ALIVE_SECONDS = 30.0  # the grace time of a launch, if none is given
ALIVE = """
SELECT t.study_id, count(DISTINCT h.worker)
FROM trials t JOIN hpo_trials h USING (trial_id) JOIN trial_heartbeats b USING (trial_id)
WHERE t.study_id = ANY(:study_ids) AND t.state = 'RUNNING'
  AND (now() AT TIME ZONE 'UTC') - b.heartbeat < make_interval(secs => :seconds) GROUP BY 1
"""
LINEAGES = "SELECT trial_id, lineage, attempt FROM hpo_trials WHERE study_id = :study_id AND NOT infeasible"


def _maximizes(attrs: Mapping[str, Any]) -> bool:
    return (attrs.get(attributes.STUDY_FILE) or {}).get("direction") == "maximize"


def _lineages(connection: sa.Connection, study_id: int) -> dict[int, tuple[int, int]]:
    """Trial id -> (lineage, attempt) of the trials of ours: a person can copy the attributes of that name."""
    rows = connection.execute(sa.text(LINEAGES), {"study_id": study_id})
    return {trial_id: (lineage, attempt) for trial_id, lineage, attempt in rows}


def trial_record(trial: FrozenTrial, lineage: int, attempt: int) -> TrialRecord:
    """One trial of ours; what our attributes do not hold comes from Optuna's own fields."""
    attrs = trial.user_attrs
    start, end = _timestamp(trial.datetime_start), _timestamp(trial.datetime_complete)
    elapsed = end - start if start is not None and end is not None else 0.0
    value = trial.values[0] if trial.values and trial.state.name in ("COMPLETE", "PRUNED") else None
    second = trial.values[1] if value is not None and len(trial.values) > 1 else None
    trained_on = attrs.get(attributes.TRAINED_ON)
    slots = trained_on.get("slots", 1) if isinstance(trained_on, dict) else 1
    source = trained_on.get("source") if isinstance(trained_on, dict) else None
    return TrialRecord(
        number=trial.number,
        lineage=lineage,
        attempt=attempt,
        state=STATES[trial.state.name],
        value=value if value is not None and math.isfinite(value) else None,
        second=second if second is not None and math.isfinite(second) else None,
        violates=any(violation > 0 for violation in trial.constraints.values()),
        params=trial.params,
        distributions=trial.distributions,
        config=attrs.get(attributes.CONFIG) or {},
        given=attrs.get(attributes.GIVEN) or {},
        epochs=int(_number(attrs.get(attributes.EPOCHS), len(trial.intermediate_values))),
        start_epoch=int(_number(attrs.get(attributes.START_EPOCH), 0)),
        seconds=_number(attrs.get(attributes.SECONDS), elapsed),
        source=source if isinstance(source, str) else None,
        counts_slots=slots > 1 and attributes.WALL_SECONDS not in attrs,
        start=start,
        end=end,
        intermediate=trial.intermediate_values,
        reason=attrs.get(attributes.REASON),
        worker=attrs.get(attributes.WORKER),
        log=attrs.get(attributes.LOG),
        audited=attrs.get(attributes.AUDITED),
        seed=attrs.get(attributes.SEED),
        seed_values=numbers(attrs.get(attributes.SEED_VALUES)),
        start_from=attrs.get(attributes.START) or {},
        trial_id=trial._trial_id,
    )


def _number(value: Any, default: float) -> float:
    """An attribute that should be a number; ``default`` if it is absent, or a person has made something else of it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else default


def _timestamp(moment: datetime.datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
