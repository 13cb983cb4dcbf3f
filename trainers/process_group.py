"""A program's process: started in a session of its own, read without blocking, ended with all that it has started."""

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpo.trainers import process_guard

READ_BYTES = 2**20
LEFTOVER_SECONDS = 1.0
"""How long children that outlive their program may take to end after SIGTERM."""


class Guard:
    """The process that kills a program whose worker is gone; started with the first program, one for each worker."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def say(self, line: str) -> None:
        """Passes a line on; a guard that somebody has killed is replaced."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", process_guard.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env={"PATH": os.defpath},
                text=True,
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
            self._process = None

    def __del__(self) -> None:
        if sys is not None and not sys.is_finalizing():  # else the end of this process closes the pipe
            self.close()


class ProcessGroup:
    """A running program with its children, which are recognized by a mark in their environment."""

    def __init__(
        self,
        guard: Guard,
        command: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path | None,
        earlier_folder: Path | None,
    ) -> None:
        """Starts the program. Raises OSError if it cannot be started.

        ``earlier_folder``: the trial's folder if there were earlier attempts at its lineage; what they have left
        running on this machine is killed first.
        """
        self._guard = guard
        if earlier_folder is not None:
            process_guard.kill_all(f"HPO_FOLDER={earlier_folder}", None)
        # Of this start alone: another worker may have taken the trial when this one's guard kills what it has left.
        self._mark = f"HPO_PROCESS={secrets.token_hex(8)}"
        guard.say(f"+{self._mark}")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=cwd,
                env={**environment, "HPO_PROCESS": self._mark.partition("=")[2]},
                bufsize=0,
            )
        except BaseException:
            guard.say("-")
            raise
        guard.say(f"={self._process.pid}")
        self._forks = process_guard.num_forks()
        assert self._process.stdout is not None
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._output_ended = False
        self._pidfd: int | None = None
        with contextlib.suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(self._process.pid)

    def wait(self, seconds: float) -> None:
        """Waits until there is output or the program has ended, at most ``seconds``."""
        watched = [] if self._output_ended else [self._output.fileno()]
        if self._pidfd is not None:
            watched.append(self._pidfd)
        elif self._process.poll() is None:
            seconds = min(seconds, 0.01)
        select.select(watched, [], [], seconds)

    def wait_for_end(self, seconds: float) -> None:
        """Waits until the program has ended, at most ``seconds``."""
        if self._pidfd is not None:
            select.select([self._pidfd], [], [], max(0.0, seconds))
        elif self._process.poll() is None:
            time.sleep(max(0.0, min(seconds, 0.01)))

    def read(self) -> bytes:
        """What the program has written since the last time."""
        pieces = []
        size = 0
        while not self._output_ended and size < READ_BYTES:
            try:
                piece = os.read(self._output.fileno(), 65_536)
            except BlockingIOError:
                break
            self._output_ended = not piece
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def poll(self) -> int | None:
        """The exit code of the program, negative for a signal; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Asks the program and its children to end."""
        self._signal(signal.SIGTERM)

    def end(self) -> None:
        """Ends whatever still runs of the program and its children, and lets go of it. May be repeated."""
        if self._process.poll() is None:
            process_guard.kill_all(self._mark, self._process.pid)
            self._process.wait()
            process_guard.kill_all(self._mark, None)
        elif self._is_alive():  # looks at every process of the machine, so it is asked once if nothing is left
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + LEFTOVER_SECONDS
            while self._is_alive() and time.monotonic() < deadline:
                time.sleep(0.01)
            process_guard.kill_all(self._mark, None)
        self._guard.say("-")
        self._output.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
        for pid in process_guard.processes_of(self._mark):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(pid) != self._process.pid:
                    os.kill(pid, number)

    def _is_alive(self) -> bool:
        """Whether children of the program run, which itself has ended: they were started after it."""
        after = process_guard.later_than(self._process.pid, self._forks)
        return bool(process_guard.processes_of(self._mark, after))
