"""A password is shown to nobody: not in ``ps``, not in output, not in files. Nothing is imported unasked."""

import json
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
import sqlalchemy as sa

from benchmarks.postgres_server import PostgresServer
from hpo.database.storage import open_storage

from .conftest import Hpo


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("secrets") / "postgres") as running:
        yield running


def command_lines() -> str:
    """The command lines of all processes, as ``ps`` shows them."""
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return "\n".join(lines)


def files_with(text: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("form", ["--storage {}", "--storage={}", "in the query", "by environment"])
def test_a_password_is_in_no_process_no_output_and_no_file(
    form: str, server: PostgresServer, environment: dict[str, str], study: Callable[..., Path], tmp_path: Path
) -> None:
    address = server.address
    if form == "in the query":
        address = f"postgresql:///hpo?host=127.0.0.1&port={server.port}&user=hpo&password={server.password}"
    arguments = form.format(address).split() if "{}" in form else ["--storage", address]
    if form == "by environment":
        environment, arguments = {**environment, "HPO_STORAGE": address}, []
    file = study(samplers='["random"]', budget="trials = 2", epochs=1000, seconds=0.01)
    log = tmp_path / "trainer.log"
    launcher = subprocess.Popen(
        [sys.executable, "-m", "hpo", "launch", str(file), "--workers", "2", *arguments],
        env={**environment, "SLEEPING_LOG": str(log)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        while not log.exists() or len({json.loads(line)["pid"] for line in log.read_text().splitlines()}) < 2:
            assert launcher.poll() is None, launcher.communicate()[0]
            time.sleep(0.02)
        shown = command_lines()
        assert shown.count("hpo worker sleepy") >= 2
        assert "launch" in shown
        assert server.password not in shown
        # Errors of the database are written to the logs, whose addresses are masked.
        with psycopg2.connect(server.address) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        connection.close()
        ended = log.read_text().count("\n") + 50
        while log.read_text().count("\n") < ended:
            assert launcher.poll() is None, launcher.communicate()[0]
            time.sleep(0.02)
    finally:
        if launcher.poll() is None:
            launcher.terminate()
    output, _ = launcher.communicate()
    assert launcher.returncode == 130, output
    assert server.password not in output
    assert list(tmp_path.glob("home/logs/*.log"))
    assert files_with(server.password, tmp_path) == []


def test_the_embedded_server_is_its_owners_alone(hpo_command: Hpo, study: Callable[..., Path], home: Path) -> None:
    """It asks for no password, so nobody else may reach its socket or its files."""
    assert hpo_command("launch", str(study(samplers='["random"]', budget="trials = 1", epochs=1))).returncode == 0
    assert stat.S_IMODE((home / "postgres").stat().st_mode) == 0o700
    storage = open_storage(home=home)
    with storage.engine.connect() as connection:

        def shown(setting: str) -> str:
            return str(connection.execute(sa.text(f"SHOW {setting}")).scalar())

        assert shown("listen_addresses") == ""
        assert shown("unix_socket_permissions") == "0700"
        sockets = list(Path(shown("unix_socket_directories")).glob(".s.PGSQL.*[0-9]"))
    storage.engine.dispose()
    assert [stat.S_IMODE(socket.stat().st_mode) for socket in sockets] == [0o700] * len(sockets)
    assert sockets


def test_a_worker_imports_only_what_it_was_told(hpo_command: Hpo, tmp_path: Path) -> None:
    """The name of a trainer in the database is looked up in the table, and never imported."""
    (tmp_path / "quiet.py").write_text(
        "import hpo\nfrom pathlib import Path\n"
        "with Path('imported').open('a') as file:\n    file.write('x')\n"
        "class Config(hpo.Config):\n    x: float = 0.0\n    epochs: int = 1\n"
        "@hpo.trainer('quiet')\n"
        "def quiet(config: Config, run: hpo.Run):\n    yield {'loss': config.x}\n"
    )
    (tmp_path / "quiet.toml").write_text(
        'name = "quiet"\ntrainer = "quiet"\nmetric = "loss"\nbudget = { trials = 2 }\n'
        "[space]\nx = { low = 0.0, high = 1.0 }\n"
    )
    launched = hpo_command("launch", "quiet.toml", "--trainers", "quiet", "--workers", "1")
    assert launched.returncode == 0, launched.stderr
    imported = (tmp_path / "imported").read_text()
    assert imported
    refused = hpo_command("worker", "quiet")
    assert refused.returncode in (1, 2)
    assert refused.stderr.startswith("error: ")
    assert "quiet" in refused.stderr
    assert "--trainers" in refused.stderr
    assert (tmp_path / "imported").read_text() == imported
