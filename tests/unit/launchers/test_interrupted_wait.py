"""A request to end that comes while ``subprocess`` holds the lock of a process does not leave the lock taken."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpo.launchers.local import LocalFleet, Slot
from hpo.launchers.signals import deferred, interruptible


class NoisyLock:
    """The lock of a ``Popen``; the first time that it is taken, the request to end comes before it is given back."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.is_first = True

    def acquire(self, blocking: bool = True) -> bool:
        taken = bool(self.lock.acquire(blocking))
        if self.is_first:
            self.is_first = False
            os.kill(os.getpid(), signal.SIGTERM)
        return taken

    def release(self) -> None:
        self.lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


@pytest.mark.timeout(30)
def test_a_worker_is_waited_for_after_a_request_in_a_poll(tmp_path: Path) -> None:
    fleet = LocalFleet("e", [Slot("worker 0", {}, tmp_path / "worker.log")])
    fleet.command = lambda place: [sys.executable, "-c", "import time; time.sleep(60)"]  # type: ignore[method-assign]
    fleet.start(0)
    process = fleet.slots[0].process
    assert process is not None
    process._waitpid_lock = NoisyLock(process._waitpid_lock)  # type: ignore[attr-defined]
    ends = []

    def run() -> None:
        with interruptible():
            try:
                fleet.wait(5.0)
            finally:
                ends.extend(fleet.stop())

    with pytest.raises(KeyboardInterrupt):
        run()
    (end,) = ends
    assert end.code == -signal.SIGTERM
    assert process.poll() is not None


def test_a_request_in_a_deferred_block_is_raised_at_its_end() -> None:
    reached = []

    def run() -> None:
        with interruptible():
            with deferred():
                with deferred():
                    os.kill(os.getpid(), signal.SIGTERM)
                    reached.append("inner")
                reached.append("outer")
            reached.append("after")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert reached == ["inner", "outer"]


def test_the_lock_stays_taken_without_it() -> None:
    """What the fleet avoids: the interpreter raises between taking the lock and the block that gives it back."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process._waitpid_lock = NoisyLock(process._waitpid_lock)  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt), interruptible():
        process.poll()
    assert not process._waitpid_lock.lock.acquire(False)  # type: ignore[attr-defined]
    process._waitpid_lock.release()  # type: ignore[attr-defined]
    process.kill()
    process.wait()
