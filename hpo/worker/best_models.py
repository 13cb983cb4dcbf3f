"""Keeps the weights of each study's best trial, for a trainer that offers them with an epoch (the image classifier).

They are copied only if the trial may become the best one of its study, and written once, when it has: a search of a
thousand trials writes a few files. The study file's ``keep_folders`` says which of them stay.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import TrialState

from hpo.studyfile.model import StudyFile
from hpo.trainers.metrics import value_epoch, with_latest
from hpo.trainers.protocol import EpochEnd, State
from hpo.worker.running_trial import RunningTrial
from hpo.worker.trial_cache import TrialCache

log = logging.getLogger("hpo")

Rank = tuple[float, int]
"""How good a trial is: its value, the larger the better, and its number with a minus: the first of equal ones."""


@dataclass
class _Held:
    """Weights of a running trial, as they were after ``epoch`` epochs."""

    epoch: int
    state: State


class BestModels:
    """The models of one worker's trials.

    Attributes:
        in_use: whether the trainer has offered weights; the folders of trials then hold nothing else.
    """

    def __init__(self, study_file: StudyFile, cache: TrialCache) -> None:
        self.in_use = False
        self._study_file, self._cache = study_file, cache
        self._sign = 1.0 if study_file.direction == "maximize" else -1.0
        self._held: dict[int, _Held] = {}
        self._best: dict[int, Rank | None] = {}

    def offer(self, trial: RunningTrial, event: EpochEnd, *, may_be_last: bool) -> None:
        """Takes the weights after an epoch, if they may become the study's best model.

        ``may_be_last``: the trial ends with this epoch, or may.
        """
        if event.model is None:
            return
        self.in_use = True
        if self._study_file.keep_folders == "none" or not (may_be_last or self._study_file.value == "best"):
            return
        chosen = self._value_epoch(trial)
        if chosen != len(trial.history) - 1 or not self._is_wanted(trial, chosen):
            return
        self._held[trial.trial_id] = _Held(len(trial.history), event.model())

    def keep(self, trial: RunningTrial, state: TrialState) -> bool:
        """Writes the model of a trial that has ended as ``state``, if it is the best that this worker knows of.

        Returns whether it has: then the folders of trials are to be tidied.
        """
        held = self._held.pop(trial.trial_id, None)
        if held is None or state is not TrialState.COMPLETE or trial.run is None:
            return False
        chosen = self._value_epoch(trial)
        if chosen is None or held.epoch != chosen + 1 or not self._is_wanted(trial, chosen):
            return False
        try:
            trial.run.save_model(held.state)
        except OSError as error:  # the result stands without it
            log.warning("the model of trial %d is not kept: %s", trial.claim.number, error.strerror or error)
            return False
        if self._study_file.keep_folders != "all":
            self._best[trial.claim.study_id] = self._rank(trial, chosen)
        return True

    def forget(self, trial_id: int) -> None:
        """Lets go of what a trial's weights hold that has left this worker."""
        self._held.pop(trial_id, None)

    def _value_epoch(self, trial: RunningTrial) -> int | None:
        study_file = self._study_file
        return value_epoch(trial.history, study_file.metric, study_file.value, study_file.direction)

    def _is_wanted(self, trial: RunningTrial, epoch: int) -> bool:
        if self._study_file.keep_folders == "all":
            return True
        best = self._best_of(trial.claim.study_id)
        return self._keeps_constraints(trial, epoch) and (best is None or self._rank(trial, epoch) > best)

    def _rank(self, trial: RunningTrial, epoch: int) -> Rank:
        return self._sign * trial.history[epoch][self._study_file.metric], -trial.claim.number

    def _best_of(self, study_id: int) -> Rank | None:
        """The best trial that this worker knows of: of those that were there when it began, and of its own."""
        if study_id not in self._best:
            ranks = [
                (self._sign * trial.values[0], -trial.number)
                for trial in self._cache.get_all_trials(study_id, deepcopy=False)
                if trial.state is TrialState.COMPLETE
                if trial.values and not any(violation > 0 for violation in trial.constraints.values())
            ]
            self._best[study_id] = max(ranks, default=None)
        return self._best[study_id]

    def _keeps_constraints(self, trial: RunningTrial, epoch: int) -> bool:
        metrics: Mapping[str, float] = trial.history[epoch]
        bounds = self._study_file.constraints or {}
        for name in bounds:
            metrics = with_latest(metrics, trial.history, epoch, name)
        return not any(name in metrics and bound.violation(metrics[name]) > 0 for name, bound in bounds.items())
