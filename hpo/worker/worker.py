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
from collections.abc import Sequence

from optuna.trial import TrialState

from hpo.database import attributes, claims
from hpo.database.retrying import persistently
from hpo.errors import ExperimentDeletedError, HPOError, UsageError
from hpo.experiment.experiment import Experiment, check_trainer
from hpo.experiment.imports import imported_space, imported_trials
from hpo.experiment.trainer_version import trainer_version
from hpo.files.checkpoints import CheckpointFolder
from hpo.machine import trained_on
from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import Ended, EpochEnd, Event, Evicted, Failed, Trainer, WorksAhead
from hpo.trainers.registry import TRAINERS
from hpo.worker import failures
from hpo.worker.best_models import BestModels
from hpo.worker.build import build_trainer
from hpo.worker.claim_queue import ClaimQueue
from hpo.worker.db_thread import DatabaseThread
from hpo.worker.epoch_end import EpochEnds
from hpo.worker.exit_codes import EXIT_BUG
from hpo.worker.heartbeat import Heartbeat
from hpo.worker.limits import Limits
from hpo.worker.log_lines import LOG_LINES
from hpo.worker.options import WorkerOptions
from hpo.worker.outcomes import Outcomes
from hpo.worker.report import Reporter
from hpo.worker.run_context import make_run
from hpo.worker.running_trial import RunningTrial
from hpo.worker.saving import CheckpointSaver
from hpo.worker.signals import Interrupted, Steered, raising_interrupted, steerable
from hpo.worker.slots import Slots
from hpo.worker.stdio import StdioGuard
from hpo.worker.steering import SteeringWatch, wait_while_paused
from hpo.worker.study_runner import StudyRunner
from hpo.worker.trial_cache import TrialCache
from hpo.worker.trial_ends import TrialEnds
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
        self.trainer: Trainer = build_trainer(TRAINERS[self.study_file.trainer], self.study_file, options)
        self.cache = TrialCache(experiment.storage, auto_refresh=False)
        imported = persistently(lambda: imported_trials(experiment))
        space = persistently(lambda: imported_space(experiment)) if imported else None
        self.runners = {
            study.study_id: StudyRunner(self.cache, self.study_file, study, imported.get(study.study_id, ()), space)
            for study in experiment.studies
        }
        self.folders = {
            study.study_id: CheckpointFolder(options.checkpoints, study.key) for study in experiment.studies
        }
        self.slots = Slots(self.trainer)
        self.running = self.slots.running
        self.stdio = StdioGuard()
        LOG_LINES.running = self.slots.names
        self.db_thread = DatabaseThread(self.cache)
        self.limits = Limits(self.study_file, experiment.storage.engine, self.db_thread)
        self.queue = ClaimQueue(
            experiment,
            self.runners,
            self.db_thread,
            self.name,
            lambda: list(self.running.values()),
            self.trainer.capacity,
            self._prepare_ahead,
        )
        if isinstance(self.trainer, WorksAhead):
            self.trainer.is_wanted = self._is_wanted
        self.uploads = make_uploads(experiment, options, lambda: list(self.running.values()))
        self.saver = CheckpointSaver(
            self.folders,
            self.cache.leases,
            self.study_file.checkpoint_seconds,
            None if self.uploads is None else self.uploads.health,
        )
        threads = getattr(self.trainer, "threads", options.threads)  # of the classifier, which measures how many pay
        slots = getattr(self.trainer, "slots", self.trainer.capacity)  # trainings at once, if a trial is several
        self.outcomes = Outcomes(
            experiment,
            self.cache,
            self.db_thread,
            self.name,
            self.folders,
            options.artifact_root,
            {**trained_on(options.device, threads, slots), "source": source},
            self.saver.forget,
            self.uploads,
        )
        models = BestModels(self.study_file, self.cache)
        self.epoch_ends = EpochEnds(
            experiment, self.cache, self.db_thread, self.runners, self.limits, self.saver, models
        )
        held = (self.cache, self.db_thread, self.runners, self.slots, self.queue, self.saver, self.outcomes, models)
        self.ends = TrialEnds(experiment, options, *held, self.uploads)
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
                if self.steering.halt:
                    why = self.steering.reason
                elif self.ends.replacement:
                    why = self.ends.replacement[1]
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
            if self.steering.must_halt(has_running=bool(self.running)):
                self._give_all_back(self.steering.reason)
                return self.steering.exit_code
            self._fill_slots()
            if self.running:
                events = self._advance()
                self.epoch_ends.read_others(events, self.running)
                neighbours = len(self.running) > 1
                for event in events:
                    self._handle(event, neighbours)
                for trial, error in self.saver.errors():
                    if trial.trial_id in self.running:
                        self.ends.fail(trial, error)
            elif not self.queue.finished:
                time.sleep(0.2)
            self.ends.check_size()
            if self.ends.replacement is not None:
                # What a trainer has leaked, or a device that is broken, is gone with its process only.
                code, reason = self.ends.replacement
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
        """Starts trials in the free slots; claims the next one ahead of time if claiming is slow.

        While other slots train, nobody waits for a claim: the trainer comes back once it is there.
        """
        free = 0 if self.steering.halt else self.slots.num_free
        while free > 0 and (trial := self.queue.take(free, wait=not self.running)) is not None:
            free -= self._start(trial)
        has_next = bool(self.running) and not self.steering.halt
        if has_next and not self.study_file.stop_at_target and self.study_file.budget.time is None:
            self.queue.prefetch_if_slow(self.outcomes.trial_seconds)

    def _is_wanted(self) -> bool:
        """Whether the trainer is to come back before an epoch has ended: trials wait for free slots."""
        return self.queue.is_ready() and self.slots.num_free > 0 and not self.steering.halt

    def _prepare_ahead(self, trial: RunningTrial) -> None:
        """Has a trainer that can do so make a new trial's weights on a thread of its own."""
        if isinstance(self.trainer, WorksAhead) and trial.is_new and trial.error is None and trial.refusal is None:
            self.trainer.prepare(trial.config, trial.seed)

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
                if (value := self.epoch_ends.reported(trial.history[:epoch])) is not None:
                    self.cache.set_trial_intermediate_value(claim.trial_id, epoch, value)
        trained = trial.run.start_epoch * self.study_file.num_seeds
        self.cache.set_trial_user_attr(claim.trial_id, attributes.START_EPOCH, trained)
        if self.options.log is not None:
            self.cache.set_trial_user_attr(claim.trial_id, attributes.LOG, self.options.log)
        if trial.error is not None:
            self.ends.end_by_error(trial, trial.error)
            return False
        # If this trial ends its process, the record must show that it had begun: else it counts as claimed ahead.
        begun = self.db_thread.write()
        if claim.attempt:
            begun.exception()
        if claim.deadline is not None and self.study_file.budget.counts_gpus:
            self.limits.deadlines[claim.study_id] = claim.deadline
        if trial.optuna_trial is not None:
            trial.optuna_trial.changed = self.db_thread.write_soon
        self.slots.put(trial)
        return True

    def _advance(self) -> list[Event]:
        self._drop_lost(list(self.running.values()))
        self.watchdogs.epoch_started = time.monotonic()
        try:
            with steerable(), self.slots.time.computing():
                return self.trainer.advance()
        except Steered:
            return []  # the trial goes on from its checkpoint, or is pruned with what it has
        finally:
            self.watchdogs.epoch_started = math.inf
            self.stdio.restore()
            self.slots.charge_time()

    def _handle(self, event: Event, has_neighbours: bool) -> None:
        trial: RunningTrial | None = self.running.get(event.key)  # type: ignore[call-overload]
        if trial is not None:
            self._drop_lost([trial])
        if trial is None or trial.trial_id not in self.running:
            return
        trial.has_neighbours = has_neighbours
        if isinstance(event, EpochEnd):
            self.ends.apply(trial, self.epoch_ends.judge(trial, event, len(self.running)))
        elif isinstance(event, Ended):
            self.ends.apply(trial, self.epoch_ends.end_training(trial, event.metrics))
        elif isinstance(event, Evicted):
            self.ends.evicted(trial, event.reason)
        elif isinstance(event, Failed):
            if isinstance(event.error, TrainerError):
                raise UsageError(str(event.error))  # the trainer's own mistake, which every trial would repeat
            self.ends.fail(trial, event.error)

    def _drop_lost(self, trials: Sequence[RunningTrial]) -> None:
        """Drops those that another worker has; asks the database first if the last heartbeat is old."""
        if self.heartbeat.lease_may_be_lost:
            self.heartbeat.beat()
        self.ends.drop_lost(trials)

    # What persons order.

    def _prune_ordered(self) -> None:
        for trial_id, reason in self.steering.prunes.items():
            if (trial := self.running.get(trial_id)) is not None and not self.cache.leases.is_lost(trial_id):
                log.info("trial %d of %s was %s", trial.claim.number, trial.study.name, reason)
                self.ends.finish(trial, TrialState.PRUNED, reason)

    def _report(self) -> None:
        self.reporter.report("trains" if self.running else "waits")

    # The end.

    def _give_all_back(self, reason: str) -> None:
        """Queues everything again. After a device broke under several trials, each is then trained alone."""
        self.slots.charge_time()
        if close := getattr(self.trainer, "close", None):
            close()  # before another worker may begin the trial: a program must not run twice in one folder
        self.saver.flush(list(self.running))
        apart = self.ends.replacement is not None and self.ends.replacement[0] == failures.DEVICE_LOST.exit_code
        self.outcomes.give_all_back(self.running.values(), reason, apart=apart)

    def _is_deleted(self) -> bool:
        try:
            return claims.are_deleted(self.experiment.storage.engine, self.experiment.study_ids)
        except Exception:
            return False

    def _sweep(self) -> None:
        if self.heartbeat.may_declare_others_dead:
            self.watchdogs.sweep()


def run_worker(experiment: Experiment, options: WorkerOptions) -> int:
    """Runs a worker of the experiment; waits first, without a device, while the experiment is paused.

    Returns the exit code. Raises: as :class:`Worker` and :meth:`Worker.run`.
    """
    if (code := wait_while_paused(experiment, options)) is not None:
        return code
    return Worker(experiment, options).run()
