"""What follows the end of an epoch: the trial reports, and goes on from a checkpoint, or is pruned, complete, failed or
given back."""

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from optuna.trial import TrialState

from hpo.experiment.experiment import Experiment
from hpo.trainers.metrics import checked_metrics, reported_value
from hpo.trainers.protocol import EpochEnd, Event, Metrics
from hpo.trainers.registry import TRAINERS
from hpo.trainers.seed_member import not_finite_seeds
from hpo.worker import process_end
from hpo.worker.best_models import BestModels
from hpo.worker.db_thread import DatabaseThread
from hpo.worker.limits import Limits
from hpo.worker.running_trial import RunningTrial
from hpo.worker.saving import CheckpointSaver
from hpo.worker.study_runner import StudyRunner
from hpo.worker.training_end import end_of_training
from hpo.worker.trial_cache import TrialCache

FRESH_SECONDS = 1.0
"""How old the other workers' trials may be on which a worker with many slots prunes."""


@dataclass(frozen=True)
class Finished:
    """The trial has ended by itself, or its pruner ends it."""

    state: TrialState
    reason: str | None = None


@dataclass(frozen=True)
class GivenBack:
    """Another worker may go on with the trial, if its search gets more to spend."""

    reason: str


Ending = Finished | GivenBack | Exception
"""How a trial ends; an exception is the error with which it fails."""


class EpochEnds:
    """Judges the trials of one worker at the end of their epochs; used by the thread that trains."""

    def __init__(
        self,
        experiment: Experiment,
        cache: TrialCache,
        db_thread: DatabaseThread,
        runners: Mapping[int, StudyRunner],
        limits: Limits,
        saver: CheckpointSaver,
        models: BestModels,
    ) -> None:
        self._study_file = experiment.study_file
        self._trainer_entry = TRAINERS[experiment.study_file.trainer]
        self._cache = cache
        self._db_thread = db_thread
        self._runners = runners
        self._limits = limits
        self._saver = saver
        self._models = models
        self._reading: Future[None] | None = None
        self._read_at: dict[int, float] = {}  # study id -> when its trials were read

    def read_others(self, events: Sequence[Event], running: Mapping[int, RunningTrial]) -> None:
        """Reads the other workers' trials once for all pruning decisions that these events ask for.

        Many slots do not wait for that while what was read is younger than FRESH_SECONDS: it is read while they train.
        """
        study_ids = {
            trial.claim.study_id
            for event in events
            if isinstance(event, EpochEnd) and not event.finished and event.may_prune
            if (trial := running.get(event.key)) is not None  # type: ignore[call-overload]
            if not trial.audited and self._runners[trial.claim.study_id].decides_at(event.epoch)
        }
        if not study_ids:
            return
        oldest = time.monotonic() - (FRESH_SECONDS if len(running) > 1 else 0)
        if self._reading is None or self._reading.done():
            if self._reading is not None:
                self._reading.result()  # raises what went wrong
            self._reading = self._db_thread.submit(self._refresh, study_ids)
        while any(self._read_at.get(study_id, -math.inf) < oldest for study_id in study_ids):
            self._reading.result()
            if any(self._read_at.get(study_id, -math.inf) < oldest for study_id in study_ids):
                self._reading = self._db_thread.submit(self._refresh, study_ids)

    def _refresh(self, study_ids: set[int]) -> None:
        began = time.monotonic()
        for study_id in study_ids:
            self._runners[study_id].refresh_for_pruner()
            self._read_at[study_id] = began

    def judge(self, trial: RunningTrial, event: EpochEnd, num_running: int) -> Ending | None:
        """Reports the epoch; returns how the trial ends, or None if it goes on, from a checkpoint that is due."""
        try:
            trial.history.append(checked_metrics(event.metrics, self._study_file.metric))
        except TypeError as error:
            return error
        process_end.Progress.made = True
        value, epoch, runner = self.reported(trial.history), event.epoch, self._runners[trial.claim.study_id]
        if value is not None:
            self._cache.set_trial_intermediate_value(trial.trial_id, epoch, value)
        if value is not None and not math.isfinite(value):
            metric = self._study_file.metric
            of_seeds = not_finite_seeds(trial.history[-1], metric)
            return Finished(TrialState.PRUNED, f"{metric} is {value} at epoch {epoch}{of_seeds}")
        is_out_of_time = self._limits.is_out_of_time(trial)
        if value is not None:
            may_be_last = event.finished or runner.stops_early or is_out_of_time
            self._models.offer(trial, event, may_be_last=may_be_last)
        if event.finished:
            return self.end_training(trial)
        if value is not None and event.may_prune and runner.should_prune(trial, epoch, self._trainer_entry):
            reason = f"{self._study_file.pruner.name} at epoch {epoch}"
            if runner.stops_early:
                # It stopped for lack of progress of its own, which says nothing against it.
                return Finished(TrialState.COMPLETE, f"no more progress: {reason}")
            return Finished(TrialState.PRUNED, reason)
        if is_out_of_time:
            return self.end_training(trial, reason=f"stopped after trial_timeout_seconds, at epoch {epoch}")
        if (unsaved := self._saver.offer(trial, event, num_running)) is not None:
            return unsaved
        if self._limits.is_time_over(trial):
            return GivenBack(f"the time of the search is over, at epoch {epoch}")
        if not self._limits.has_epochs(trial, epoch):
            return GivenBack(f"the epochs of the search are given out, at epoch {epoch}")
        return None

    def end_training(self, trial: RunningTrial, final: Metrics | None = None, reason: str | None = None) -> Ending:
        """How a trial ends whose trainer has run to its end, or is ended before it for ``reason``."""
        end = end_of_training(self._study_file, trial, final)
        if isinstance(end, Exception):
            return end
        state, why = end
        return Finished(state, reason if state is TrialState.COMPLETE else why)

    def reported(self, history: list[dict[str, float]]) -> float | None:
        """What the last epoch of ``history`` reports; None if it is an epoch without a report."""
        nan_is_no_report = self._trainer_entry.nan_is_no_report
        return reported_value(history, self._study_file.metric, nan_is_no_report=nan_is_no_report)
