"""A worker: claim, train, report, prune, tell.

One process, one trainer with one slot or many, trials from all studies of an experiment. The main thread trains; the
recorder talks to the database; the heartbeat shows that we live and sweeps the dead. Everything that a trial has
gone through is either in the database or repeated from its last checkpoint, so the process may die at any point.
"""

import logging
import math
import os
import random
import signal
import threading
import time
from types import FrameType

import psutil
from optuna.trial import TrialState

from hpo.database import attributes, claims
from hpo.errors import ExperimentDeletedError, HPOError
from hpo.experiment.experiment import Experiment, check_trainer
from hpo.files.checkpoints import Checkpoint, CheckpointFolder
from hpo.machine import trained_on
from hpo.search.seeds import derive_seed
from hpo.trainers.metrics import checked_metrics, missing_objective, reported_value, value_epoch
from hpo.trainers.protocol import BuildOptions, Ended, EpochEnd, Event, Evicted, Failed, Metrics, Trainer
from hpo.trainers.registry import TRAINERS
from hpo.worker import process_end
from hpo.worker.claim_queue import Intake
from hpo.worker.db_thread import Recorder
from hpo.worker.exit_codes import EXIT_BUG, EXIT_MEMORY, EXIT_RESTART
from hpo.worker.heartbeat import Heartbeat
from hpo.worker.options import WorkerOptions
from hpo.worker.outcomes import Endings
from hpo.worker.run_context import attach_log, make_run, tidy_folders
from hpo.worker.running_trial import Held
from hpo.worker.stdio import Outputs
from hpo.worker.study_runner import Proposal, StudyDesk
from hpo.worker.trial_cache import WorkerView
from hpo.worker.watchdogs import Duties

log = logging.getLogger("hpo")

AUDIT_SHARE = 0.05


class Interrupted(KeyboardInterrupt):
    """A signal asked the worker to end; no trainer that catches Exception swallows it."""


