"""What a worker's heartbeat does beside beating: sweep the silent, end a hung epoch, notice that the launcher died."""

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from hpo import retries
from hpo.study import Experiment

log = logging.getLogger("hpo")

EXIT_RESTART = 75  # the launcher starts another worker in place of one that ends with this


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
        os._exit(EXIT_RESTART)

    def watch_launcher(self) -> None:
        """Asks this process to end when its launcher is no longer its parent."""
        if self._launcher_pid is not None and os.getppid() != self._launcher_pid:
            os.kill(os.getpid(), signal.SIGTERM)
