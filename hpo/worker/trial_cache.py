"""A worker's cache of its studies: Optuna's storage interface for samplers and pruners, with few database reads.

Finished trials never change, so they are read once; a worker's own trials live here and are written in batches (see
:mod:`hpo.worker.pending_writes`); the other workers' running trials are read anew by :meth:`TrialCache.refresh`, once
for all decisions of a moment. Optuna itself reads every running trial again at each ``ask`` and ``should_prune``.

Attempts that were retried are hidden: a lineage counts once, in a sampler's history and among a pruner's rivals.
"""

import contextlib
import copy
import threading
from collections.abc import Container, Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, distribution_to_json
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.database import attributes
from hpo.database.claims import Claim
from hpo.database.read_trials import Mark
from hpo.database.storage import Storage
from hpo.search.history import History
from hpo.search.optuna_internals import FIXED_PARAMS, Entries, FrozenStudy, trial_id_of, with_end, with_entry
from hpo.search.parameters import on_step
from hpo.worker.leases import Leases
from hpo.worker.pending_writes import PendingWrites

MARKS_READ_AGAIN = 1000
"""So many of the newest marks of all studies are read once more, because they may not have been visible before."""


class TrialCache(BaseStorage):
    """Optuna's storage interface over a :class:`hpo.database.storage.Storage`, for one worker process.

    What is set on a :meth:`tracked <track>` trial, one that this worker holds, is gathered in ``pending``. Everything
    else passes through.
    """

    def __init__(self, backend: Storage, *, auto_refresh: bool = True) -> None:
        """``auto_refresh``: read the database at every ``get_all_trials``; a worker calls :meth:`refresh` itself."""
        self.backend = backend
        self.auto_refresh = auto_refresh
        self.leases = Leases()
        self.pending = PendingWrites(self.leases)
        self._lock = threading.RLock()
        self._studies: dict[int, History] = {}
        self._names: dict[int, str] = {}
        self._directions: dict[int, list[StudyDirection]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process starts with nothing of its own and reads everything anew."""
        return {"backend": self.backend, "auto_refresh": self.auto_refresh}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["backend"], auto_refresh=state["auto_refresh"])  # type: ignore[misc]

    def add_imported(self, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        """Takes finished trials of elsewhere into the history that samplers read; their numbers are negative.

        ``get_all_trials``, from which Optuna's pruners read, leaves them out.
        """
        with self._lock:
            for trial in trials:
                self._study(study_id).put(trial)

    def preload(self, study_id: int, name: str, directions: Sequence[StudyDirection]) -> None:
        """Gives the cache a study's name and directions, so that it need not ask the database."""
        self._names[study_id] = name
        self._directions[study_id] = list(directions)

    # Trials that this worker holds.

    def track(self, claim: Claim) -> FrozenTrial:
        """Takes a claimed trial among those that this worker holds."""
        if claim.fresh:
            trial = _empty_trial(claim.trial_id, claim.number, claim.lineage, claim.attempt)
        else:
            trial = self.backend.read_trials(claim.study_id, None, {claim.trial_id}, 2**31 - 1)[0]
        with self._lock:
            self.leases.add(claim.trial_id, claim.study_id)
            self._study(claim.study_id).put(trial)
        return trial

    def untrack(self, trial_id: int) -> None:
        """Forgets a trial that has ended; the next refresh reads how it ended."""
        with self._lock:
            study_id = self.leases.remove(trial_id)
            self.pending.discard(trial_id)
            if study_id is not None:
                self._study(study_id).unfinished.add(trial_id)

    def set_ended(self, trial_id: int, state: TrialState, value: float | None, second: float | None = None) -> None:
        """Lets samplers and pruners see how a trial of this worker ended, before the database has it."""
        with self._lock:
            study_id = self.leases.study_of(trial_id)
            assert study_id is not None
            study = self._study(study_id)
            study.put(with_end(study.trials[trial_id], state, value, second))

    def clear_draw(self, trial_id: int, *, keep_fixed: bool = False) -> None:
        """Forgets what was drawn for a trial of this worker or marked by its sampler: it is drawn again.

        ``keep_fixed``: the values that a person or ``try_first`` fixed stay.
        """
        with self._lock:
            study_id = self.leases.study_of(trial_id)
            assert study_id is not None
            study = self._study(study_id)
            changed = copy.copy(study.trials[trial_id])
            fixed = changed.system_attrs.get(FIXED_PARAMS, {}) if keep_fixed else {}
            changed.params, changed.distributions, changed.system_attrs = {}, {}, {}
            study.put(changed)
            self.pending.clear_draw(trial_id)
            self.set_trial_system_attr(trial_id, FIXED_PARAMS, fixed)

    def _study(self, study_id: int) -> History:
        return self._studies.setdefault(study_id, History())

    def _change(self, trial_id: int, entries: Entries, key: Any, value: Any) -> bool:
        """Sets one entry of a trial that this worker holds; returns False for any other trial.

        The trial is replaced, not changed: a pruner that holds the earlier one must not see its own mark in it.
        """
        study_id = self.leases.study_of(trial_id)
        if study_id is None:
            return False
        study = self._study(study_id)
        study.put(with_entry(study.trials[trial_id], entries, key, value))
        return True

    # Reading.

    def refresh(self, study_id: int, *, reports: bool = True) -> None:
        """Reads what has changed in the study since the last time: new trials and others' unfinished ones.

        ``reports``: also what the others' running trials have reported since; without it, of those whose parameters are
        known only those are read that have ended.
        If the study was deleted, this worker's trials of it are lost; with ``auto_refresh`` it raises KeyError.
        """
        with self._lock:
            study = self._study(study_id)
            wanted, after = study.unfinished.difference(self.leases.trial_ids), study.last_read
            known = set() if reports else {trial_id for trial_id in wanted if _has_params(study.open.get(trial_id))}
        try:
            trials = self.backend.read_trials(study_id, None, wanted - known, after, known)
        except KeyError:
            if self.auto_refresh:
                raise
            self.leases.mark_study_lost(study_id)
            return
        with self._lock:
            for trial in trials:
                study.last_read = max(study.last_read, trial_id_of(trial))
                if self.leases.study_of(trial_id_of(trial)) is not None:
                    continue
                if trial.state.is_finished():
                    study.unfinished.discard(trial_id_of(trial))
                else:
                    study.unfinished.add(trial_id_of(trial))
                study.put(trial)

    def refresh_marks(self, study_id: int) -> None:
        """Reads the marks that others' trials have got since the last time: all that pruners with rungs compare.

        That costs a fiftieth of :meth:`refresh` if a thousand workers train. A trial that is not known yet is put in
        with its marks alone until a refresh reads it.
        """
        with self._lock:
            after = self._study(study_id).last_mark
        # Of two transactions at once the one with the smaller ids may end later.
        marks, last = self.backend.read_marks(study_id, None if after is None else after - MARKS_READ_AGAIN)
        if after is None:
            self.refresh(study_id)
        with self._lock:
            study = self._study(study_id)
            study.last_mark = last
            for mark in marks:
                if self.leases.study_of(mark.trial_id) is None:
                    trial = study.trials.get(mark.trial_id) or _unknown_trial(mark)
                    if mark.key not in trial.system_attrs:
                        study.put(with_entry(trial, "system_attrs", mark.key, mark.value))

    @contextlib.contextmanager
    def reading(self, study_id: int) -> Iterator[History]:
        """The history of a study, which nobody changes within the block."""
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
            trials = [trial for trial in self._study(study_id).in_order() if trial.number >= 0]
        chosen = trials if states is None else [trial for trial in trials if trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            if (study_id := self.leases.study_of(trial_id)) is not None:
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

    # Writing to trials that this worker holds.

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        if isinstance(distribution, FloatDistribution) and distribution.step is not None:
            # The study file's 0.3 in place of Optuna's 0.30000000000000004.
            param_value_internal = on_step(param_value_internal, distribution.low, distribution.step)
        with self._lock:
            external = distribution.to_external_repr(param_value_internal)
            if self._change(trial_id, "distributions", param_name, distribution):
                self._change(trial_id, "params", param_name, external)
                self.pending.set_param(trial_id, param_name, param_value_internal, distribution_to_json(distribution))
                return
        self.backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._lock:
            if self._change(trial_id, "intermediate_values", step, intermediate_value):
                self.pending.set_report(trial_id, step, intermediate_value)
                return
        self.backend.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._lock:
            if self._change(trial_id, "user_attrs", key, value):
                self.pending.set_user_attr(trial_id, key, value)
                return
        self.backend.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._lock:
            if self._change(trial_id, "system_attrs", key, value):
                self.pending.set_system_attr(trial_id, key, value)
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


def _empty_trial(trial_id: int, number: int, lineage: int | None, attempt: int | None) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={} if lineage is None else {attributes.LINEAGE: lineage, attributes.ATTEMPT: attempt},
        system_attrs={},
        intermediate_values={},
        trial_id=trial_id,
    )


def _unknown_trial(mark: Mark) -> FrozenTrial:
    """A trial of which only a mark has been read."""
    return _empty_trial(mark.trial_id, mark.number, mark.lineage, mark.attempt)


def _has_params(trial: FrozenTrial | None) -> bool:
    """Whether it is a running trial with its parameters, which do not change any more."""
    return trial is not None and trial.state is TrialState.RUNNING and bool(trial.params)