class Worker:
    """Runs trials of one experiment until it is finished; ``name`` is how the database knows this worker."""

    def __init__(self, experiment: Experiment, options: WorkerOptions) -> None:
        """Raises ExperimentError where the trainer here is not the version that the experiment was made with."""
        check_trainer(experiment.name, experiment.study_file.trainer, experiment.trainer_fields)
        self.experiment = experiment
        self.options = options
        self.name = options.name
        self.study_file = experiment.study_file
        self.trainer: Trainer = self._build_trainer()
        self.view = WorkerView(experiment.storage, auto_refresh=False)
        self.desks = {study.study_id: StudyDesk(self.view, self.study_file, study) for study in experiment.studies}
        self.folders = {
            study.study_id: CheckpointFolder(options.checkpoints, study.key) for study in experiment.studies
        }
        self.held: dict[int, Held] = {}
        self.out_of_memory: int | None = None
        self.outputs = Outputs()
        self.recorder = Recorder(self.view)
        self.intake = Intake(experiment, self.desks, self.recorder, self.name, lambda: len(self.held))
        self.endings = Endings(
            experiment,
            self.view,
            self.recorder,
            self.name,
            options.artifacts,
            trained_on(options.device, options.threads, self.trainer.capacity),
        )
        self.duties = Duties(experiment, options.grace_seconds, options.launcher_pid, lambda: list(self.held))
        self.heartbeat = Heartbeat(
            self.view,
            options.heartbeat_seconds,
            options.grace_seconds,
            [self._sweep, self.duties.watch_epoch],
        )

    # The life of a worker, top to bottom.

    def run(self) -> int:
        """Trains until nothing is left to do and returns the exit code.

        Raises:
            HPOError: where trial after trial fails; held trials are given back.
            ExperimentDeletedError: where somebody deleted the experiment; what this worker has saved of it is removed.
        """
        self._listen_for_signals()
        try:
            while not self.intake.finished or self.held:
                self._fill_slots()
                if self.held:
                    events = self._advance()
                    self._look_around(events)
                    for event in events:
                        self._handle(event)
                elif not self.intake.finished:
                    time.sleep(0.2)
                if self._is_too_big():
                    self._give_all_back("its worker grew past the memory limit")
                    return EXIT_RESTART
                if self.out_of_memory is not None:
                    # What a trainer has leaked is gone with its process only.
                    self._give_all_back("its worker ran out of memory")
                    return self.out_of_memory
            self.recorder.stop()
            return 0
        except Interrupted:
            self._give_all_back("its worker was asked to end")
            return 130
        except Exception as error:
            if isinstance(error, ExperimentDeletedError) or self._is_deleted():
                # Any other error comes of that: something was looked for that is gone.
                self._give_all_back("its experiment was deleted")
                for folder in self.folders.values():
                    folder.remove_all()
                raise ExperimentDeletedError from None
            if isinstance(error, HPOError):
                self._give_all_back(f"its worker ended: {error}")
                raise
            log.exception("this worker ends because of a fault in the service itself")
            self._give_all_back("its worker ended because of a fault in the service itself")
            return EXIT_BUG
        finally:
            self.heartbeat.stop()
            self.outputs.close()

    def _fill_slots(self) -> None:
        """Starts trials in the free slots; asks for the next one early where an ask takes long."""
        free = self.trainer.capacity - len(self.held)
        while free > 0 and (proposal := self.intake.next(free)) is not None:
            free -= self._start(proposal)
        if self.held:
            self.intake.ask_early(self.endings.trial_seconds)

    def _start(self, proposal: Proposal) -> bool:
        claim = proposal.claim
        desk, folder = self.desks[claim.study_id], self.folders[claim.study_id]
        checkpoint = None if claim.fresh else folder.latest(claim.lineage)
        run = make_run(proposal, desk, self.options, checkpoint)
        held = Held(claim, proposal.config, run, desk, folder, time.monotonic(), recorded=self.intake.recorded)
        if checkpoint is not None:
            held.history = list(checkpoint.history)
            for epoch in range(1, len(held.history) + 1):
                if (value := self._reported(held.history[:epoch])) is not None:
                    self.view.set_trial_intermediate_value(claim.trial_id, epoch, value)
        self.view.set_trial_user_attr(claim.trial_id, attributes.START_EPOCH, run.start_epoch)
        if proposal.error is not None:
            self.endings.fail(held, proposal.error)
            return False
        if claim.attempt:
            # Should this trial be what killed its worker, the record has to say that it had begun again.
            self.recorder.write()
            self.recorder.run(lambda: None)
        self.held[claim.trial_id] = held
        if proposal.optuna_trial is not None:
            proposal.optuna_trial.changed = self.recorder.write_soon
        self.trainer.start(claim.trial_id, proposal.config, run)
        return True

    def _advance(self) -> list[Event]:
        self._drop_lost()
        self.duties.epoch_started = time.monotonic()
        try:
            return self.trainer.advance()
        finally:
            self.duties.epoch_started = math.inf
            self.outputs.restore()

    def _look_around(self, events: list[Event]) -> None:
        """Reads the other workers' trials once for all pruning decisions that these events ask for."""
        study_ids = {
            held.claim.study_id
            for event in events
            if isinstance(event, EpochEnd) and not event.finished and event.may_prune
            if (held := self.held.get(event.key)) is not None  # type: ignore[call-overload]
            if not held.audited and held.desk.decides_at(event.epoch)
        }
        if study_ids:
            self.recorder.run(lambda: self._refresh(study_ids))

    def _refresh(self, study_ids: set[int]) -> None:
        for study_id in study_ids:
            self.view.refresh(study_id)

    def _handle(self, event: Event) -> None:
        self._drop_lost()
        held = self.held.get(event.key)  # type: ignore[call-overload]
        if held is None:
            return
        if isinstance(event, EpochEnd):
            self._end_epoch(held, event)
        elif isinstance(event, Ended):
            self._end_training(held, event.metrics)
        elif isinstance(event, Evicted):
            self._release(held)
            self.endings.give_back(held.claim.trial_id, event.reason)
        elif isinstance(event, Failed):
            if isinstance(event.error, MemoryError):
                is_first = held.claim.attempt == 0 and not self.endings.any_shown
                self.out_of_memory = EXIT_MEMORY if is_first else EXIT_RESTART
            self._fail(held, event.error)

    def _end_epoch(self, held: Held, event: EpochEnd) -> None:
        """Report, prune or finish or go on from a checkpoint."""
        trial_id = held.claim.trial_id
        try:
            held.history.append(checked_metrics(event.metrics, self.study_file.metric))
        except TypeError as error:
            self._fail(held, error)
            return
        process_end.Progress.made = True
        value = self._reported(held.history)
        if value is not None:
            self.view.set_trial_intermediate_value(trial_id, event.epoch, value)
        if value is not None and not math.isfinite(value):
            self._finish(held, TrialState.PRUNED, f"{self.study_file.metric} is {value} at epoch {event.epoch}")
        elif event.finished:
            self._end_training(held)
        elif value is not None and event.may_prune and self._should_prune(held, event.epoch):
            self._finish(held, TrialState.PRUNED, f"{self.study_file.pruner.name} at epoch {event.epoch}")
        else:
            try:
                if event.snapshot is not None and self._is_recorded(held):
                    held.folder.save(held.claim.lineage, Checkpoint(event.epoch, event.snapshot(), held.history))
            except TypeError as error:
                self._fail(held, error)
            self.recorder.write()

    def _end_training(self, held: Held, final: Metrics | None = None) -> None:
        """The trainer has run to its end: the trial is complete if it returned, or reported, a finite value."""
        objective = self.study_file.metric
        if final is not None:
            held.final = checked_metrics(final, objective)
            if not math.isfinite(value := held.final[objective]):
                self._finish(held, TrialState.PRUNED, f"{objective} is {value}")
            else:
                self._finish(held, TrialState.COMPLETE)
            return
        chosen = value_epoch(held.history, objective, self.study_file.value, self.study_file.direction)
        if not held.history:
            self._fail(held, ValueError("the trainer ended without yielding metrics of an epoch"))
        elif chosen is None:
            self._fail(held, missing_objective(held.history, objective))
        elif not math.isfinite(held.history[chosen][objective]):
            self._finish(held, TrialState.PRUNED, f"{objective} was never a finite number")
        else:
            self._finish(held, TrialState.COMPLETE)

    def _reported(self, history: list[dict[str, float]]) -> float | None:
        """What the last epoch of ``history`` reports; None if it is an epoch without a report."""
        nan_is_no_report = TRAINERS[self.study_file.trainer].nan_is_no_report
        return reported_value(history, self.study_file.metric, nan_is_no_report=nan_is_no_report)

    def _is_recorded(self, held: Held) -> bool:
        """Waits until the trial's configuration is on record; False where the trial was lost meanwhile.

        Without it there must be no checkpoint: whoever tried the trial again would draw another configuration, and go
        on from what this one had trained.
        """
        if held.recorded is not None:
            held.recorded.result()
            held.recorded = None
        return not self.view.is_lost(held.claim.trial_id)

    def _should_prune(self, held: Held, epoch: int) -> bool:
        if held.audited or not held.desk.decides_at(epoch):
            return False
        trial_id = held.claim.trial_id
        if not held.desk.should_prune(trial_id):
            return False
        if self.study_file.audit:
            # Drawn from the lineage, so that a retry is drawn alike.
            draw = random.Random(derive_seed(self.study_file.seed, held.desk.handle.name, "audit", held.claim.lineage))
            if draw.random() < AUDIT_SHARE:
                held.audited = True
                self.view.set_trial_user_attr(trial_id, attributes.AUDITED, epoch)
                return False
        return True

    def _finish(self, held: Held, state: TrialState, reason: str | None = None) -> None:
        self.trainer.stop(held.claim.trial_id)
        attach_log(held.run)
        job = self.endings.show(held, state, reason)
        self._release(held)
        if self.study_file.budget.epochs is None:
            # The slot waits for a claim, and nothing waits for the tell: the view shows the result already. Only where
            # the budget is in epochs does a claim depend on what this trial has spent.
            self.intake.ask()
        self.endings.tell(job)
        self.recorder.submit(lambda: tidy_folders(self.view, held.desk, self.options))

    def _fail(self, held: Held, error: BaseException) -> None:
        self.trainer.stop(held.claim.trial_id)
        attach_log(held.run)
        self._release(held)
        self.endings.fail(held, error)

    def _drop_lost(self) -> None:
        """Before and after an epoch: who was stopped, or had no database for long, asks which trials are still his."""
        if self.heartbeat.is_doubtful:
            self.heartbeat.beat()
        for held in list(self.held.values()):
            if self.view.is_lost(held.claim.trial_id):
                self._drop(held)

    def _drop(self, held: Held) -> None:
        """Somebody else has the trial now, or deleted it: nothing of it is ours to write any more."""
        name = held.desk.handle.name
        log.warning("trial %d of %s was given to another worker, or deleted; it is dropped", held.claim.number, name)
        self.trainer.stop(held.claim.trial_id)
        self._release(held)
        self.view.disown(held.claim.trial_id)

    def _release(self, held: Held) -> None:
        del self.held[held.claim.trial_id]
        self.intake.slot_is_free()

    # The end.

    def _give_all_back(self, reason: str) -> None:
        self.endings.give_all_back(self.held.values(), reason)

    def _is_deleted(self) -> bool:
        try:
            return claims.are_deleted(self.experiment.storage.engine, self.experiment.study_ids)
        except Exception:
            return False

    def _listen_for_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._on_signal)
            signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, lambda *_: os._exit(130))
        raise Interrupted

    def _sweep(self) -> None:
        if self.heartbeat.is_settled:
            self.duties.sweep()

    def _is_too_big(self) -> bool:
        limit = self.options.memory_limit_mb
        return limit is not None and psutil.Process().memory_info().rss > limit * 2**20

    def _build_trainer(self) -> Trainer:
        entry = TRAINERS[self.study_file.trainer]
        slots = self.options.slots or self.study_file.slots
        if entry.max_slots is not None and slots is not None and slots > entry.max_slots:
            log.info("the trainer %s trains %d at a time; slots = %d is ignored", entry.name, entry.max_slots, slots)
            slots = entry.max_slots
        return entry.build(
            BuildOptions(
                device=self.options.device,
                slots=slots,
                threads=self.options.threads,
                configs=tuple(self.study_file.example_configs()),
                data_dir=self.options.data_dir,
                download=self.options.download,
                program=self.study_file.program_options(),
            )
        )
