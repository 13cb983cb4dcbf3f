"""A worker: claim, train, report, prune, tell.

One process, one trainer with one slot or many, trials from all studies of an experiment. The main thread trains; the
database thread claims, writes and reads; the heartbeat thread shows that the worker lives and sweeps the dead.
Everything that a trial has gone through is either in the database or repeated from its last checkpoint, so the process
may die at any point. What follows an error is looked up in :mod:`hpo.worker.failures`.
"""

import contextlib
import logging
import math
import time

from optuna.trial import TrialState

from hpo.database import attributes, claims
from hpo.database.retrying import persistently
from hpo.errors import ExperimentDeletedError, HPOError, UsageError
from hpo.experiment.experiment import Experiment, check_trainer
from hpo.experiment.imports import imported_trials
from hpo.experiment.trainer_version import trainer_version
from hpo.files.checkpoints import CheckpointFolder
from hpo.machine import trained_on
from hpo.trainers.errors import TrainerError
from hpo.trainers.metrics import checked_metrics, reported_value
from hpo.trainers.protocol import Ended, EpochEnd, Event, Evicted, Failed, Metrics, Trainer
from hpo.trainers.registry import TRAINERS
from hpo.worker import failures, process_end
from hpo.worker.build import build_trainer, size_mb
from hpo.worker.claim_queue import ClaimQueue
from hpo.worker.db_thread import DatabaseThread
from hpo.worker.exit_codes import EXIT_BUG, EXIT_RESTART
from hpo.worker.heartbeat import Heartbeat
from hpo.worker.limits import Limits
from hpo.worker.log_lines import LOG_LINES
from hpo.worker.options import WorkerOptions
from hpo.worker.outcomes import Outcomes
from hpo.worker.report import Reporter
from hpo.worker.run_context import attach_log, make_run, tidy_folders
from hpo.worker.running_trial import RunningTrial
from hpo.worker.saving import CheckpointSaver
from hpo.worker.signals import Interrupted, Steered, raising_interrupted, steerable
from hpo.worker.slot_time import SlotTime
from hpo.worker.stdio import StdioGuard
from hpo.worker.steering import SteeringWatch, wait_while_paused
from hpo.worker.study_runner import StudyRunner
from hpo.worker.training_end import end_of_training
from hpo.worker.trial_cache import TrialCache
from hpo.worker.uploads import make_uploads
from hpo.worker.watchdogs import Watchdogs

log = logging.getLogger("hpo")


