"""How trials leave the slots of a worker: finished, failed, given back, or lost to another worker.

What an ending writes to the database is in :mod:`hpo.worker.outcomes`; here the slot becomes free, the next claim is
asked for, and the worker is replaced if the failure table demands it.
"""

import logging
from collections.abc import Mapping, Sequence

from optuna.trial import TrialState

from hpo.experiment.experiment import Experiment
from hpo.worker import failures
from hpo.worker.best_models import BestModels
from hpo.worker.build import size_mb
from hpo.worker.claim_queue import ClaimQueue
from hpo.worker.db_thread import DatabaseThread
from hpo.worker.epoch_end import Ending, Finished, GivenBack
from hpo.worker.exit_codes import EXIT_RESTART
from hpo.worker.options import WorkerOptions
from hpo.worker.outcomes import Outcomes
from hpo.worker.run_context import tidy_folders
from hpo.worker.running_trial import RunningTrial
from hpo.worker.saving import CheckpointSaver
from hpo.worker.slots import Slots
from hpo.worker.study_runner import StudyRunner
from hpo.worker.trial_cache import TrialCache
from hpo.worker.uploads import Uploads

log = logging.getLogger("hpo")


class TrialEnds:
    """Ends the trials of one worker; used by the thread that trains.

    Attributes:
        replacement: exit code and reason, once the worker's process has to be replaced.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: WorkerOptions,
        cache: TrialCache,
        db_thread: DatabaseThread,
        runners: Mapping[int, StudyRunner],
        slots: Slots,
        queue: ClaimQueue,
        saver: CheckpointSaver,
        outcomes: Outcomes,
        models: BestModels,
        uploads: Uploads | None,
    ) -> None:
        self.replacement: tuple[int, str] | None = None
        self._study_file = experiment.study_file
        self._options = options
        self._cache = cache
        self._db_thread = db_thread
        self._runners = runners
        self._slots = slots
        self._queue = queue
        self._saver = saver
        self._outcomes = outcomes
        self._models = models
        self._uploads = uploads

    def apply(self, trial: RunningTrial, ending: Ending | None) -> None:
        """Ends the trial as its epoch's end was judged; writes the epoch if the trial goes on (None)."""
        if isinstance(ending, Finished):
            self.finish(trial, ending.state, ending.reason)
        elif isinstance(ending, Exception):
            self.fail(trial, ending)
        else:
            if isinstance(ending, GivenBack):
                self._leave(trial)
                self._give_back(trial, ending.reason)
            self._db_thread.write()

    def finish(self, trial: RunningTrial, state: TrialState, reason: str | None = None) -> None:
        """Ends a trial with what it has, and asks for the next claim; does not wait."""
        has_model = self._models.keep(trial, state)
        self._leave(trial)
        self._outcomes.conclude(trial, state, reason)
        budget = self._study_file.budget
        depends = budget.epochs is not None or budget.time is not None or self._study_file.stop_at_target
        if not depends and not self._slots.has_many:
            # The slot waits for a claim, and nothing waits for the result, which the cache shows already. A claim
            # depends on this trial only if the budget is in epochs or in time, or if it may have reached the target.
            # Many slots are claimed for together, once all trials that ended at once have left them.
            self._queue.prefetch()
        self._outcomes.finish(trial)
        if self._models.in_use and not has_model:
            return  # there is nothing in the folders of trials but models
        runner, lineage = self._runners[trial.claim.study_id], trial.claim.lineage
        self._db_thread.submit(tidy_folders, self._cache, runner, self._options, lineage, self._uploads)

    def fail(self, trial: RunningTrial, error: BaseException) -> None:
        """Ends a trial in a slot with an error."""
        self._leave(trial)
        self.end_by_error(trial, error)

    def end_by_error(self, trial: RunningTrial, error: BaseException) -> None:
        """Ends a trial that raised an error as the failure table says; notes if the worker has to end."""
        failure = self._outcomes.end_by_error(trial, error)
        if failure.ends_worker and self.replacement is None:
            self.replacement = failure.exit_code, f"its worker is replaced: {failure.name}"

    def evicted(self, trial: RunningTrial, reason: str) -> None:
        """Gives back a trial that the trainer has put out of its slot."""
        self._slots.release(trial)
        self._models.forget(trial.trial_id)
        self._queue.slot_is_free()
        self._give_back(trial, reason)

    def drop_lost(self, trials: Sequence[RunningTrial]) -> None:
        """Drops those of the running ``trials`` that another worker has."""
        for trial in trials:
            if self._cache.leases.is_lost(trial.trial_id):
                number, name = trial.claim.number, trial.study.name
                log.warning("trial %d of %s was given to another worker, or deleted; it is dropped", number, name)
                self._leave(trial)
                self._cache.untrack(trial.trial_id)

    def check_size(self) -> None:
        """Replaces a worker that has grown past its limit, in time: the trials go on from their checkpoints."""
        limit, running = self._options.memory_limit_mb, self._slots.running
        if limit is None or self.replacement is not None or size_mb() <= limit:
            return
        self.replacement = EXIT_RESTART, "its worker grew past the memory limit"
        if len(running) == 1 and self._slots.num_started == 1:
            # Nothing else has run here: a trial that grows past the limit at the same place again cannot go on.
            trial = next(iter(running.values()))
            self._leave(trial)
            error = MemoryError(f"it grew past --memory-limit-mb {limit} alone in its process")
            self._outcomes.fail(trial, failures.MEMORY_LIMIT, error)

    def _leave(self, trial: RunningTrial) -> None:
        self._slots.stop(trial)
        self._models.forget(trial.trial_id)
        self._queue.slot_is_free()

    def _give_back(self, trial: RunningTrial, reason: str) -> None:
        self._saver.flush([trial.trial_id])
        self._outcomes.give_back(trial, reason)
