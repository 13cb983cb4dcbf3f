"""What a worker does beside training: sweep the silent, end a hung epoch, notice that its launcher died.

The first two are done at each heartbeat. The launcher is watched by a thread of its own: heartbeats wait for a database
that is away, and a worker that nobody wants any more must not wait for it forever.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from hpo.database import retries
from hpo.experiment.experiment import Experiment
from hpo.worker.exit_codes import EXIT_RESTART
from hpo.worker.process_end import leave

log = logging.getLogger("hpo")

LAUNCHER_SECONDS = 1.0


class Duties:
    """The duties of one worker; ``running`` tells the trials that it trains now.

    Attributes:
        epoch_started: when the epoch in progress began, on the monotonic clock; infinite between epochs.
    """

    def __init__(
        self,
        experiment: Experiment,
        grace_seconds: float,
        launcher_pid: int | None,
        running: Callable[[], Iterable[int]],
    ) -> None:
        self.epoch_started = math.inf
        self._experiment = experiment
        self._study_file = experiment.study_file
        self._grace_seconds = grace_seconds
        self._launcher_pid = launcher_pid
        self._running = running
        self._last_sweep = 0.0
        if launcher_pid is not None:
            threading.Thread(target=self._watch_launcher, name="launcher", daemon=True).start()

    def sweep(self) -> None:
        """Queues again the trials of workers that have been silent for the grace period."""
        if time.monotonic() - self._last_sweep < self._grace_seconds / 4:
            return
        self._last_sweep = time.monotonic()
        swept = retries.sweep(
            self._experiment.storage.engine,
            self._experiment.study_ids,
            self._grace_seconds,
            self._study_file.max_retries,
        )
        if swept:
            log.warning("%d trials of silent workers go back to the queue", swept)

    def watch_epoch(self) -> None:
        """Ends the process when an epoch takes longer than the study file allows: nothing less stops a hung trainer."""
        limit = self._study_file.epoch_timeout_seconds
        if limit is None or time.monotonic() - self.epoch_started <= limit:
            return
        self._end(f"an epoch took longer than epoch_timeout_seconds = {limit:g}")

    def _end(self, text: str) -> NoReturn:
        for trial_id in self._running():
            with self._experiment.storage.engine.begin() as connection:
                retries.retry_or_fail(connection, trial_id, text, self._study_file.max_retries, error=text)
        log.error("%s; this worker ends", text)
        leave(EXIT_RESTART)

    def _watch_launcher(self) -> None:
        """Asks this process to end when its launcher is no longer its parent."""
        while os.getppid() == self._launcher_pid:
            time.sleep(LAUNCHER_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
