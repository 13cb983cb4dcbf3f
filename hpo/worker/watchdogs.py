"""Checks beside training: sweep silent workers, end a hung epoch, notice that the launcher died.

The first two run after each heartbeat. The launcher is watched by a thread of its own: heartbeats wait for a database
that is away, and a worker whose launcher is gone must not wait for it forever.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable

from hpo.database import dead_workers, retries
from hpo.experiment.experiment import Experiment
from hpo.worker.exit_codes import EXIT_RESTART
from hpo.worker.process_end import is_worker_process, leave

log = logging.getLogger("hpo")

LAUNCHER_SECONDS = 1.0


class Watchdogs:
    """The watchdogs of the worker called ``worker``; ``training`` returns the ids of the trials in its slots.

    Attributes:
        epoch_started: when the epoch in progress began, on the monotonic clock; infinite between epochs.
    """

    def __init__(
        self,
        experiment: Experiment,
        worker: str,
        grace_seconds: float,
        launcher_pid: int | None,
        training: Callable[[], Iterable[int]],
    ) -> None:
        self.epoch_started = math.inf
        self._experiment = experiment
        self._study_file = experiment.study_file
        self._worker = worker
        self._grace_seconds = grace_seconds
        self._launcher_pid = launcher_pid
        self._training = training
        self._last_sweep = 0.0
        if launcher_pid is not None:
            threading.Thread(target=self._watch_launcher, name="launcher", daemon=True).start()

    def sweep(self) -> None:
        """Queues again the trials of workers that have been silent for the grace period."""
        if time.monotonic() - self._last_sweep < self._grace_seconds / 4:
            return
        self._last_sweep = time.monotonic()
        num_swept = dead_workers.sweep(
            self._experiment.storage.engine,
            self._experiment.study_ids,
            self._grace_seconds,
            self._study_file.max_retries,
        )
        if num_swept:
            log.warning("%d trials of silent workers go back to the queue", num_swept)

    def watch_epoch(self) -> None:
        """Ends the process if an epoch takes longer than the study file allows: nothing less stops a hung trainer."""
        seconds = time.monotonic() - self.epoch_started
        limit = self._study_file.epoch_timeout_seconds
        if limit is not None and seconds > limit:
            self._end(f"an epoch took longer than epoch_timeout_seconds = {limit:g}")
        # A trial that is out of time is complete at the end of its epoch; this one does not end.
        limit = self._study_file.trial_timeout_seconds
        if limit is not None and seconds > 2 * limit:
            self._end(f"an epoch took longer than twice trial_timeout_seconds = {limit:g}")

    def _end(self, reason: str) -> None:
        """Ends the process as if it had died: the one trial is charged, of several none is."""
        trial_ids = list(self._training())
        for trial_id in trial_ids:
            with self._experiment.storage.engine.begin() as connection:
                if len(trial_ids) == 1:
                    retries.retry_or_fail(
                        connection,
                        trial_id,
                        reason,
                        self._study_file.max_retries,
                        error=reason,
                        cause=retries.Cause.DIED,
                    )
                else:
                    retries.give_back(connection, trial_id, reason, apart=self._worker)
        log.error("%s; this worker ends", reason)
        if is_worker_process():
            leave(EXIT_RESTART)
        # Inline, in a notebook or a debugger, the process is not ours to end: its main thread is interrupted.
        self.epoch_started = math.inf
        os.kill(os.getpid(), signal.SIGINT)

    def _watch_launcher(self) -> None:
        """Asks this process to end when its launcher is no longer its parent."""
        while os.getppid() == self._launcher_pid:
            time.sleep(LAUNCHER_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
