"""Who runs and who uses the embedded server of a home, across processes, containers and machines.

Three lock files in the home; all locks are ``flock``, which the kernel takes back when their holder dies, however it
dies, and which NFS passes on to the other machines:

- ``postgres.running`` is locked by the server itself, which inherits the open file: while any of its processes lives,
  nobody can lock the file, in whatever namespace he runs.
- ``postgres.users`` is locked, shared, by every process that uses the server: who ends and can lock it alone was the
  last.
- ``postgres.starting`` is locked while a server is started or stopped.

Some file systems keep locks to one machine, or have none. So ``postgres.json`` holds where the server runs, and its
users touch it: on another machine it counts as running until it has not been touched for SILENCE_SECONDS.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hpo.errors import StorageError

TOUCH_SECONDS = 10.0
SILENCE_SECONDS = 45.0
START_SECONDS = 120.0


def machine_id() -> str:
    """What all containers of a machine share and two machines do not."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


@dataclass(frozen=True)
class ServerRecord:
    """Where a server runs, as ``postgres.json`` holds it.

    Attributes:
        host: host name of who started it, for people.
        machine: :func:`machine_id` of it.
        namespace: the process id namespace, in which ``pid`` has a meaning.
        pid: of the server.
        socket_folder: where its Unix socket is.
        token: tells this start from all others.
        port: on which it listens on TCP; 0 if it does not.
    """

    host: str
    machine: str
    namespace: str
    pid: int
    socket_folder: str
    token: str
    port: int = 0

    @classmethod
    def here(cls, pid: int, socket_folder: str, port: int = 0) -> "ServerRecord":
        """The record of a server that this process has started."""
        token = secrets.token_hex(8)
        return cls(socket.gethostname(), machine_id(), _pid_namespace(), pid, socket_folder, token, port)

    @property
    def socket_path(self) -> str:
        """Its Unix socket, whose name has the port, as with every Postgres."""
        return f"{self.socket_folder}/.s.PGSQL.{self.port or 5432}"

    @property
    def is_on_this_machine(self) -> bool:
        return self.machine == machine_id()

    @property
    def is_in_this_namespace(self) -> bool:
        return self.is_on_this_machine and self.namespace == _pid_namespace()

    @property
    def place(self) -> str:
        """Where it runs, for a message."""
        if self.is_in_this_namespace:
            return f"this machine (process {self.pid})"
        return f"another container of this machine ({self.host})" if self.is_on_this_machine else f"{self.host}"


class ServerLock:
    """The lock files and the record of one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._users: int | None = None
        self._touching: threading.Event | None = None

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Within the block no other process starts or stops the server.

        Raises StorageError if another takes longer than START_SECONDS.
        """
        descriptor = self._open("starting")
        try:
            deadline = time.monotonic() + START_SECONDS
            while _lock(descriptor, fcntl.LOCK_EX) is False:
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"another process has been starting or stopping the embedded Postgres of {self.home} for "
                        f"{START_SECONDS:g} s",
                        transient=True,
                    )
                time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    def claim(self) -> int | None:
        """Locks the data folder for a server that is to be started; call within :meth:`starting`.

        Returns the locked descriptor, which the server has to inherit; None if a server runs.

        Raises:
            StorageError: if a server seems to run on a machine with which this one shares no locks.
        """
        descriptor = self._open("running")
        if _lock(descriptor, fcntl.LOCK_EX) is False:
            os.close(descriptor)
            return None
        record = self.read()
        if (
            record is not None
            and not record.is_on_this_machine
            and (silent := self._silent_seconds()) < SILENCE_SECONDS
        ):
            os.close(descriptor)
            raise StorageError(
                f"the embedded Postgres of {self.home} runs on {record.place}, seen {silent:.0f} s ago, and can only "
                f"be used there; give all machines one database with {SHARE} (if that machine is gone, try again "
                f"in {SILENCE_SECONDS - silent:.0f} s)",
                transient=True,
            )
        return descriptor

    def is_running(self) -> bool:
        """Whether a server holds the data folder."""
        descriptor = self._open("running")
        try:
            return _lock(descriptor, fcntl.LOCK_EX) is False
        finally:
            os.close(descriptor)

    def use(self) -> None:
        """Counts this process among the users of the server, until it ends or calls :meth:`leave`."""
        if self._users is None:
            self._users = self._open("users")
            _lock(self._users, fcntl.LOCK_SH)
        if self._touching is None:
            self._touching = threading.Event()
            threading.Thread(target=self._touch, args=(self._touching,), name="server record", daemon=True).start()

    def leave(self) -> bool:
        """The opposite of :meth:`use`, within :meth:`starting`. Returns whether it is certain that no user is left."""
        if self._touching is not None:
            self._touching.set()
            self._touching = None
        if self._users is not None:
            os.close(self._users)
            self._users = None
        descriptor = self._open("users")
        try:
            return _lock(descriptor, fcntl.LOCK_EX) is True
        finally:
            os.close(descriptor)

    def read(self) -> ServerRecord | None:
        """The record of the server that was started last and not stopped; None if there is none."""
        try:
            return ServerRecord(**json.loads(self._record.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, record: ServerRecord) -> None:
        """Records a server."""
        aside = self._record.with_name(f"{self._record.name}.{record.token}")
        aside.write_text(json.dumps(asdict(record)))
        os.replace(aside, self._record)

    def forget(self) -> None:
        """Removes the record of a server that was stopped."""
        self._record.unlink(missing_ok=True)

    @property
    def _record(self) -> Path:
        return self.home / "postgres.json"

    def _open(self, name: str) -> int:
        try:
            return os.open(self.home / f"postgres.{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"the embedded Postgres of {self.home} cannot be locked: {error}") from None

    def _touch(self, ended: threading.Event) -> None:
        while not ended.wait(TOUCH_SECONDS):
            record = self.read()
            if record is not None and record.is_on_this_machine:
                with contextlib.suppress(OSError):
                    os.utime(self._record)

    def _silent_seconds(self) -> float:
        """For how long nobody has touched the record, by the file server's clock."""
        probe = self._record.with_name(f"{self._record.name}.{secrets.token_hex(4)}")
        try:
            probe.touch()
            return max(0.0, probe.stat().st_mtime - self._record.stat().st_mtime)
        except OSError:
            return SILENCE_SECONDS
        finally:
            probe.unlink(missing_ok=True)


SHARE = "HPO_STORAGE=postgresql://user:password@host/database"


def _lock(descriptor: int, kind: int) -> bool | None:
    """Tries to lock. Returns None on a file system without locks, where the record is all there is."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
