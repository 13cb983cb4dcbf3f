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
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from optuna.trial import TrialState

from hpo import attributes, ledger, retries
from hpo.artifacts import attach, attach_text, epochs_table
from hpo.checkpoint import Checkpoint, CheckpointFolder
from hpo.errors import ExperimentError, HPOError
from hpo.hardware import trained_on
from hpo.heartbeat import Heartbeat
from hpo.ledger import Claim
from hpo.proposal import Proposal, StudyDesk
from hpo.recorder import Recorder
from hpo.seeds import derive_seed
from hpo.spec import SamplerSpec, StudyFile
from hpo.study import Experiment
from hpo.view import WorkerView
from trainers.protocol import TRAINERS, BuildOptions, Ended, EpochEnd, Event, Evicted, Failed, Run, Trainer

log = logging.getLogger("hpo")

EXIT_RESTART = 75  # the launcher starts another worker in place of one that ends with this
EXIT_BUG = 70  # a fault of ours: its traceback is in the log, and another worker may have more luck
AUDIT_SHARE = 0.05
FAILURES_IN_A_ROW = 5
GIVE_BACK_SECONDS = 10.0
# An ask is made ahead of time only where waiting for it would cost more than this share of a trial: the sampler then
# lacks one result.
ASK_AHEAD_SHARE = 0.05


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker runs; nothing here changes a result.

    Attributes:
        checkpoints: folder or fsspec address below which checkpoints are kept.
        artifacts: folder of the artifacts that the dashboard shows.
        memory_limit_mb: a worker that has grown past this gives its trials back and ends, to be replaced.
        launcher_pid: the worker ends when this process is no longer its parent.
    """

    checkpoints: str
    artifacts: Path
    device: str = "cpu"
    threads: int = 1
    slots: int | None = None
    data_dir: Path | None = None
    download: bool = False
    heartbeat_seconds: float = 5.0
    grace_seconds: float = 30.0
    memory_limit_mb: int | None = None
    launcher_pid: int | None = None


@dataclass
class Held:
    """A trial in a slot."""

    claim: Claim
    config: Any
    run: Run
    desk: StudyDesk
    folder: CheckpointFolder
    started: float
    history: list[dict[str, float]] = field(default_factory=list)
    audited: bool = False


class Interrupted(KeyboardInterrupt):
    """A signal asked the worker to end; no trainer that catches Exception swallows it."""


class Worker:
    """Runs trials of one experiment until it is finished; ``name`` is how the database knows this worker."""

    def __init__(self, experiment: Experiment, options: WorkerOptions) -> None:
        self.experiment = experiment
        self.options = options
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.study_file = experiment.study_file
        self.study_ids = experiment.study_ids
        self.trainer: Trainer = self._build_trainer()
        self.view = WorkerView(experiment.storage, auto_refresh=False)
        self.desks = {study.study_id: StudyDesk(self.view, self.study_file, study) for study in experiment.studies}
        self.folders = {
            study.study_id: CheckpointFolder(options.checkpoints, study.key) for study in experiment.studies
        }
        self.recorder = Recorder(self.view)
        duties = [self._sweep, self._watch_epoch, self._watch_launcher]
        self.heartbeat = Heartbeat(self.view, options.heartbeat_seconds, options.grace_seconds, duties)
        self._trained_on = trained_on(options.device, options.threads, self.trainer.capacity)
        self.held: dict[int, Held] = {}
        self._most_running = {
            study.study_id: _most_running(self.study_file, study.sampler) for study in experiment.studies
        }
        self.ahead: list[Proposal] = []
        self._asking: Future[tuple[list[Proposal], bool]] | None = None
        self._finished = False
        self._ask_after = 0.0
        self._ask_seconds = 0.0
        self._trial_seconds = math.inf
        self._failures_in_a_row = 0
        self._epoch_started = math.inf
        self._last_sweep = 0.0

    # The life of a worker, top to bottom.

    def run(self) -> int:
        """Trains until nothing is left to do and returns the exit code.

        Raises:
            HPOError: where trial after trial fails, or the experiment was deleted; held trials are given back.
        """
        self._listen_for_signals()
        try:
            while not self._finished or self.held:
                self._fill_slots()
                if self.held:
                    events = self._advance()
                    self._look_around(events)
                    for event in events:
                        self._handle(event)
                elif not self._finished:
                    time.sleep(0.2)
                if self._is_too_big():
                    self._give_everything_back("its worker grew past the memory limit")
                    return EXIT_RESTART
            self.recorder.stop()
            return 0
        except Interrupted:
            self._give_everything_back("its worker was asked to end")
            return 130
        except HPOError as error:
            self._give_everything_back(f"its worker ended: {error}")
            raise
        except Exception:
            log.exception("this worker ends because of a fault in the service itself")
            self._give_everything_back("its worker ended because of a fault in the service itself")
            return EXIT_BUG
        finally:
            self.heartbeat.stop()

    def _fill_slots(self) -> None:
        """Claims trials for the free slots and starts them; asks for the next ones early where an ask takes long."""
        free = self.trainer.capacity - len(self.held)
        while free > 0 and (proposal := self._next_proposal(free)) is not None:
            free -= self._start(proposal)
        if self.held and not self._finished and self._ask_seconds > ASK_AHEAD_SHARE * self._trial_seconds:
            self._ask(1)

    def _next_proposal(self, free: int) -> Proposal | None:
        if not self.ahead:
            if self._asking is None and not self._ask(free):
                return None
            assert self._asking is not None
            self.ahead, self._finished = self._asking.result()
            self._asking = None
            # Nothing to be had now: a retry may come, but not at once.
            self._ask_after = 0.0 if self.ahead else time.monotonic() + 0.5
        return self.ahead.pop(0) if self.ahead else None

    def _ask(self, limit: int) -> bool:
        """Has the recorder claim up to ``limit`` trials and propose their configurations."""
        if self.ahead or self._asking is not None or time.monotonic() < self._ask_after:
            return False
        self._asking = self.recorder.submit(lambda: self._claim(limit))
        return True

    def _claim(self, limit: int) -> tuple[list[Proposal], bool]:
        started = time.monotonic()
        engine, held = self.experiment.storage.engine, len(self.held)
        claims, finished = ledger.claim(
            engine, self.study_ids, self.name, limit, held=held, most_running=self._most_running
        )
        proposals = [self.desks[claim.study_id].propose(claim) for claim in claims]
        if claims:
            seconds = (time.monotonic() - started) / len(claims)
            self._ask_seconds = 0.7 * self._ask_seconds + 0.3 * seconds if self._ask_seconds else seconds
            self.recorder.write()
        return proposals, finished

    def _start(self, proposal: Proposal) -> bool:
        claim = proposal.claim
        desk, folder = self.desks[claim.study_id], self.folders[claim.study_id]
        checkpoint = None if claim.fresh else folder.latest(claim.lineage)
        run = Run(
            device=self.options.device,
            seed=proposal.seed,
            start_epoch=checkpoint.epoch if checkpoint else 0,
            checkpoint=checkpoint.state if checkpoint else None,
            data_dir=self.options.data_dir,
            download=self.options.download,
        )
        held = Held(claim, proposal.config, run, desk, folder, time.monotonic())
        if checkpoint is not None:
            held.history = list(checkpoint.history)
            for epoch, metrics in enumerate(held.history, start=1):
                self.view.set_trial_intermediate_value(claim.trial_id, epoch, metrics[self.study_file.metric])
        self.view.set_trial_user_attr(claim.trial_id, attributes.START_EPOCH, run.start_epoch)
        if proposal.error is not None:
            self._fail(held, proposal.error)
            return False
        self.held[claim.trial_id] = held
        self.trainer.start(claim.trial_id, proposal.config, run)
        return True

    def _advance(self) -> list[Event]:
        self._epoch_started = time.monotonic()
        try:
            return self.trainer.advance()
        finally:
            self._epoch_started = math.inf

    def _look_around(self, events: list[Event]) -> None:
        """Reads the other workers' trials once for all pruning decisions that these events ask for."""
        study_ids = {
            held.claim.study_id
            for event in events
            if isinstance(event, EpochEnd) and not event.finished
            if (held := self.held.get(event.key)) is not None  # type: ignore[call-overload]
            if not held.audited and held.desk.decides_at(event.epoch)
        }
        if study_ids:
            self.recorder.run(lambda: self._refresh(study_ids))

    def _refresh(self, study_ids: set[int]) -> None:
        for study_id in study_ids:
            self.view.refresh(study_id)

    def _handle(self, event: Event) -> None:
        held = self.held.get(event.key)  # type: ignore[call-overload]
        if held is None:
            return
        if self.heartbeat.is_doubtful:
            self.heartbeat.beat()
        if self.view.is_lost(held.claim.trial_id):
            self._drop(held)
        elif isinstance(event, EpochEnd):
            self._end_epoch(held, event)
        elif isinstance(event, Ended):
            if held.history:
                self._finish(held, TrialState.COMPLETE)
            else:
                self._release(held)
                self._fail(held, ValueError("the trainer ended without yielding metrics of an epoch"))
        elif isinstance(event, Evicted):
            self._release(held)
            trial_id, reason = held.claim.trial_id, event.reason
            self.recorder.submit(lambda: self._give_back(trial_id, reason)).add_done_callback(_log_failure)
        elif isinstance(event, Failed):
            self._release(held)
            self._fail(held, event.error)

    def _end_epoch(self, held: Held, event: EpochEnd) -> None:
        """Report, prune or finish or go on from a checkpoint."""
        trial_id = held.claim.trial_id
        metrics = {name: float(value) for name, value in event.metrics.items()}
        if self.study_file.metric not in metrics:
            self.trainer.stop(trial_id)
            self._release(held)
            known = ", ".join(sorted(metrics)) or "nothing"
            self._fail(held, KeyError(f"the trainer yields no {self.study_file.metric!r}, only {known}"))
            return
        value = metrics[self.study_file.metric]
        held.history.append(metrics)
        self.view.set_trial_intermediate_value(trial_id, event.epoch, value)
        if not math.isfinite(value):
            self._finish(held, TrialState.PRUNED, f"{self.study_file.metric} is {value} at epoch {event.epoch}")
        elif event.finished:
            self._finish(held, TrialState.COMPLETE)
        elif self._should_prune(held, event.epoch):
            self._finish(held, TrialState.PRUNED, f"{self.study_file.pruner.name} at epoch {event.epoch}")
        else:
            if event.snapshot is not None:
                held.folder.save(held.claim.lineage, Checkpoint(event.epoch, event.snapshot(), held.history))
            self.recorder.write()

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
        """Tells the study how the trial ended, beside the training of the next one."""
        trial_id, engine = held.claim.trial_id, self.experiment.storage.engine
        self.trainer.stop(trial_id)
        chosen = self._best_epoch(held) if state is TrialState.COMPLETE else len(held.history) - 1
        metrics = held.history[chosen]
        value: float | None = metrics[self.study_file.metric]
        if value is not None and math.isnan(value):
            value = None
        epochs = len(held.history)
        self.view.set_trial_user_attr(trial_id, attributes.METRICS, metrics)
        self.view.set_trial_user_attr(trial_id, attributes.TRAINED_ON, self._trained_on)
        self._account(held, reason)
        for path in held.run.artifacts:
            attach(self.view, trial_id, path, self.options.artifacts)
        if state is TrialState.COMPLETE:
            attach_text(self.view, trial_id, "epochs.csv", epochs_table(held.history), self.options.artifacts)
        self.view.ended(trial_id, state, value)
        if state is TrialState.COMPLETE or reason is not None:
            self._failures_in_a_row = 0

        def tell() -> None:
            writes = self.view.take_writes(trial_id)[trial_id]
            try:
                with engine.begin() as connection:
                    told = ledger.finish(connection, trial_id, state, value, epochs, writes)
                    told = told or ledger.ended_as(connection, trial_id, state, self.name)
            except BaseException:
                self.view.put_back({trial_id: writes})
                raise
            if told:
                held.folder.remove(held.claim.lineage)
            self.view.disown(trial_id)

        self._release(held)
        if self.study_file.budget.epochs is None and not self._finished:
            # The slot waits for a claim, and nothing waits for the tell: the view shows the result already. Only where
            # the budget is in epochs does a claim depend on what this trial has spent.
            self._ask(1)
        self.recorder.submit(tell).add_done_callback(_log_failure)

    def _best_epoch(self, held: Held) -> int:
        """Index of the epoch whose metric is the trial's value: the last one, or the best."""
        if self.study_file.value == "last":
            return len(held.history) - 1
        sign = 1 if self.study_file.direction == "maximize" else -1
        return max(range(len(held.history)), key=lambda i: sign * held.history[i][self.study_file.metric])

    def _account(self, held: Held, reason: str | None) -> None:
        seconds = time.monotonic() - held.started
        trial_id = held.claim.trial_id
        self.view.set_trial_user_attr(trial_id, attributes.SECONDS, round(seconds, 4))
        self.view.set_trial_user_attr(trial_id, attributes.EPOCHS, len(held.history))
        if reason is not None:
            self.view.set_trial_user_attr(trial_id, attributes.REASON, reason)
        known = self._trial_seconds
        self._trial_seconds = seconds if math.isinf(known) else 0.7 * known + 0.3 * seconds

    def _fail(self, held: Held, error: BaseException) -> None:
        """Fails the attempt; another one follows unless this error has come before."""
        trial_id, engine = held.claim.trial_id, self.experiment.storage.engine
        text = f"{type(error).__name__}: {error}"[:2000]
        log.error("trial %d of %s failed: %s", held.claim.number, held.desk.handle.name, text, exc_info=_trace(error))
        self._account(held, None)
        epochs = len(held.history)

        def fail() -> None:
            writes = self.view.take_writes(trial_id)[trial_id]
            with engine.begin() as connection:
                retries.retry_or_fail(
                    connection, trial_id, text, self.study_file.max_retries, error=text, epochs=epochs, writes=writes
                )
            self.view.disown(trial_id)

        self.recorder.run(fail)
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= FAILURES_IN_A_ROW:
            raise ExperimentError(f"{FAILURES_IN_A_ROW} trials in a row failed, the last one with {text}")

    def _drop(self, held: Held) -> None:
        """Somebody else has the trial now: nothing of it is ours to write any more."""
        log.warning("trial %d of %s was given to another worker", held.claim.number, held.desk.handle.name)
        self.trainer.stop(held.claim.trial_id)
        self._release(held)
        self.view.disown(held.claim.trial_id)

    def _release(self, held: Held) -> None:
        del self.held[held.claim.trial_id]
        self._ask_after = 0.0

    # The end.

    def _give_everything_back(self, reason: str) -> None:
        for held in list(self.held.values()):
            self._account(held, None)

        def give_back_all() -> None:
            # The recorder works in order: what an ask in progress has claimed is ours by the time that this runs.
            for trial_id in self.view.own:
                self._give_back(trial_id, reason)

        self.recorder.submit(give_back_all).add_done_callback(_log_failure)
        # A database that is away is not waited for long: the sweep of another worker will find what we held.
        impatience = threading.Timer(GIVE_BACK_SECONDS, self.recorder.hurry)
        impatience.daemon = True
        impatience.start()
        self.recorder.stop()
        impatience.cancel()

    def _give_back(self, trial_id: int, reason: str) -> None:
        writes = self.view.take_writes(trial_id)[trial_id]
        with self.experiment.storage.engine.begin() as connection:
            retries.give_back(connection, trial_id, reason, writes)
        self.view.disown(trial_id)

    def _listen_for_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._on_signal)
            signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, lambda *_: os._exit(130))
        raise Interrupted

    # Duties of the heartbeat's thread.

    def _sweep(self) -> None:
        if not self.heartbeat.is_settled or time.monotonic() - self._last_sweep < self.options.grace_seconds / 4:
            return
        self._last_sweep = time.monotonic()
        engine, grace = self.experiment.storage.engine, self.options.grace_seconds
        if swept := retries.sweep(engine, self.study_ids, grace, self.study_file.max_retries):
            log.warning("%d trials of silent workers go back to the queue", swept)

    def _watch_epoch(self) -> None:
        """Ends the process when an epoch takes longer than the study file allows: nothing less stops a hung trainer."""
        limit = self.study_file.epoch_timeout_seconds
        if limit is None or time.monotonic() - self._epoch_started <= limit:
            return
        text = f"an epoch took longer than epoch_timeout_seconds = {limit:g}"
        for trial_id in list(self.held):
            with self.experiment.storage.engine.begin() as connection:
                retries.retry_or_fail(connection, trial_id, text, self.study_file.max_retries, error=text)
        log.error("%s; this worker ends", text)
        os._exit(EXIT_RESTART)

    def _watch_launcher(self) -> None:
        if self.options.launcher_pid is not None and os.getppid() != self.options.launcher_pid:
            os.kill(os.getpid(), signal.SIGTERM)

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
            )
        )


def _most_running(study_file: StudyFile, sampler: SamplerSpec) -> int:
    """How many trials of a study many slots may run at once, so that three quarters of it can learn from the rest.

    Where nothing is learnt (no pruner, and a sampler that looks at no results) there is no such limit.
    """
    if study_file.pruner.name == "none" and sampler.name in ("grid", "random", "random_2x", "qmc"):
        return 2**31
    budget = study_file.budget_for(sampler)
    trials = budget.trials or (budget.epochs or 0) // (study_file.max_epochs() or 1)
    return max(1, trials // 4)


def _log_failure(future: "Future[None]") -> None:
    if (error := future.exception()) is not None:
        log.error("a trial's end could not be written: %s: %s", type(error).__name__, error)


def _trace(error: BaseException) -> BaseException | None:
    return error if error.__traceback__ is not None else None
