"""The signals that ask a worker to end: its trials go back to the queue, with their checkpoints.

SIGINT and SIGTERM; SIGUSR1 and SIGUSR2, which batch systems send before an allocation ends; SIGHUP, if the terminal is
gone; SIGXCPU, the batch system's limit of processor time. A launcher and its batch system may both send one, so a
repetition is the same request: only a second SIGINT, two seconds or more after the first, ends a worker process at
once.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from hpo.worker.process_end import is_worker_process, leave

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
    if hasattr(signal, name)
)
SAME_REQUEST_SECONDS = 2.0
STEERING_SIGNAL = getattr(signal, "SIGURG", None)
"""With which a thread of ours interrupts an epoch: a process ignores it if nothing handles it."""


class Steered(KeyboardInterrupt):
    """What a person has ordered interrupts an epoch; no trainer that catches Exception swallows it."""


class Epoch:
    """Whether the main thread is in an epoch that may be interrupted, within :func:`raising_interrupted`."""

    is_open = False
    has_handler = False


@contextlib.contextmanager
def steerable() -> Iterator[None]:
    """Within the block :func:`interrupt_epoch` raises :class:`Steered`."""
    Epoch.is_open = True
    try:
        yield
    finally:
        Epoch.is_open = False


def interrupt_epoch() -> bool:
    """Interrupts the epoch in which the main thread is; False if it is in none, or handles no signals."""
    main = threading.main_thread().ident
    if not (Epoch.is_open and Epoch.has_handler) or STEERING_SIGNAL is None or main is None:
        return False
    signal.pthread_kill(main, STEERING_SIGNAL)
    return True


def _interrupt_epoch(number: int, frame: FrameType | None) -> None:
    if Epoch.is_open:
        Epoch.is_open = False
        raise Steered


class Interrupted(KeyboardInterrupt):
    """A signal asked the worker to end; no trainer that catches Exception swallows it."""


class _Handler:
    def __init__(self) -> None:
        self._asked: float | None = None
        self._last_interrupt: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT:
            last, self._last_interrupt = self._last_interrupt, now
            if last is not None and now - last >= SAME_REQUEST_SECONDS:
                if is_worker_process():
                    leave(130)
                # In a notebook or a debugger the process is not ours to end.
                raise Interrupted
        if self._asked is None:
            self._asked = now
            raise Interrupted


@contextlib.contextmanager
def raising_interrupted() -> Iterator[None]:
    """Within the block the first of the signals raises :class:`Interrupted`; afterwards the handlers are as before.

    A SIGHUP that is ignored when the block begins (``nohup``) stays ignored. Beside the main thread Python handles no
    signals, so nothing changes there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler()
    previous = {}
    for number in SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        previous[number] = signal.signal(number, handler)
    if STEERING_SIGNAL is not None:
        previous[STEERING_SIGNAL] = signal.signal(STEERING_SIGNAL, _interrupt_epoch)
        Epoch.has_handler = True
    try:
        yield
    finally:
        Epoch.has_handler = False
        for number, before in previous.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
