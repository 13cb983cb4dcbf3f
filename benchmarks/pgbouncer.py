"""A PgBouncer of our own on loopback before a :class:`PostgresServer`, with the compose file's settings."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import yaml

from benchmarks.postgres_server import USER, PostgresServer, free_port

COMPOSE = Path(__file__).parents[1] / "docker-compose.yml"
START_SECONDS = 60.0


@contextlib.contextmanager
def pgbouncer(folder: Path, server: PostgresServer, pool_size: int) -> Iterator[str]:
    """Runs PgBouncer with ``pool_size`` connections to ``server`` and yields its address.

    ``folder``: of its configuration; the server's user has to be able to read it.
    """
    service = yaml.safe_load(COMPOSE.read_text())["services"]["pgbouncer"]["environment"]
    port = free_port()
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": service["AUTH_TYPE"],
        "auth_file": folder / "users",
        "pool_mode": service["POOL_MODE"],
        "default_pool_size": pool_size,
        "max_client_conn": service["MAX_CLIENT_CONN"],
        "ignore_startup_parameters": service["IGNORE_STARTUP_PARAMETERS"],
    }
    (folder / "users").write_text(f'"hpo" "{server.password}"\n')
    target = f"host=127.0.0.1 port={server.port} dbname=hpo user=hpo password={server.password}"
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (folder / "pgbouncer.ini").write_text(f"[databases]\nhpo = {target}\n[pgbouncer]\n" + "\n".join(lines) + "\n")
    process = subprocess.Popen(["pgbouncer", "-q", folder / "pgbouncer.ini"], user=USER, cwd="/")
    address = f"postgresql://hpo:{server.password}@127.0.0.1:{port}/hpo"
    try:
        _wait_for(address)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg2.connect(address).close()
            return
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
