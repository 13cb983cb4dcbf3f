"""A worker's view of its studies: Optuna's samplers and pruners ask it, and it asks the database as little as it can.

Finished trials never change, so they are read once; a worker's own trials live here and are written in batches; the
other workers' running trials are read anew by :meth:`WorkerView.refresh`, once for all decisions of a moment. Optuna
reads every running trial again at each ``ask`` and each ``should_prune``.

Attempts that were retried are hidden: a lineage counts once, in a sampler's history and among a pruner's rivals.
"""

import contextlib
import copy
import threading
from collections.abc import Container, Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.database import attributes
from hpo.database.claims import Claim
from hpo.database.storage import Storage
from hpo.database.trial_writes import Writes
from hpo.search.history import History
from hpo.search.optuna_internals import Entries, FrozenStudy, trial_id_of, with_end, with_entry


class WorkerView(BaseStorage):
    """Optuna's storage interface over a :class:`hpo.database.storage.Storage`, for one worker process.

    Trials that were :meth:`adopted <adopt>` are the worker's own: what is set on them is gathered, and
    :meth:`take_writes` hands it over to be written. Everything else passes through.
    """

    def __init__(self, backend: Storage, *, auto_refresh: bool = True) -> None:
        """``auto_refresh``: read the database at every ``get_all_trials``; a worker says itself when to."""
        self.backend = backend
        self.auto_refresh = auto_refresh
        self._lock = threading.RLock()
        self._studies: dict[int, History] = {}
        self._own: dict[int, int] = {}  # trial id -> study id
        self._pending: dict[int, Writes] = {}
        self._names: dict[int, str] = {}
        self._directions: dict[int, list[StudyDirection]] = {}
        self._lost: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process starts with nothing of its own and reads everything anew."""
        return {"backend": self.backend, "auto_refresh": self.auto_refresh}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["backend"], auto_refresh=state["auto_refresh"])  # type: ignore[misc]

    def know(self, study_id: int, name: str, direction: StudyDirection) -> None:
        """Tells the view what it then need not ask the database."""
        self._names[study_id] = name
        self._directions[study_id] = [direction]

    # Own trials.

    def adopt(self, claim: Claim) -> FrozenTrial:
        """Makes a claimed trial one of our own."""
        if claim.fresh:
            trial = FrozenTrial(
                number=claim.number,
                state=TrialState.RUNNING,
                value=None,
                datetime_start=None,
                datetime_complete=None,
                params={},
                distributions={},
                user_attrs={attributes.LINEAGE: claim.lineage, attributes.ATTEMPT: claim.attempt},
                system_attrs={},
                intermediate_values={},
                trial_id=claim.trial_id,
            )
        else:
            trial = self.backend.read_trials(claim.study_id, None, {claim.trial_id}, 2**31 - 1)[0]
        with self._lock:
            self._own[claim.trial_id] = claim.study_id
            self._study(claim.study_id).put(trial)
        return trial

    def disown(self, trial_id: int) -> None:
        """Forgets an own trial that has ended; the next refresh reads how it ended."""
        with self._lock:
            study_id = self._own.pop(trial_id, None)
            self._pending.pop(trial_id, None)
            self._lost.discard(trial_id)
            if study_id is not None:
                self._study(study_id).unfinished.add(trial_id)

    def ended(self, trial_id: int, state: TrialState, value: float | None) -> None:
        """Shows an own trial as it has been ended, before the database is read again."""
        with self._lock:
            study = self._study(self._own[trial_id])
            study.put(with_end(study.trials[trial_id], state, value))

    @property
    def own(self) -> list[int]:
        with self._lock:
            return list(self._own)

    def lose(self, trial_ids: Container[int] | set[int]) -> None:
        """Notes that the database gave these own trials to somebody else."""
        with self._lock:
            self._lost |= {trial_id for trial_id in self._own if trial_id in trial_ids}

    def is_lost(self, trial_id: int) -> bool:
        with self._lock:
            return trial_id in self._lost

    def take_writes(self, trial_id: int | None = None) -> dict[int, Writes]:
        """Hands over what has been gathered since the last call: of one trial, or of all."""
        with self._lock:
            if trial_id is not None:
                return {trial_id: self._pending.pop(trial_id, Writes())}
            taken, self._pending = self._pending, {}
            return {t: writes for t, writes in taken.items() if writes and t not in self._lost}

    def put_back(self, writes: dict[int, Writes]) -> None:
        """Takes back what could not be written; what was set since wins."""
        with self._lock:
            for trial_id, older in writes.items():
                if trial_id in self._own:
                    newer = self._pending.get(trial_id, Writes())
                    self._pending[trial_id] = Writes(
                        {**older.params, **newer.params},
                        {**older.user_attrs, **newer.user_attrs},
                        {**older.system_attrs, **newer.system_attrs},
                        {**older.reports, **newer.reports},
                    )

    def _study(self, study_id: int) -> History:
        return self._studies.setdefault(study_id, History())

    def _change(self, trial_id: int, entries: Entries, key: Any, value: Any) -> Writes | None:
        """Sets one entry of an own trial; None where the trial is not our own.

        The trial is replaced, not changed: a pruner that holds the earlier one must not see its own mark in it.
        """
        study_id = self._own.get(trial_id)
        if study_id is None:
            return None
        study = self._study(study_id)
        study.put(with_entry(study.trials[trial_id], entries, key, value))
        return self._pending.setdefault(trial_id, Writes())

    # Reading.

    def refresh(self, study_id: int) -> None:
        """Reads what has changed in the study since the last time: new trials and others' unfinished ones.

        Of a study that was deleted a worker's own trials are lost; a view that others read raises KeyError.
        """
        with self._lock:
            study = self._study(study_id)
            wanted, after = study.unfinished - self._own.keys(), study.last_read
        try:
            trials = self.backend.read_trials(study_id, None, wanted, after)
        except KeyError:
            if self.auto_refresh:
                raise
            with self._lock:
                self._lost |= {trial_id for trial_id, owner in self._own.items() if owner == study_id}
            return
        with self._lock:
            for trial in trials:
                study.last_read = max(study.last_read, trial_id_of(trial))
                if trial_id_of(trial) in self._own:
                    continue
                if trial.state.is_finished():
                    study.unfinished.discard(trial_id_of(trial))
                else:
                    study.unfinished.add(trial_id_of(trial))
                study.put(trial)

    @contextlib.contextmanager
    def reading(self, study_id: int) -> Iterator[History]:
        """What is known of a study, which nobody changes within the block."""
        self._bring_up_to_date(study_id)
        with self._lock:
            yield self._study(study_id)

    def _bring_up_to_date(self, study_id: int) -> None:
        if self.auto_refresh or study_id not in self._studies:
            self.refresh(study_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        self._bring_up_to_date(study_id)
        with self._lock:
            trials = self._study(study_id).in_order()
        chosen = trials if states is None else [trial for trial in trials if trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            if (study_id := self._own.get(trial_id)) is not None:
                return self._study(study_id).trials[trial_id]
        return self.backend.get_trial(trial_id)

    def get_study_name_from_id(self, study_id: int) -> str:
        if study_id not in self._names:
            self._names[study_id] = self.backend.get_study_name_from_id(study_id)
        return self._names[study_id]

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        if study_id not in self._directions:
            self._directions[study_id] = self.backend.get_study_directions(study_id)
        return self._directions[study_id]

    # Writing to own trials.

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        with self._lock:
            external = distribution.to_external_repr(param_value_internal)
            pending = self._change(trial_id, "distributions", param_name, distribution)
            if pending is not None:
                self._change(trial_id, "params", param_name, external)
                pending.params[param_name] = (param_value_internal, distribution_to_json(distribution))
                return
        self.backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._lock:
            pending = self._change(trial_id, "intermediate_values", step, intermediate_value)
            if pending is not None:
                pending.reports[step] = intermediate_value
                return
        self.backend.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._lock:
            pending = self._change(trial_id, "user_attrs", key, value)
            if pending is not None:
                pending.user_attrs[key] = value
                return
        self.backend.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._lock:
            pending = self._change(trial_id, "system_attrs", key, value)
            if pending is not None:
                pending.system_attrs[key] = value
                return
        self.backend.set_trial_system_attr(trial_id, key, value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        return self.backend.set_trial_state_values(trial_id, state, values)

    # What passes through.

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self.backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        with self._lock:
            self._studies.pop(study_id, None)
            self._names.pop(study_id, None)
            self._directions.pop(study_id, None)
        self.backend.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.backend.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.backend.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        for study_id, name in self._names.items():
            if name == study_name and not self.auto_refresh:
                return study_id
        return self.backend.get_study_id_from_name(study_name)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.backend.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.backend.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self.backend.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self.backend.create_new_trial(study_id, template_trial)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self.backend.get_trial_id_from_study_id_trial_number(study_id, trial_number)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return self.backend.get_best_trial(study_id)

    def remove_session(self) -> None:
        self.backend.remove_session()
