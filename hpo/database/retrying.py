"""Repeats a database operation while the database is away."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

import optuna
import sqlalchemy as sa

from hpo.errors import StorageError

log = logging.getLogger("hpo")


T = TypeVar("T")


LONGEST_PAUSE_SECONDS = 5.0


def is_transient(error: BaseException) -> bool:
    """Whether the same operation may succeed a little later."""
    if isinstance(error, StorageError):
        return error.transient
    if isinstance(error, optuna.exceptions.StorageInternalError):
        return error.__cause__ is None or is_transient(error.__cause__)
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
            if not is_transient(error) or stopping():
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
