"""The one thread of a worker that talks to the database about trials, so that training does not wait for it.

Reports gather in the cache while the device computes and are written in one transaction at a time. If the worker needs
an answer (a claim, a fresh look before a pruning decision), it submits a job and waits for that alone.
"""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from hpo.database import trial_writes
from hpo.database.retrying import T, persistently
from hpo.worker.trial_cache import TrialCache

log = logging.getLogger("hpo")

WRITE_SOON_SECONDS = 0.01


class DatabaseThread:
    """Runs jobs one after another; :meth:`write` is the job that writes what is pending in the cache."""

    def __init__(self, cache: TrialCache) -> None:
        self.cache = cache
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._soon: threading.Timer | None = None
        self._thread = threading.Thread(target=self._serve, name="database", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Runs ``job`` on this thread, after all that was submitted before; repeats it while the database is away."""
        future: Future[T] = Future()
        self._jobs.put((lambda: job(*arguments), future))
        return future

    def run(self, job: Callable[..., T], *arguments: Any) -> T:
        """Submits ``job`` and waits for its result."""
        return self.submit(job, *arguments).result()

    def write(self) -> "Future[None]":
        """Has all pending writes written soon; does not wait."""
        written = self.submit(self._write)
        written.add_done_callback(_log_failure)
        return written

    def write_soon(self) -> None:
        """Has what is set in the next WRITE_SOON_SECONDS written together; does not wait."""
        if self._soon is None:
            self._soon = threading.Timer(WRITE_SOON_SECONDS, self._write_now)
            self._soon.daemon = True
            self._soon.start()

    def _write_now(self) -> None:
        self._soon = None  # before the write: what is set from now on needs another one
        self.write()

    def stop(self, patience_seconds: float | None = None) -> None:
        """Ends the thread once all jobs are done; may be repeated.

        After ``patience_seconds`` jobs are not repeated any longer while the database is away.
        """
        self._jobs.put(None)
        self._thread.join(patience_seconds)
        if self._thread.is_alive():
            self._hurry.set()
            self._thread.join()

    def _serve(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            try:
                future.set_result(persistently(job, self._hurry.is_set))
            except BaseException as error:
                future.set_exception(error)

    def _write(self) -> None:
        with self.cache.pending.transaction_of_all(self.cache.backend.engine) as transaction:
            if transaction is None:
                return
            connection, writes = transaction
            lost = trial_writes.write(connection, writes)
        self.cache.leases.mark_lost(lost)


def _log_failure(future: "Future[None]") -> None:
    if (error := future.exception()) is not None:
        log.error("a report could not be written: %s: %s", type(error).__name__, error)
