"""Reads experiments from an Optuna storage into records.

:class:`Loader` keeps what it has read: a finished trial never changes, so a study whose numbers of trials by state are
what they were is not read again. One query for all studies tells which those are; the dashboard asks it at every poll.
"""

import datetime
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial

from hpo.compare.records import StudyRecord, TrialRecord, TrialState
from hpo.database import attributes
from hpo.errors import ExperimentError, StorageError, near_miss

STATES: dict[str, TrialState] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}
Token = tuple[Any, ...]


@dataclass(frozen=True)
class StudyEntry:
    """A study of an experiment as the list of studies tells of it; ``counts``: trials by Optuna's state."""

    study_id: int
    name: str
    maximize: bool
    attrs: Mapping[str, Any]
    counts: Mapping[str, int]
    budget: Mapping[str, int]
    epochs_per_trial: int
    best: float | None

    @property
    def token(self) -> Token:
        """Changes whenever a record of this study would."""
        again = json.dumps(self.attrs.get(attributes.RETRAINED))
        return (self.study_id, self.name, tuple(sorted(self.counts.items())), tuple(self.budget.items()), again)


STUDIES = """
SELECT s.study_id, s.study_name, d.direction, a.key, a.value_json
FROM studies s JOIN study_directions d ON d.study_id = s.study_id AND d.objective = 0
JOIN study_user_attributes a ON a.study_id = s.study_id
WHERE a.key LIKE 'hpo:%' ORDER BY s.study_id
"""
COUNTS = """
SELECT t.study_id, t.state, count(*), min(v.value), max(v.value)
FROM trials t LEFT JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0 AND t.state = 'COMPLETE'
GROUP BY t.study_id, t.state
"""
BUDGETS = "SELECT study_id, num_lineages, num_epochs, epochs_per_trial FROM hpo_studies"


def cached(storage: BaseStorage) -> BaseStorage:
    """The storage with Optuna's cache of finished trials before it."""
    return optuna.storages.get_storage(storage)


