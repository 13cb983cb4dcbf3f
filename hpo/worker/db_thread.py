"""The one thread of a worker that talks to the database about trials, so that training does not wait for it.

Reports gather in the view while the device computes and are written in one transaction at a time. Where the worker
needs an answer (a claim, a fresh look before a pruning decision) it submits a job and waits for that alone.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa

from hpo.database import trial_writes
from hpo.errors import StorageError
from hpo.worker.trial_cache import WorkerView

log = logging.getLogger("hpo")
T = TypeVar("T")
LONGEST_PAUSE_SECONDS = 5.0


def is_passing(error: BaseException) -> bool:
    """Whether the database may do the same thing without an error a little later."""
    if isinstance(error, StorageError):
        return error.passing
    if isinstance(error, optuna.exceptions.StorageInternalError):
        return error.__cause__ is None or is_passing(error.__cause__)
    if isinstance(error, sa.exc.DBAPIError):
        # 57P0x: the server is being stopped or started; 40xxx: deadlock or serialization; 53xxx: out of resources.
        code = getattr(error.orig, "pgcode", None) or ""
        return (
            error.connection_invalidated
            or isinstance(error, (sa.exc.InterfaceError, sa.exc.OperationalError))
            or code[:2] in ("57", "40", "53", "08")
        )
    return isinstance(error, sa.exc.TimeoutError)


def persistently(action: Callable[[], T], stopping: Callable[[], bool] = lambda: False) -> T:
    """Repeats ``action`` until the database answers; gives up, with its error, once ``stopping`` says so.

    Errors that will not pass by themselves are raised at once.
    """
    pause, since = 0.05, time.monotonic()
    announced = False
    while True:
        try:
            result = action()
        except Exception as error:
            if not is_passing(error) or stopping():
                raise
            if not announced and time.monotonic() - since > 1.0:
                log.warning("the database does not answer; waiting for it")
                announced = True
            time.sleep(pause * (0.5 + random.random()))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        else:
            if announced:
                log.warning("the database answers again, after %.0f s", time.monotonic() - since)
            return result


class Recorder:
    """Runs jobs one after another; :meth:`write` is the job that writes what the view has gathered."""

    def __init__(self, view: WorkerView) -> None:
        self.view = view
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
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
