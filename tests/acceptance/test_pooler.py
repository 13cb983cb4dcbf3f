"""Many workers behind PgBouncer in transaction mode, as the compose file sets it up: few connections, exact."""

import collections
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from benchmarks.pgbouncer import pgbouncer
from benchmarks.postgres_server import PostgresServer
from tests.acceptance.conftest import Hpo

pytestmark = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="PgBouncer is not installed")
POOL_SIZE = 4
WORKERS = 6


@pytest.fixture
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresServer, str]]:
    """A server, and the address of a pooler before it with the compose file's settings and a pool of its own size."""
    folder = tmp_path_factory.mktemp("pooler")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    with PostgresServer(folder / "server") as server, pgbouncer(folder, server, POOL_SIZE) as address:
        yield server, address


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
