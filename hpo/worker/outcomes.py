"""Records how a worker's trials ended (value, failure, requeue) on the database thread."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database import attributes, retries, trial_writes
from hpo.database.trial_writes import Writes
from hpo.errors import ExperimentError, NothingSucceedsError
from hpo.experiment.experiment import Experiment
from hpo.files.artifacts import attach, attach_text, epochs_table
from hpo.files.checkpoints import CheckpointFolder
from hpo.search.objectives import values_of
from hpo.search.optuna_internals import CONSTRAINT_PREFIX
from hpo.trainers.metrics import value_epoch, with_latest
from hpo.trainers.seed_member import without_seeds
from hpo.worker import failures
from hpo.worker.db_thread import DatabaseThread
from hpo.worker.failures import Failure
from hpo.worker.log_lines import LOG_LINES
from hpo.worker.running_trial import Outcome, RunningTrial
from hpo.worker.study_runner import CONSTRAINT
from hpo.worker.trial_cache import TrialCache
from hpo.worker.uploads import Uploads

log = logging.getLogger("hpo")

GIVE_BACK_SECONDS = 10.0


class Outcomes:
    """Ends the trials of the worker called ``worker``; ``trained_on`` is noted with each.

    ``forget_checkpoint(trial_id)`` ends the writing of an ended trial's checkpoints. Files go to ``artifacts``, or with
    ``uploads`` to a shared address.

    Attributes:
        trial_seconds: how long a trial takes lately, on the clock; infinite before the first has ended.
        any_finished: whether a trial has ended by itself here, not by an error.
    """

    def __init__(
        self,
        experiment: Experiment,
        cache: TrialCache,
        db_thread: DatabaseThread,
        worker: str,
        folders: Mapping[int, CheckpointFolder],
        artifacts: str | Path,
        trained_on: dict[str, Any],
        forget_checkpoint: Callable[[int], None] = lambda trial_id: None,
        uploads: Uploads | None = None,
    ) -> None:
        self.trial_seconds = math.inf
        self.any_finished = False
        self._experiment = experiment
        self._study_file = experiment.study_file
        self._engine = experiment.storage.engine
        self._cache = cache
        self._db_thread = db_thread
        self._worker = worker
        self._folders = folders
        self._artifacts = artifacts if uploads is None else uploads.unsent
        self._uploads = uploads
        self._trained_on = trained_on
        self._forget_checkpoint = forget_checkpoint

    # Trials that ended by themselves.

    def conclude(self, trial: RunningTrial, state: TrialState, reason: str | None = None) -> None:
        """Settles the trial's value and lets this worker's samplers and pruners see it; :meth:`finish` writes it."""
        trial_id = trial.trial_id
        objective, which = self._study_file.metric, self._study_file.value
        chosen = value_epoch(trial.history, objective, which, self._study_file.direction)
        if state is TrialState.PRUNED and which == "last" and trial.history and objective in trial.history[-1]:
            chosen = -1  # a diverged trial has no value, although earlier epochs had one
        metrics = trial.history[-1 if chosen is None else chosen] if trial.history else {}
        if trial.final is not None:
            metrics = trial.final
        if (second := self._study_file.second_metric) is not None and trial.final is None:
            metrics = with_latest(metrics, trial.history, chosen, second)
        for name, bound in (self._study_file.constraints or {}).items():
            metrics = with_latest(metrics, trial.history, chosen, name)
            if name in metrics:
                self._cache.set_trial_system_attr(trial_id, CONSTRAINT_PREFIX + name, bound.violation(metrics[name]))
                if bound.violation(metrics[name]) > 0:
                    violation = f"violates the constraint {name} {bound}: {metrics[name]:g}"
                    reason = violation if reason is None else f"{reason}; {violation}"
        value, other = values_of(metrics, self._study_file.objectives)
        if self._study_file.num_seeds > 1:
            of_seeds, metrics = without_seeds(metrics, objective)
            self._cache.set_trial_user_attr(trial_id, attributes.SEED_VALUES, of_seeds)
        self._cache.set_trial_user_attr(trial_id, attributes.METRICS, metrics)
        self._cache.set_trial_user_attr(trial_id, attributes.TRAINED_ON, self._trained_on)
        self._account(trial, reason)
        self._attach_files(trial)
        if state is TrialState.COMPLETE and trial.history:
            curves = epochs_table(trial.history)
            name = "epochs.csv"
            self._attach(trial, name, attach_text, self._cache, trial_id, name, curves)
        trial.outcome = Outcome(state, value, self._epochs_of(trial), other)
        self._cache.set_ended(trial_id, state, value, other)
        self.any_finished = True

    def finish(self, trial: RunningTrial) -> None:
        """Has a concluded trial written to its study; does not wait."""
        self._submit(self._finish, trial)

    def _finish(self, trial: RunningTrial) -> None:
        outcome, trial_id = trial.outcome, trial.trial_id
        assert outcome is not None
        with self._cache.pending.transaction(self._engine, trial_id) as (connection, writes):
            finished = trial_writes.finish(
                connection, trial_id, outcome.state, outcome.value, outcome.epochs, writes, outcome.second
            ) or trial_writes.ended_as(connection, trial_id, outcome.state, self._worker)
        if self._uploads is None:
            self._end_checkpoints(trial, remove=finished)
        else:  # nothing that is claimed next waits for the address
            self._uploads.submit(("ended", trial_id), lambda: self._end_checkpoints(trial, remove=finished))
        self._cache.untrack(trial_id)

    def _end_checkpoints(self, trial: RunningTrial, *, remove: bool) -> None:
        self._forget_checkpoint(trial.trial_id)
        if remove:
            self._folders[trial.claim.study_id].remove(trial.claim.lineage)

    # Trials that did not.

    def end_by_error(self, trial: RunningTrial, error: BaseException) -> Failure:
        """Ends a trial that raised an error as its row of the failure table says, and returns the row.

        Raises:
            NothingSucceedsError: if no trial of the experiment succeeds and enough have failed.
        """
        failure = failures.classify(error)
        if isinstance(error, ExperimentError):  # the trainer's configuration refuses what a retry or a cell is given
            failure = failures.INFEASIBLE
        if failure is failures.PRUNED:
            reason = str(error) or "pruned by its trainer"
            failures.release(error)
            self.conclude(trial, TrialState.PRUNED, reason)
            self.finish(trial)
        elif failure is failures.INFEASIBLE:
            self.end_infeasible(trial, error)
        else:
            is_first = not (trial.shared or trial.claim.attempt)
            if failure is failures.OUT_OF_MEMORY and is_first and not self.has_results():
                failure = failures.OUT_OF_MEMORY_AT_ONCE
            self.fail(trial, failure, error)
        return failure

    def fail(self, trial: RunningTrial, failure: Failure, error: BaseException) -> None:
        """Ends the attempt with an error as its row of the failure table says, and waits until that is written.

        Raises:
            NothingSucceedsError: if no trial of the experiment succeeds and enough have failed.
        """
        text = failures.describe(error)
        shown = error if error.__traceback__ is not None else None
        name = trial.study.name
        first = None if shown is None else LOG_LINES.first_of(error, f"trial {trial.claim.number} of {name}")
        if first is None:
            log.error("trial %d of %s failed: %s", trial.claim.number, name, text, exc_info=shown)
        else:
            log.error("trial %d of %s failed: the same error again as %s: %s", trial.claim.number, name, first, text)
        failures.release(error)
        self._account(trial, None)
        self._attach_files(trial)
        self._db_thread.run(self._fail, trial, failure, text)
        self._end_if_nothing_succeeds()

    def _fail(self, trial: RunningTrial, failure: Failure, text: str) -> None:
        trial_id, max_retries = trial.trial_id, self._study_file.max_retries
        epochs = self._epochs_of(trial)
        with self._cache.pending.transaction(self._engine, trial_id) as (connection, writes):
            if failure in (failures.OUT_OF_MEMORY, failures.OUT_OF_MEMORY_AT_ONCE):
                name = failures.OUT_OF_MEMORY.name
                has_happened_before = retries.last_error(connection, trial_id) == name
                if not has_happened_before:
                    retries.give_back(connection, trial_id, text, writes, error=name, apart=self._worker)
                elif trial.shared:
                    # Something else of this process may have taken the memory, once more.
                    retries.retry_or_fail(connection, trial_id, text, max_retries, epochs=epochs, writes=writes)
                else:
                    self._end_infeasible(connection, trial, f"infeasible: {text}", writes)
            elif failure is failures.DEVICE_LOST and trial.has_neighbours:
                retries.give_back(connection, trial_id, text, writes, apart=self._worker)
            elif failure in (failures.DEVICE_LOST, failures.MEMORY_LIMIT):
                retries.retry_or_fail(
                    connection,
                    trial_id,
                    text,
                    max_retries,
                    error=failure.name,
                    epochs=epochs,
                    writes=writes,
                    is_charged=False,
                )
            elif failure is failures.PROCESS_STATE and trial.shared:
                retries.give_back(connection, trial_id, text, writes)
            else:
                error = failures.normalise(text)
                retries.retry_or_fail(
                    connection, trial_id, text, max_retries, error=error, epochs=epochs, writes=writes
                )
        self._cache.untrack(trial_id)

    def end_infeasible(self, trial: RunningTrial, error: BaseException) -> None:
        """Ends a trial whose configuration cannot be trained; waits until that is written.

        Raises:
            NothingSucceedsError: if no trial of the experiment succeeds and enough have failed.
        """
        reason = f"infeasible: {error}"
        log.warning("trial %d of %s is %s", trial.claim.number, trial.study.name, reason)
        failures.release(error)
        self._account(trial, None)
        self._attach_files(trial)
        self._db_thread.run(self._write_infeasible, trial, reason)
        self._end_if_nothing_succeeds()

    def _write_infeasible(self, trial: RunningTrial, reason: str) -> None:
        with self._cache.pending.transaction(self._engine, trial.trial_id) as (connection, writes):
            self._end_infeasible(connection, trial, reason, writes)
        self._cache.untrack(trial.trial_id)

    def _end_infeasible(self, connection: sa.Connection, trial: RunningTrial, reason: str, writes: Writes) -> None:
        """PRUNED, violating a constraint so that samplers learn from it; another configuration is drawn instead."""
        claim, draw = trial.claim, trial.draw
        writes.user_attrs[attributes.INFEASIBLE] = {"lineage": claim.lineage, "draw": draw}
        writes.system_attrs[CONSTRAINT] = 1.0
        # Before the next configuration can be claimed: it must not go on from this one's checkpoint.
        try:
            self._end_checkpoints(trial, remove=True)
            is_cleared = True
        except OSError as error:  # the shared address does not answer
            log.warning("no other configuration is drawn for trial %d: %s", claim.number, error)
            is_cleared = False
        if trial.can_be_redrawn and is_cleared:
            retries.replace(connection, claim.trial_id, TrialState.PRUNED, reason, writes, draw=draw + 1)
        else:
            retries.finish_infeasible(connection, claim.trial_id, reason, writes)

    def refuse(self, trial: RunningTrial) -> None:
        """Fails an enqueued trial whose values cannot be used, for good; waits until that is written.

        Its place in the budget is spent, except in grid search, which still trains its cell.
        """
        log.error("trial %d of %s is refused: %s", trial.claim.number, trial.study.name, trial.refusal)
        self._db_thread.run(self._refuse, trial)

    def _refuse(self, trial: RunningTrial) -> None:
        reason = str(trial.refusal)
        with self._cache.pending.transaction(self._engine, trial.trial_id) as (connection, writes):
            writes.user_attrs[attributes.REFUSED] = True
            if trial.can_be_redrawn:
                retries.fail_for_good(connection, trial.trial_id, reason, writes)
            else:
                retries.replace(connection, trial.trial_id, TrialState.FAIL, reason, writes, draw=0)
        self._cache.untrack(trial.trial_id)

    def _end_if_nothing_succeeds(self) -> None:
        if self.any_finished:
            return
        study_ids = self._experiment.study_ids
        if reason := self._db_thread.run(failures.why_nothing_succeeds, self._engine, study_ids):
            raise NothingSucceedsError(reason)

    def has_results(self) -> bool:
        """Whether any trial of the experiment has a result."""
        if self.any_finished:
            return True
        return self._db_thread.run(retries.results_and_failures, self._engine, self._experiment.study_ids)[0] > 0

    def give_back(self, trial: RunningTrial, reason: str, *, apart: bool = False) -> None:
        """Queues the trial again; does not wait. With ``apart`` it is then trained alone."""
        self._account(trial, None)
        self._submit(self._give_back, trial.trial_id, reason, self._worker if apart else None)

    def give_all_back(self, running: Iterable[RunningTrial], reason: str, *, apart: bool = False) -> None:
        """Queues again all that this worker has claimed, and stops the database thread."""
        trials = list(running)
        for trial in trials:
            self._account(trial, None)
        self._submit(self._give_all_back, reason, {trial.trial_id for trial in trials} if apart else set())
        # A database that is away is not waited for long: the sweep of another worker will find what we held.
        self._db_thread.stop(GIVE_BACK_SECONDS)

    def _give_all_back(self, reason: str, apart: set[int]) -> None:
        # This thread works in order: what a claim in progress has claimed is ours by the time that this runs.
        for trial_id in self._cache.leases.trial_ids:
            self._give_back(trial_id, reason, self._worker if trial_id in apart else None)

    def _give_back(self, trial_id: int, reason: str, apart: str | None) -> None:
        with self._cache.pending.transaction(self._engine, trial_id) as (connection, writes):
            retries.give_back(connection, trial_id, reason, writes, apart=apart)
        self._cache.untrack(trial_id)

    def _submit(self, job: Callable[..., None], *arguments: Any) -> None:
        self._db_thread.submit(job, *arguments).add_done_callback(_log_failure)

    def _attach_files(self, trial: RunningTrial) -> None:
        for path in trial.run.artifacts if trial.run is not None else ():
            self._attach(trial, str(path), attach, self._cache, trial.trial_id, path)

    def _attach(self, trial: RunningTrial, name: str, job: Callable[..., str], *arguments: Any) -> None:
        """A result stands without its files: a full disk, or a trainer that has removed one, only costs the file."""
        try:
            artifact_id = job(*arguments, self._artifacts)
        except OSError as error:
            log.warning("%s is not attached to trial %d: %s", name, trial.claim.number, error.strerror or error)
            return
        if self._uploads is not None:
            self._uploads.send_artifact(artifact_id)

    def _epochs_of(self, trial: RunningTrial) -> int:
        """Epochs that the trial's lineage has trained, over all of its seeds."""
        return len(trial.history) * self._study_file.num_seeds

    def _account(self, trial: RunningTrial, reason: str | None) -> None:
        seconds = time.monotonic() - trial.started
        attrs: dict[str, Any] = {
            attributes.SECONDS: round(trial.worker_seconds, 4),
            attributes.WALL_SECONDS: round(seconds, 4),
            attributes.EPOCHS: self._epochs_of(trial),
        }
        if trial.slot_seconds is not None:
            slot, busy = trial.slot_seconds
            attrs |= {attributes.SLOT_SECONDS: round(slot, 4), attributes.BUSY_SECONDS: round(busy, 4)}
        if reason is not None:
            attrs[attributes.REASON] = reason
        for key, value in attrs.items():
            self._cache.set_trial_user_attr(trial.trial_id, key, value)
        earlier = self.trial_seconds
        self.trial_seconds = seconds if math.isinf(earlier) else 0.7 * earlier + 0.3 * seconds


def _log_failure(future: "Future[None]") -> None:
    if (error := future.exception()) is not None:
        log.error("a trial's end could not be written: %s: %s", type(error).__name__, error)
