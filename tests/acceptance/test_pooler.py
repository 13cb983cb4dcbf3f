"""Many workers behind PgBouncer in transaction mode, as the compose file sets it up: few connections, exact."""

import collections
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
import yaml

from benchmarks.postgres_server import USER, PostgresServer, free_port
from tests.acceptance.conftest import REPOSITORY, Hpo

pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="PgBouncer is not installed")
POOL_SIZE = 4
WORKERS = 6


@pytest.fixture
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresServer, str]]:
    """A server, and the address of a pooler before it with the compose file's settings and a pool of its own size."""
    folder = tmp_path_factory.mktemp("pooler")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    service = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["pgbouncer"]["environment"]
    with PostgresServer(folder / "server") as server:
        port = free_port()
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": service["AUTH_TYPE"],
            "auth_file": folder / "users",
            "pool_mode": service["POOL_MODE"],
            "default_pool_size": POOL_SIZE,
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
            yield server, address
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg2.connect(address).close()
            return
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_more_workers_than_connections(
    pooled: tuple[PostgresServer, str], hpo_command: Hpo, study: Callable[..., Path]
) -> None:
    server, address = pooled
    file = study(name="pooled", budget="trials = 12", epochs=3, seconds=0.05)
    done = hpo_command("launch", str(file), "--workers", str(WORKERS), "--gpus", "none", HPO_STORAGE=address)
    assert done.returncode == 0, done.stderr
    connection = psycopg2.connect(server.address)
    cursor = connection.cursor()
    cursor.execute("SELECT study_name, state::text, count(*) FROM trials JOIN studies USING (study_id) GROUP BY 1, 2")
    counts: collections.Counter[str] = collections.Counter()
    for name, state, count in cursor.fetchall():
        assert state in ("COMPLETE", "PRUNED")
        counts[name] += count
    assert counts == {"pooled/grid/0": 12, "pooled/random/0": 12, "pooled/tpe/0": 12}
    cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hpo'")
    assert cursor.fetchone()[0] <= POOL_SIZE
    cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert cursor.fetchone() == (0,)
    connection.close()
