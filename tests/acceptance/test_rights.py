"""Who may not write is told so in a line: a database user who only reads, a home that is read-only."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from benchmarks.postgres_server import PostgresServer

from .conftest import Hpo
from .outcomes import one_line

Study = Callable[..., Path]


def test_a_user_who_may_read_and_not_write(tcp: PostgresServer, hpo_command: Hpo, study: Study) -> None:
    file = study(samplers='["random"]', budget="trials = 2", epochs=2)
    done = hpo_command("launch", str(file), "--workers", "1", HPO_STORAGE=tcp.address)
    assert done.returncode == 0, done.stderr
    engine = sa.create_engine(tcp.address.replace("postgresql:", "postgresql+psycopg2:"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE ROLE reader LOGIN PASSWORD 'only-looks'"))
        connection.execute(sa.text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
        before = connection.execute(sa.text("SELECT count(*), max(study_id) FROM studies")).one()
    storage = f"postgresql://reader:only-looks@127.0.0.1:{tcp.port}/hpo"

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return hpo_command(*arguments, HPO_STORAGE=storage)

    status = run("status", "sleepy", "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["studies"][0]["states"]["complete"] == 2
    assert json.loads(run("status", "--json").stdout)["experiments"] == ["sleepy"]
    exported = run("export", "sleepy")
    assert exported.returncode == 0, exported.stderr
    assert 'trainer = "sleeping"' in exported.stdout
    refused = "this user may not do that (permission denied for table"
    assert refused in one_line(run("launch", str(study(name="mine", samplers='["random"]')), "--workers", "1"))
    larger = study(samplers='["random"]', budget="trials = 4", epochs=2)
    assert refused in one_line(run("launch", str(larger), "--workers", "1"))
    assert refused in one_line(run("delete", "sleepy", "--yes"))
    # A worker that has something to do finds the same.
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE hpo_studies SET num_lineages = 4"))
    worker = run("worker", "sleepy")
    assert worker.returncode == 1, worker.stderr
    assert refused in worker.stderr.splitlines()[-1]
    assert "Traceback" not in worker.stderr
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT count(*), max(study_id) FROM studies")).one() == before
        assert connection.execute(sa.text("SELECT count(*) FROM trials")).scalar_one() == 2
        # The same for everybody on a server that only follows another one.
        connection.execute(sa.text("ALTER DATABASE hpo SET default_transaction_read_only = on"))
    engine.dispose()
    standby = hpo_command("launch", str(larger), "--workers", "1", HPO_STORAGE=tcp.address)
    assert "it takes no writes (cannot execute INSERT in a read-only transaction)" in one_line(standby)


def test_a_home_that_may_not_be_written(
    tcp: PostgresServer, environment: dict[str, str], hpo_command: Hpo, study: Study, tmp_path: Path
) -> None:
    """As a user who may not write there; root may anywhere, and gives that right up first."""
    file = study(samplers='["random"]', budget="trials = 2", epochs=2)
    assert hpo_command("launch", str(file), "--workers", "1", HPO_STORAGE=tcp.address).returncode == 0
    folder = tmp_path / "readonly"
    folder.mkdir(mode=0o555)
    drop_bounding, dac_override = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    code = (
        "import ctypes, os, sys\n"
        f"if os.geteuid() == 0: assert ctypes.CDLL(None).prctl({drop_bounding}, {dac_override}, 0, 0, 0) == 0\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'hpo', *sys.argv[1:]])\n"
    )

    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**environment, "HPO_HOME": str(folder), **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )

    said = f"error: the folder {folder} cannot be written: name one that you may write to with HPO_HOME\n"
    assert one_line(run("launch", str(file))) == said
    assert one_line(run("status")) == said
    # Nothing is written for a look at a database that is elsewhere; a worker wants a place for its files.
    status = run("status", "sleepy", "--json", HPO_STORAGE=tcp.address)
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["checkpoint_bytes"] == 0
    assert one_line(run("worker", "sleepy", HPO_STORAGE=tcp.address)) == said
    assert list(folder.iterdir()) == []
