"""The one thread of a worker that talks to the database about trials, so that training does not wait for it.

Reports gather in the view while the device computes and are written in one transaction at a time. Where the worker
needs an answer (a claim, a fresh look before a pruning decision) it submits a job and waits for that alone.
"""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from hpo.database import trial_writes
from hpo.database.retrying import T, persistently
from hpo.worker.trial_cache import WorkerView

log = logging.getLogger("hpo")

WRITE_SOON_SECONDS = 0.01


class Recorder:
    """Runs jobs one after another; :meth:`write` is the job that writes what the view has gathered."""

    def __init__(self, view: WorkerView) -> None:
        self.view = view
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._soon: threading.Timer | None = None
        self._thread = threading.Thread(target=self._serve, name="recorder", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T]) -> "Future[T]":
        """Runs ``job`` on the recorder's thread, after all that was submitted before; repeats it while it must."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def run(self, job: Callable[[], T]) -> T:
        """Submits ``job`` and waits for its result."""
        return self.submit(job).result()

    def write(self) -> "Future[None]":
        """Has what the view gathered written soon; does not wait."""
        written = self.submit(self._write)
        written.add_done_callback(_log_failure)
        return written

    def write_soon(self) -> None:
        """Has what the view gathers in the next WRITE_SOON_SECONDS written together; does not wait."""
        if self._soon is None:
            self._soon = threading.Timer(WRITE_SOON_SECONDS, self._write_now)
            self._soon.daemon = True
            self._soon.start()

    def _write_now(self) -> None:
        self._soon = None  # before the write: what is set from now on needs another one
        self.write()

    def stop(self, patience_seconds: float | None = None) -> None:
        """Ends the thread once all jobs are done; may be repeated.

        After ``patience_seconds`` a database that is away is not waited for any longer.
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
        writes = self.view.take_writes()
        if not writes:
            return
        try:
            with self.view.backend.engine.begin() as connection:
                lost = trial_writes.write(connection, writes)
        except BaseException:
            self.view.put_back(writes)
            raise
        self.view.lose(lost)


def _log_failure(future: "Future[None]") -> None:
    if (error := future.exception()) is not None:
        log.error("a report could not be written: %s: %s", type(error).__name__, error)
