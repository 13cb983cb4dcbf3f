"""One thread beats for all trials that a worker holds, over a connection of its own.

A beat says which trials are still ours. A worker that was stopped and wakes, or that could not reach the database,
finds its :meth:`Heartbeat.is_doubtful` true and asks before it trains on.
"""

import logging
import threading
import time
from collections.abc import Callable

from hpo.database import trial_writes
from hpo.database.retrying import persistently
from hpo.worker.trial_cache import WorkerView

log = logging.getLogger("hpo")


class Heartbeat:
    """Beats every ``interval_seconds``; ``duties`` are further things to do at each beat (sweep, watch the launcher).

    Beating never ends because of an error: a database that is away is waited for, a duty that fails is logged.
    """

    def __init__(
        self, view: WorkerView, interval_seconds: float, grace_seconds: float, duties: list[Callable[[], None]]
    ) -> None:
        self.view = view
        self.interval_seconds = interval_seconds
        self.grace_seconds = grace_seconds
        self._duties = duties
        self._answered = time.monotonic()
        self._unbroken_since = time.monotonic() - grace_seconds
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="heartbeat", daemon=True)
        self._thread.start()

    @property
    def is_doubtful(self) -> bool:
        """Whether so long has passed since the last beat that somebody may have taken our trials."""
        return time.monotonic() - self._answered > self.grace_seconds / 2

    @property
    def is_settled(self) -> bool:
        """Whether the database has answered for a whole grace period: only then is another's silence its own.

        After an outage everyone is silent, and whoever comes back first must not take it for death.
        """
        return time.monotonic() - self._unbroken_since >= self.grace_seconds

    def beat(self) -> None:
        """Beats now, and waits until the database has said which trials are still ours."""
        persistently(self._beat, self._stopping.is_set)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=self.interval_seconds + 1)

    def _beat(self) -> None:
        with self._lock:
            own = self.view.own
            if own:
                with self.view.backend.engine.begin() as connection:
                    lost = trial_writes.beat(connection, own)
                self.view.lose(lost)
            now = time.monotonic()
            if now - self._answered > self.grace_seconds / 2:
                self._unbroken_since = now
            self._answered = now

    def _serve(self) -> None:
        while not self._stopping.wait(self.interval_seconds):
            try:
                self.beat()
            except Exception as error:
                if not self._stopping.is_set():
                    log.error("a heartbeat failed: %s: %s", type(error).__name__, error)
            for duty in self._duties:
                try:
                    duty()
                except Exception as error:
                    log.error("%s failed: %s: %s", getattr(duty, "__name__", "a duty"), type(error).__name__, error)
