"""A process that outlives its worker to end what the worker's programs have started. Run as a script, stdlib only.

It reads lines from standard input, a pipe whose other end only the worker holds: ``+MARK`` before a program starts,
``=PGID`` after it has, ``-`` once it has ended. If the pipe ends while a program runs, its worker is dead, by SIGKILL,
``os._exit`` or a crash: the program's process group is killed, and every process whose environment holds the mark, an
assignment such as ``HPO_PROCESS=3f…``, so also children in sessions of their own.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


def processes_of(mark: str, after: int = 0) -> list[int]:
    """Processes, but this one, in whose environment ``mark`` (``NAME=value``) is; none if there is no /proc.

    Of those with a number above ``after`` alone, since reading an environment costs more than all else here.
    """
    marker = mark.encode()
    return [pid for pid, environment in _environments(after) if marker in environment and pid != os.getpid()]


def num_forks() -> int | None:
    """How many processes and threads this machine has started since its boot; None if it is not known."""
    try:
        with open("/proc/stat", "rb") as file:
            return next((int(line.split()[1]) for line in file if line.startswith(b"processes ")), None)
    except (OSError, ValueError, IndexError):
        return None


def later_than(pid: int, forks_then: int | None) -> int:
    """A number above which all processes are that were started since ``pid`` was; 0 if that is not known.

    The kernel numbers processes upwards and begins again at its largest number, 32,767 or more.
    """
    forks = num_forks()
    try:
        with open("/proc/loadavg", "rb") as file:
            last = int(file.read().split()[4])
    except (OSError, ValueError, IndexError):
        return 0
    is_known = forks is not None and forks_then is not None and 0 <= forks - forks_then < 10_000
    return pid if is_known and last >= pid else 0


def _environments(after: int = 0) -> Iterator[tuple[int, list[bytes]]]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal() and int(name) > after:
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                yield int(name), file.read().split(b"\0")


def kill_all(mark: str, group: int | None) -> None:
    """Kills the process group and the marked processes, again until none is left: they may be forking."""
    for _ in range(20):
        if group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        pids = processes_of(mark)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            return


def serve() -> None:
    """Reads what the worker says until it is gone."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        # They are meant for the worker; this process ends with it.
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    mark: str | None = None
    group: int | None = None
    for line in sys.stdin:
        kind, text = line[:1], line[1:].rstrip("\n")
        if kind == "+":
            mark, group = text, None
        elif kind == "=":
            group = int(text)
        else:
            mark, group = None, None
    if mark is not None:
        kill_all(mark, group)


if __name__ == "__main__":
    serve()