class Worker:
    """Trains trials of one experiment until it is finished; ``name`` identifies this worker in the database."""

    def __init__(self, experiment: Experiment, options: WorkerOptions) -> None:
        """Builds the trainer and starts the threads.

        Raises:
            ExperimentError: if the trainer here is not the version that the experiment was made with, or if the
                process has passed its memory limit before its first trial.
        """
        check_trainer(experiment.name, experiment.trainer, experiment.trainer_fields, experiment.content)
        source = trainer_version(experiment.trainer, experiment.content, with_commit=False).source
        self.experiment = experiment
        self.options = options
        self.name = options.name
        self.study_file = experiment.study_file
        self.trainer_entry = TRAINERS[self.study_file.trainer]
        self.trainer: Trainer = build_trainer(self.trainer_entry, self.study_file, options)
        self.cache = TrialCache(experiment.storage, auto_refresh=False)
        imported = persistently(lambda: imported_trials(experiment))
        self.runners = {
            study.study_id: StudyRunner(self.cache, self.study_file, study, imported.get(study.study_id, ()))
            for study in experiment.studies
        }
        self.folders = {
            study.study_id: CheckpointFolder(options.checkpoints, study.key) for study in experiment.studies
        }
        self.running: dict[int, RunningTrial] = {}
        self.num_started = 0
        self.replacement: tuple[int, str] | None = None  # exit code and reason, once the process has to be replaced
        self._charged_until = time.monotonic()
        self.has_slots = self.trainer.capacity > 1
        self.slot_time = SlotTime(lambda: getattr(self.trainer, "host_seconds", 0.0))
        self.stdio = StdioGuard()
        LOG_LINES.running = self._names_of_running
        self.db_thread = DatabaseThread(self.cache)
        self.limits = Limits(self.study_file, experiment.storage.engine, self.db_thread)
        self.queue = ClaimQueue(
            experiment,
            self.runners,
            self.db_thread,
            self.name,
            lambda: list(self.running.values()),
            self.trainer.capacity,
        )
        self.uploads = make_uploads(experiment, options, lambda: list(self.running.values()))
        self.saver = CheckpointSaver(
            self.folders,
            self.cache.leases,
            self.study_file.checkpoint_seconds,
            None if self.uploads is None else self.uploads.health,
        )
        threads = getattr(self.trainer, "threads", options.threads)  # of the classifier, which measures how many pay
        self.outcomes = Outcomes(
            experiment,
            self.cache,
            self.db_thread,
            self.name,
            self.folders,
            options.artifact_root,
            {**trained_on(options.device, threads, self.trainer.capacity), "source": source},
            self.saver.forget,
            self.uploads,
        )
        self.watchdogs = Watchdogs(
            experiment, self.name, options.grace_seconds, options.launcher_pid, lambda: list(self.running)
        )
        self.steering = SteeringWatch(
            experiment.storage.engine, experiment.study_ids, self.trainer.capacity, lambda: list(self.running)
        )
        self.reporter = Reporter(experiment, options, self.trainer.capacity)
        self.heartbeat = Heartbeat(
            self.cache,
            options.heartbeat_seconds,
            options.grace_seconds,
            [self._sweep, self.watchdogs.watch_epoch, self._report],
            counts_time=self.study_file.budget.time is not None,
            deadlines=self.limits.deadlines if self.study_file.budget.counts_gpus else None,
            look=self.steering.look,
        )

    # The life of a worker, top to bottom.

    def run(self) -> int:
        """Trains until nothing is left to do and returns the exit code, see :mod:`hpo.worker.exit_codes`.

        Raises:
            HPOError: if nothing succeeds; running trials are given back.
            ExperimentDeletedError: if somebody deleted the experiment; this worker's files of it are removed.
        """
        why, is_asked = "ended", False
        with raising_interrupted():
            try:
                self._report()
                code = self._train()
                why = self.steering.reason if self.steering.halt else self.replacement[1] if self.replacement else why
                return code
            except Interrupted:
                why, is_asked = "its worker was asked to end", True
                self._give_all_back(why)
                return 130
            except Exception as error:
                return self._end_by(error)
            except BaseException:
                # A trainer's own KeyboardInterrupt, or one that came while the handlers were being set.
                is_asked = True
                self._give_all_back("its worker was interrupted")
                raise
            finally:
                self.heartbeat.stop()
                if self.uploads is not None:
                    self.uploads.end(is_asked=is_asked)
                self.stdio.close()
                self.reporter.end(why)

    def _train(self) -> int:
        while not self.queue.finished or self.running:
            self._prune_ordered()
            if self._must_halt():
                self._give_all_back(self.steering.reason)
                return self.steering.exit_code
            self._fill_slots()
            if self.running:
                events = self._advance()
                self._refresh_for(events)
                neighbours = len(self.running) > 1
                for event in events:
                    self._handle(event, neighbours)
                for trial, error in self.saver.errors():
                    if trial.trial_id in self.running:
                        self._fail(trial, error)
            elif not self.queue.finished:
                time.sleep(0.2)
            self._check_size()
            if self.replacement is not None:
                # What a trainer has leaked, or a device that is broken, is gone with its process only.
                code, reason = self.replacement
                self._give_all_back(reason)
                return code
        self.db_thread.stop()
        return 0

    def _end_by(self, error: Exception) -> int:
        """Gives everything back after an error; raises it again if it is an expected one."""
        if isinstance(error, ExperimentDeletedError) or self._is_deleted():
            # Any other error comes of that: something was looked for that is gone.
            self._give_all_back("its experiment was deleted")
            if self.uploads is not None:
                self.uploads.drop()
            for folder in self.folders.values():
                with contextlib.suppress(OSError):  # an address that does not answer keeps what it has
                    folder.remove_all()
            raise ExperimentDeletedError from None
        if isinstance(error, HPOError):
            self._give_all_back(f"its worker ended: {error}")
            raise error
        log.exception("this worker ends because of a fault in the service itself")
        self._give_all_back("its worker ended because of a fault in the service itself")
        return EXIT_BUG

    def _fill_slots(self) -> None:
        """Starts trials in the free slots; claims the next one ahead of time if claiming is slow."""
        free = 0 if self.steering.halt else self.trainer.capacity - len(self.running)
        while free > 0 and (trial := self.queue.take(free)) is not None:
            free -= self._start(trial)
        has_next = bool(self.running) and not self.steering.halt
        if has_next and not self.study_file.stop_at_target and self.study_file.budget.time is None:
            self.queue.prefetch_if_slow(self.outcomes.trial_seconds)

    def _start(self, trial: RunningTrial) -> bool:
        """Starts a prepared trial; returns False if it ended instead and its slot is still free."""
        if trial.refusal is not None:
            self.outcomes.refuse(trial)
            return False
        claim, runner, folder = trial.claim, self.runners[trial.claim.study_id], self.folders[trial.claim.study_id]
        checkpoint = None if trial.is_new else folder.latest(claim.lineage)
        trial.run = make_run(trial, runner, self.options, checkpoint)
        trial.recorded = self.queue.recorded
        if checkpoint is not None:
            trial.history = list(checkpoint.history)
            for epoch in range(1, len(trial.history) + 1):
                if (value := self._reported(trial.history[:epoch])) is not None:
                    self.cache.set_trial_intermediate_value(claim.trial_id, epoch, value)
        self.cache.set_trial_user_attr(claim.trial_id, attributes.START_EPOCH, trial.run.start_epoch)
        if self.options.log is not None:
            self.cache.set_trial_user_attr(claim.trial_id, attributes.LOG, self.options.log)
        if trial.error is not None:
            self._end_by_error(trial, trial.error)
            return False
        # If this trial ends its process, the record must show that it had begun: else it counts as claimed ahead.
        begun = self.db_thread.write()
        if claim.attempt:
            begun.exception()
        trial.shared = self.num_started > 0
        for other in self.running.values():
            other.shared = True
        self.num_started += 1
        self._charge_time()
        trial.started = time.monotonic()
        after = f" again after epoch {trial.run.start_epoch}" if trial.run.start_epoch else ""
        log.info("trial %d of %s begins%s", claim.number, trial.study.name, after)
        self.slot_time.start(claim.trial_id)
        self.running[claim.trial_id] = trial
        if claim.deadline is not None and self.study_file.budget.counts_gpus:
            self.limits.deadlines[claim.study_id] = claim.deadline
        if trial.optuna_trial is not None:
            trial.optuna_trial.changed = self.db_thread.write_soon
        self.trainer.start(claim.trial_id, trial.config, trial.run)
        return True

    def _advance(self) -> list[Event]:
        self._drop_lost()
        self.watchdogs.epoch_started = time.monotonic()
        try:
            with steerable(), self.slot_time.computing():
                return self.trainer.advance()
        except Steered:
            return []  # the trial goes on from its checkpoint, or is pruned with what it has
        finally:
            self.watchdogs.epoch_started = math.inf
            self.stdio.restore()
            self._charge_time()

    def _charge_time(self) -> None:
        """Shares the time since the last call among the running trials: their sum is never more than the clock's."""
        now = time.monotonic()
        if self.running:
            share = (now - self._charged_until) / len(self.running)
            for trial in self.running.values():
                trial.worker_seconds += share
        self._charged_until = now

    def _refresh_for(self, events: list[Event]) -> None:
        """Reads the other workers' trials once for all pruning decisions that these events ask for."""
        study_ids = {
            trial.claim.study_id
            for event in events
            if isinstance(event, EpochEnd) and not event.finished and event.may_prune
            if (trial := self.running.get(event.key)) is not None  # type: ignore[call-overload]
            if not trial.audited and self.runners[trial.claim.study_id].decides_at(event.epoch)
        }
        if study_ids:
            self.db_thread.run(self._refresh, study_ids)

    def _refresh(self, study_ids: set[int]) -> None:
        for study_id in study_ids:
            self.cache.refresh(study_id)

    def _handle(self, event: Event, has_neighbours: bool) -> None:
        self._drop_lost()
        trial = self.running.get(event.key)  # type: ignore[call-overload]
        if trial is None:
            return
        trial.has_neighbours = has_neighbours
        if isinstance(event, EpochEnd):
            self._end_epoch(trial, event)
        elif isinstance(event, Ended):
            self._end_training(trial, event.metrics)
        elif isinstance(event, Evicted):
            self._release(trial)
            self.saver.flush([trial.trial_id])
            self.outcomes.give_back(trial, event.reason)
        elif isinstance(event, Failed):
            if isinstance(event.error, TrainerError):
                raise UsageError(str(event.error))  # the trainer's own mistake, which every trial would repeat
            self._fail(trial, event.error)

    def _end_epoch(self, trial: RunningTrial, event: EpochEnd) -> None:
        """Report, prune or finish or go on from a checkpoint."""
        try:
            trial.history.append(checked_metrics(event.metrics, self.study_file.metric))
        except TypeError as error:
            self._fail(trial, error)
            return
        process_end.Progress.made = True
        value = self._reported(trial.history)
        if value is not None:
            self.cache.set_trial_intermediate_value(trial.trial_id, event.epoch, value)
        if value is not None and not math.isfinite(value):
            self._finish(trial, TrialState.PRUNED, f"{self.study_file.metric} is {value} at epoch {event.epoch}")
        elif event.finished:
            self._end_training(trial)
        elif (
            value is not None
            and event.may_prune
            and self.runners[trial.claim.study_id].should_prune(trial, event.epoch, self.trainer_entry)
        ):
            reason = f"{self.study_file.pruner.name} at epoch {event.epoch}"
            if self.runners[trial.claim.study_id].stops_early:
                # It stopped for lack of progress of its own, which says nothing against it.
                self._finish(trial, TrialState.COMPLETE, f"no more progress: {reason}")
            else:
                self._finish(trial, TrialState.PRUNED, reason)
        elif self.limits.is_out_of_time(trial):
            self._end_training(trial, reason=f"stopped after trial_timeout_seconds, at epoch {event.epoch}")
        else:
            if (unsaved := self.saver.offer(trial, event, len(self.running))) is not None:
                self._fail(trial, unsaved)
            elif self.limits.is_time_over(trial):
                self._leave(trial)
                self.saver.flush([trial.trial_id])
                self.outcomes.give_back(trial, f"the time of the search is over, at epoch {event.epoch}")
            elif not self.limits.has_epochs(trial, event.epoch):
                self._leave(trial)
                self.saver.flush([trial.trial_id])
                self.outcomes.give_back(trial, f"the epochs of the search are given out, at epoch {event.epoch}")
            self.db_thread.write()

    def _end_training(self, trial: RunningTrial, final: Metrics | None = None, reason: str | None = None) -> None:
        """The trainer has run to its end, or is ended before it for ``reason``."""
        end = end_of_training(self.study_file, trial, final)
        if isinstance(end, Exception):
            self._fail(trial, end)
            return
        state, why = end
        self._finish(trial, state, reason if state is TrialState.COMPLETE else why)

    def _reported(self, history: list[dict[str, float]]) -> float | None:
        """What the last epoch of ``history`` reports; None if it is an epoch without a report."""
        nan_is_no_report = self.trainer_entry.nan_is_no_report
        return reported_value(history, self.study_file.metric, nan_is_no_report=nan_is_no_report)

    # What persons order.

    def _must_halt(self) -> bool:
        """Whether this worker has to end because the experiment is stopped or paused."""
        halt = self.steering.halt
        return halt is not None and not (halt.finish_running and self.running)

    def _prune_ordered(self) -> None:
        for trial_id, reason in self.steering.prunes.items():
            if (trial := self.running.get(trial_id)) is not None and not self.cache.leases.is_lost(trial_id):
                log.info("trial %d of %s was %s", trial.claim.number, trial.study.name, reason)
                self._finish(trial, TrialState.PRUNED, reason)

    def _names_of_running(self) -> list[str]:
        """Such as ``tpe/0 #17``; also asked by other threads, while trials come and go."""
        return [f"{t.study.sampler.label}/{t.study.repeat} #{t.claim.number}" for t in list(self.running.values())]

    def _report(self) -> None:
        self.reporter.report("trains" if self.running else "waits")

    # How trials leave their slots.

    def _finish(self, trial: RunningTrial, state: TrialState, reason: str | None = None) -> None:
        self._leave(trial)
        self.outcomes.conclude(trial, state, reason)
        budget = self.study_file.budget
        if budget.epochs is None and budget.time is None and not self.study_file.stop_at_target:
            # The slot waits for a claim, and nothing waits for the result, which the cache shows already. A claim
            # depends on this trial only if the budget is in epochs or in time, or if it may have reached the target.
            self.queue.prefetch()
        self.outcomes.finish(trial)
        self.db_thread.submit(
            tidy_folders,
            self.cache,
            self.runners[trial.claim.study_id],
            self.options,
            trial.claim.lineage,
            self.uploads,
        )

    def _fail(self, trial: RunningTrial, error: BaseException) -> None:
        self._leave(trial)
        self._end_by_error(trial, error)

    def _end_by_error(self, trial: RunningTrial, error: BaseException) -> None:
        """Ends a trial that raised an error as the failure table says; notes if the worker has to end."""
        failure = self.outcomes.end_by_error(trial, error)
        if failure.ends_worker and self.replacement is None:
            self.replacement = failure.exit_code, f"its worker is replaced: {failure.name}"

    def _drop_lost(self) -> None:
        """Drops the trials that another worker has; asks the database first if the last heartbeat is old."""
        if self.heartbeat.lease_may_be_lost:
            self.heartbeat.beat()
        for trial in list(self.running.values()):
            if self.cache.leases.is_lost(trial.trial_id):
                number, name = trial.claim.number, trial.study.name
                log.warning("trial %d of %s was given to another worker, or deleted; it is dropped", number, name)
                self._leave(trial)
                self.cache.untrack(trial.trial_id)

    def _leave(self, trial: RunningTrial) -> None:
        self.trainer.stop(trial.trial_id)
        if trial.run is not None:
            attach_log(trial.run)
        self._release(trial)

    def _release(self, trial: RunningTrial) -> None:
        self._charge_time()
        del self.running[trial.trial_id]
        slot_seconds = self.slot_time.end(trial.trial_id)
        trial.slot_seconds = slot_seconds if self.has_slots else None
        self.queue.slot_is_free()

    # The end.

    def _give_all_back(self, reason: str) -> None:
        """Queues everything again. After a device broke under several trials, each is then trained alone."""
        self._charge_time()
        if close := getattr(self.trainer, "close", None):
            close()  # before another worker may begin the trial: a program must not run twice in one folder
        self.saver.flush(list(self.running))
        apart = self.replacement is not None and self.replacement[0] == failures.DEVICE_LOST.exit_code
        self.outcomes.give_all_back(self.running.values(), reason, apart=apart)

    def _is_deleted(self) -> bool:
        try:
            return claims.are_deleted(self.experiment.storage.engine, self.experiment.study_ids)
        except Exception:
            return False

    def _sweep(self) -> None:
        if self.heartbeat.may_declare_others_dead:
            self.watchdogs.sweep()

    def _check_size(self) -> None:
        """Replaces a worker that has grown past its limit, in time: the trials go on from their checkpoints."""
        limit = self.options.memory_limit_mb
        if limit is None or self.replacement is not None or size_mb() <= limit:
            return
        self.replacement = EXIT_RESTART, "its worker grew past the memory limit"
        if len(self.running) == 1 and self.num_started == 1:
            # Nothing else has run here: a trial that grows past the limit at the same place again cannot go on.
            trial = next(iter(self.running.values()))
            self._leave(trial)
            error = MemoryError(f"it grew past --memory-limit-mb {limit} alone in its process")
            self.outcomes.fail(trial, failures.MEMORY_LIMIT, error)


def run_worker(experiment: Experiment, options: WorkerOptions) -> int:
    """Runs a worker of the experiment; waits first, without a device, while the experiment is paused.

    Returns the exit code. Raises: as :class:`Worker` and :meth:`Worker.run`.
    """
    if (code := wait_while_paused(experiment, options)) is not None:
        return code
    return Worker(experiment, options).run()
