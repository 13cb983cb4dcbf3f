"""Sends the heartbeat of all trials that a worker holds, from a thread and over a connection of its own.

The answer to a heartbeat is which of them are still the worker's. A worker that was stopped, or that could not reach
the database, finds :attr:`Heartbeat.lease_may_be_lost` true and sends one before it trains on.
"""

import logging
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from hpo.database import search_clock, trial_writes
from hpo.database.retrying import persistently
from hpo.database.study_budget import read_budgets
from hpo.worker.trial_cache import TrialCache

log = logging.getLogger("hpo")


def set_deadline(engine: sa.Engine, deadlines: dict[int, float], study_id: int) -> None:
    """Notes when the time of a study is over, as far as its trials run on as they do now."""
    with engine.connect() as connection:
        budgets = read_budgets(connection, [study_id])
    if budgets and (left := budgets[0].clock_seconds_left) is not None:
        deadlines[study_id] = time.monotonic() + left


class Heartbeat:
    """Sends a heartbeat every ``interval_seconds``, and then calls each of the ``watchdogs``; ``look`` twice as often.

    ``counts_time``: each heartbeat also counts the time of its trials' studies, whose budget is a time. ``deadlines``:
    study id -> when its time is over, on the monotonic clock, to be kept up to date; None if no beginning or end of a
    trial changes it.
    No error ends it: it waits for a database that is away, and logs the error of a watchdog.
    """

    def __init__(
        self,
        cache: TrialCache,
        interval_seconds: float,
        grace_seconds: float,
        watchdogs: list[Callable[[], None]],
        *,
        counts_time: bool = False,
        deadlines: dict[int, float] | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._deadlines = deadlines
        self._counts_time = counts_time
        self.cache = cache
        self.interval_seconds = interval_seconds
        self.grace_seconds = grace_seconds
        self._watchdogs = watchdogs
        self._look = look
        self._answered = time.monotonic()
        self._reachable_since = time.monotonic() - grace_seconds
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="heartbeat", daemon=True)
        self._thread.start()

    @property
    def lease_may_be_lost(self) -> bool:
        """Whether the last heartbeat is so old that another worker may have swept our trials."""
        return time.monotonic() - self._answered > self.grace_seconds / 2

    @property
    def may_declare_others_dead(self) -> bool:
        """True once the database has been reachable for a full grace period.

        Before that, a missing heartbeat of another worker may be due to the outage.
        """
        return time.monotonic() - self._reachable_since >= self.grace_seconds

    def beat(self) -> None:
        """Sends a heartbeat now, and waits until the database has answered which trials are still ours."""
        persistently(self._beat, self._stopping.is_set)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=self.interval_seconds + 1)

    def _beat(self) -> None:
        with self._lock:
            leased = self.cache.leases.trial_ids
            for study_id in self.cache.leases.study_ids if self._counts_time else ():
                # Before the heartbeat, and each by itself: it holds a lock on one study alone.
                with self.cache.backend.engine.begin() as connection:
                    search_clock.tick(connection, study_id, held=leased)
                if self._deadlines is not None:
                    set_deadline(self.cache.backend.engine, self._deadlines, study_id)
            if leased:
                with self.cache.backend.engine.begin() as connection:
                    lost = trial_writes.beat(connection, leased)
                self.cache.leases.mark_lost(lost)
            now = time.monotonic()
            if now - self._answered > self.grace_seconds / 2:
                self._reachable_since = now
            self._answered = now

    def _serve(self) -> None:
        is_between = False
        while not self._stopping.wait(self.interval_seconds / 2):
            is_between = not is_between
            try:
                if not is_between:
                    self.beat()
            except Exception as error:
                if not self._stopping.is_set():
                    log.error("a heartbeat failed: %s: %s", type(error).__name__, error)
            for watchdog in [self._look] if is_between else [self._look, *self._watchdogs]:
                try:
                    watchdog()
                except Exception as error:
                    name = getattr(watchdog, "__name__", "a watchdog")
                    log.error("%s failed: %s: %s", name, type(error).__name__, error)