class Loader:
    """Experiments of one storage, read as little as possible; safe to use from several threads."""

    def __init__(self, storage: BaseStorage) -> None:
        self.storage = cached(storage)
        self._engine = self.storage._backend.engine if isinstance(self.storage, _CachedStorage) else None
        self._lock = threading.Lock()
        self._records: dict[int, tuple[Token, StudyRecord]] = {}
        self._finished: dict[int, TrialRecord] = {}
        self._has_budgets: bool | None = None

    def entries(self) -> dict[str, list[StudyEntry]]:
        """All experiments with their studies, in the order in which they were made.

        Raises:
            StorageError: where the database does not answer.
        """
        try:
            found = self._entries_by_query() if self._engine is not None else self._entries_by_optuna()
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise StorageError(f"the database does not answer: {_first_line(error)}") from error
        experiments: dict[str, list[StudyEntry]] = {}
        for entry in found:
            experiments.setdefault(str(entry.attrs[attributes.EXPERIMENT]), []).append(entry)
        return experiments

    def entries_of(self, experiment: str) -> list[StudyEntry]:
        """Raises ExperimentError for an unknown experiment, with the near miss."""
        experiments = self.entries()
        if experiment not in experiments:
            known = list(experiments)
            hint = near_miss(experiment, known) or (
                f"; there are {', '.join(known[:8])}" if known else "; there is none yet"
            )
            raise ExperimentError(f"there is no experiment {experiment!r} in this storage{hint}")
        return experiments[experiment]

    def studies(self, entries: Sequence[StudyEntry]) -> list[StudyRecord]:
        """The records of these studies, from memory where nothing has ended, begun or been added since."""
        with self._lock:
            return [self._study(entry) for entry in entries]

    def load(self, experiment: str) -> list[StudyRecord]:
        """The records of an experiment's studies; errors as :meth:`entries_of` and :meth:`entries`."""
        return self.studies(self.entries_of(experiment))

    def _study(self, entry: StudyEntry) -> StudyRecord:
        known = self._records.get(entry.study_id)
        if known is not None and known[0] == entry.token:
            return known[1]
        try:
            trials = self.storage.get_all_trials(entry.study_id, deepcopy=False)
        except KeyError:
            trials = []  # deleted since it was listed
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise StorageError(f"the database does not answer: {_first_line(error)}") from error
        study_file = entry.attrs.get(attributes.STUDY_FILE) or {}
        record = StudyRecord(
            experiment=str(entry.attrs[attributes.EXPERIMENT]),
            sampler=str(entry.attrs.get(attributes.SAMPLER, "")),
            repeat=int(entry.attrs.get(attributes.REPEAT, 0)),
            direction="maximize" if entry.maximize else "minimize",
            trials=tuple(self._trial(trial) for trial in trials),
            budget=entry.budget,
            metric=str(study_file.get("metric", "value")),
            study_file=study_file,
            study_id=entry.study_id,
            name=entry.name,
            epochs_per_trial=entry.epochs_per_trial,
            retrained=entry.attrs.get(attributes.RETRAINED) or {},
        )
        self._records[entry.study_id] = (entry.token, record)
        return record

    def _trial(self, trial: FrozenTrial) -> TrialRecord:
        known = self._finished.get(trial._trial_id)
        if known is None:
            known = trial_record(trial)
            if trial.state.is_finished():
                self._finished[trial._trial_id] = known
        return known

    def _entries_by_query(self) -> list[StudyEntry]:
        assert self._engine is not None
        with self._engine.connect() as connection:
            if self._has_budgets is None:
                self._has_budgets = sa.inspect(connection).has_table("hpo_studies")
            rows = connection.execute(sa.text(STUDIES)).all()
            counted = connection.execute(sa.text(COUNTS)).all()
            budgets = connection.execute(sa.text(BUDGETS)).all() if self._has_budgets else []
        counts: dict[int, dict[str, int]] = {}
        extremes: dict[int, tuple[float | None, float | None]] = {}
        for study_id, state, count, low, high in counted:
            counts.setdefault(study_id, {})[str(state)] = count
            if str(state) == "COMPLETE":
                extremes[study_id] = low, high
        limits = {study_id: (_budget(lineages, epochs), each) for study_id, lineages, epochs, each in budgets}
        named: dict[int, tuple[str, bool]] = {}
        attrs: dict[int, dict[str, Any]] = {}
        for study_id, name, direction, key, value_json in rows:
            named[study_id] = name, str(direction) == "MAXIMIZE"
            attrs.setdefault(study_id, {})[key] = json.loads(value_json)
        entries = []
        for study_id, (name, maximize) in named.items():
            if attributes.EXPERIMENT not in attrs[study_id]:
                continue
            stored = (attrs[study_id].get(attributes.STUDY_FILE) or {}).get("budget") or {}
            budget, each = limits.get(study_id, (_budget(stored.get("trials"), stored.get("epochs")), 1))
            best = extremes.get(study_id, (None, None))[maximize]
            entries.append(
                StudyEntry(study_id, name, maximize, attrs[study_id], counts.get(study_id, {}), budget, each, best)
            )
        return entries

    def _entries_by_optuna(self) -> list[StudyEntry]:
        entries = []
        for study in self.storage.get_all_studies():
            if attributes.EXPERIMENT not in study.user_attrs:
                continue
            trials = self.storage.get_all_trials(study._study_id, deepcopy=False)
            counts: dict[str, int] = {}
            for trial in trials:
                counts[trial.state.name] = counts.get(trial.state.name, 0) + 1
            values = [trial.value for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None]
            stored = (study.user_attrs.get(attributes.STUDY_FILE) or {}).get("budget") or {}
            maximize = study.direction == optuna.study.StudyDirection.MAXIMIZE
            best = (max if maximize else min)(values, default=None)
            budget = _budget(stored.get("trials"), stored.get("epochs"))
            entries.append(
                StudyEntry(study._study_id, study.study_name, maximize, study.user_attrs, counts, budget, 1, best)
            )
        return entries


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """One trial; what our attributes do not tell comes from Optuna's own fields."""
    attrs = trial.user_attrs
    start, end = _timestamp(trial.datetime_start), _timestamp(trial.datetime_complete)
    elapsed = end - start if start is not None and end is not None else 0.0
    return TrialRecord(
        number=trial.number,
        lineage=int(attrs.get(attributes.LINEAGE, trial.number)),
        attempt=int(attrs.get(attributes.ATTEMPT, 0)),
        state=STATES[trial.state.name],
        value=trial.values[0] if trial.values and trial.state.name in ("COMPLETE", "PRUNED") else None,
        params=trial.params,
        distributions=trial.distributions,
        config=attrs.get(attributes.CONFIG) or {},
        given=attrs.get(attributes.GIVEN) or {},
        epochs=int(attrs.get(attributes.EPOCHS, len(trial.intermediate_values))),
        start_epoch=int(attrs.get(attributes.START_EPOCH, 0)),
        seconds=float(attrs.get(attributes.SECONDS, elapsed)),
        start=start,
        end=end,
        intermediate=trial.intermediate_values,
        reason=attrs.get(attributes.REASON),
        audited=attrs.get(attributes.AUDITED),
        seed=attrs.get(attributes.SEED),
        trial_id=trial._trial_id,
    )


def _budget(trials: int | None, epochs: int | None) -> dict[str, int]:
    return {name: int(value) for name, value in (("trials", trials), ("epochs", epochs)) if value is not None}


def _timestamp(moment: datetime.datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
