"""Signals that ask a launch to end: every one of them once, whoever sends it and however often within two seconds."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

END_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
"""Ctrl-C; what ends a job; a lost terminal; what Slurm, submitit and many sites send before an allocation ends."""

SAME_REQUEST_SECONDS = 2.0
"""Slurm and systemd send a signal to the whole group, terminals too: within this time it is the same request."""


class _Deferral:
    """How deep the main thread is in blocks that must not be interrupted, and whether a request came meanwhile."""

    depth = 0
    is_pending = False


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the block no signal raises; one that came is raised as KeyboardInterrupt at its end.

    ``subprocess.Popen`` holds a lock while it asks for its process. An exception between taking the lock and the block
    that gives it back leaves it taken, and the next wait for that process never ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Deferral.depth += 1
    try:
        yield
    finally:
        _Deferral.depth -= 1
    if not _Deferral.depth and _Deferral.is_pending:
        _Deferral.is_pending = False
        raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block each of END_SIGNALS raises KeyboardInterrupt, at most once in SAME_REQUEST_SECONDS.

    In a :func:`deferred` block it is raised at the end of that one.

    A signal that is ignored (``nohup``) stays so. Outside of the main thread Python handles no signals: there nothing
    changes. Afterwards the handlers are those of before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -SAME_REQUEST_SECONDS

    def interrupt(number: int, frame: object) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SAME_REQUEST_SECONDS:
            last = now
            if _Deferral.depth:
                _Deferral.is_pending = True
            else:
                raise KeyboardInterrupt

    _Deferral.is_pending = False
    with kept_handlers():
        for number in END_SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, interrupt)
        yield


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """After the block every signal has the handler that it had before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: set by something that is not Python, which cannot put it back.
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
