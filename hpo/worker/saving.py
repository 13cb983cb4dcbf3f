"""Writes checkpoints: for a trainer that copies its state at once, on a thread of its own and not after each epoch.

The image classifier's trials end thousands of epochs a minute; a file for each would cost more than training them. So
the state is copied in memory after each epoch and written as seldom as the study file's ``checkpoint_seconds`` says,
or so that all of it costs COST_SHARE of the time; and always if the trial is given back.
"""

import copy
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hpo.errors import CheckpointError
from hpo.files.checkpoints import Checkpoint, CheckpointFolder, encoded
from hpo.trainers.protocol import EpochEnd, State
from hpo.worker.leases import Leases
from hpo.worker.running_trial import RunningTrial
from hpo.worker.uploads import StoreHealth

log = logging.getLogger("hpo")

COST_SHARE = 0.02
"""Share of the training time that checkpoints may cost if the study file does not say how often they are written."""

FLUSH_SECONDS = 10.0
"""How long the end of a worker waits for checkpoints that are still to be written."""


@dataclass
class _Held:
    """The last epoch of a running trial, as it is to be written."""

    trial: RunningTrial
    epoch: int
    make_state: Callable[[], State]
    history: list[dict[str, float]]
    is_due: bool = False


class CheckpointSaver:
    """The checkpoints of a worker's running trials; ``seconds`` is the study file's ``checkpoint_seconds``.

    ``health`` is that of the address to which they go; None if they go to a folder. Nothing waits for an address: what
    is saved there is a copy, written by the thread, and of several that are due the newest. If it does not answer, the
    trial goes on, and the next checkpoint is tried there again.
    """

    def __init__(
        self,
        folders: Mapping[int, CheckpointFolder],
        leases: Leases,
        seconds: float | None,
        health: StoreHealth | None = None,
    ) -> None:
        self._folders, self._leases, self._seconds, self._health = folders, leases, seconds, health
        self._held: dict[int, _Held] = {}
        self._written_at: dict[int, float] = {}
        self._errors: list[tuple[RunningTrial, Exception]] = []
        self._cost_seconds: float | None = None  # of one checkpoint lately: encoded and written
        self._has_begun = False
        self._due: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._writing: int | None = None
        self._thread: threading.Thread | None = None

    def offer(self, trial: RunningTrial, event: EpochEnd, num_running: int) -> Exception | None:
        """Takes what the trainer offers after an epoch, if anything; writes it at once, later or not at all.

        Returns the error if the trainer cannot make it or makes something that cannot be saved: that is the trial's.

        Raises:
            CheckpointError: if the file cannot be written to a folder.
        """
        if event.snapshot is None and event.capture is None:
            return None
        is_users_own = event.capture is None and not self._seconds
        if is_users_own and self._health is None:
            # Training code of a user's own may end its process in the next epoch: then this one is on disk.
            assert event.snapshot is not None
            return self._save_now(trial, event)
        started = time.perf_counter()
        try:
            make_state = event.capture() if event.capture is not None else _made(event)
        except Exception as error:
            return error
        held = _Held(trial, event.epoch, make_state, list(trial.history))
        copy_seconds, now = time.perf_counter() - started, time.monotonic()
        with self._changed:
            earlier = self._held.get(trial.trial_id)
            held.is_due = earlier is not None and earlier.is_due  # then it is written in the place of that one
            self._held[trial.trial_id] = held
            interval = 0.0 if is_users_own else self._interval(num_running, copy_seconds)
            if now - self._written_at.setdefault(trial.trial_id, trial.started) >= interval:
                self._written_at[trial.trial_id] = now
                self._make_due(held)
        return None

    def _interval(self, num_running: int, copy_seconds: float) -> float:
        if self._seconds is not None:
            return self._seconds
        if self._cost_seconds is None:  # of the first one, which is being written
            return math.inf if self._has_begun else 0.0
        return num_running * (self._cost_seconds + copy_seconds) / COST_SHARE

    def errors(self) -> list[tuple[RunningTrial, Exception]]:
        """Trials whose checkpoints could not be made since the last call.

        Raises:
            CheckpointError: if a file could not be written.
        """
        with self._changed:
            errors, self._errors = self._errors, []
        for _, error in errors:
            if isinstance(error, CheckpointError):
                raise error
        return errors

    def flush(self, trial_ids: list[int]) -> None:
        """Writes the last epochs of trials that are given back, and waits until they are on disk."""
        deadline = time.monotonic() + FLUSH_SECONDS
        with self._changed:
            for trial_id in trial_ids:
                if (held := self._held.get(trial_id)) is not None:
                    self._make_due(held)
            done = self._changed.wait_for(
                lambda: not any(trial_id in self._held or self._writing == trial_id for trial_id in trial_ids),
                max(0.0, deadline - time.monotonic()),
            )
        if not done:
            log.warning("some checkpoints were not written within %.0f s; earlier ones are used", FLUSH_SECONDS)

    def forget(self, trial_id: int) -> None:
        """Nothing of an ended trial is written any more when this returns."""
        with self._changed:
            self._held.pop(trial_id, None)
            self._written_at.pop(trial_id, None)
            self._changed.wait_for(lambda: self._writing != trial_id)

    def _make_due(self, held: _Held) -> None:
        self._has_begun = True
        if not held.is_due:
            held.is_due = True
            self._due.put(held.trial.trial_id)
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="checkpoints", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        while (trial_id := self._due.get()) is not None:
            with self._changed:
                held = self._held.pop(trial_id, None)
                self._writing = None if held is None else trial_id
            if held is None:
                continue
            started = time.perf_counter()
            error: Exception | None = None
            try:
                if is_recorded(held.trial, self._leases):
                    started = time.perf_counter()
                    data = encoded(Checkpoint(held.epoch, held.make_state(), held.history))
                    folder, lineage = self._folders[held.trial.claim.study_id], held.trial.claim.lineage
                    folder.write(lineage, held.epoch, data)
                    if self._health is not None:
                        self._health.answered()
            except CheckpointError as raised:
                if self._health is None:
                    error = raised
                else:
                    self._health.failed(raised)
            except Exception as raised:
                error = raised
            seconds = time.perf_counter() - started
            with self._changed:
                earlier = self._cost_seconds
                self._cost_seconds = seconds if earlier is None else 0.7 * earlier + 0.3 * seconds
                self._writing = None
                if error is not None:
                    self._errors.append((held.trial, error))
                self._changed.notify_all()

    def _save_now(self, trial: RunningTrial, event: EpochEnd) -> Exception | None:
        assert event.snapshot is not None
        if not is_recorded(trial, self._leases):
            return None
        try:
            state = event.snapshot()
        except Exception as error:
            return error
        try:
            folder = self._folders[trial.claim.study_id]
            folder.save(trial.claim.lineage, Checkpoint(event.epoch, state, trial.history))
        except TypeError as error:
            return error
        return None


def _made(event: EpochEnd) -> Callable[[], State]:
    """A copy of the state of a trainer that may change it in its next epoch."""
    assert event.snapshot is not None
    state = copy.deepcopy(event.snapshot())
    return lambda: state


def is_recorded(trial: RunningTrial, leases: Leases) -> bool:
    """Waits until the trial's configuration is on record; returns False if the trial was lost meanwhile.

    Without it there must be no checkpoint: a retry would draw another configuration, and go on from what this one had
    trained.
    """
    if trial.recorded is not None:
        trial.recorded.result()
        trial.recorded = None
    return not leases.is_lost(trial.trial_id)
