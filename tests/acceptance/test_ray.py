"""The ray launcher on a real cluster of two nodes, one of which is lost; over ``ray://``; and on a local one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from benchmarks.postgres_server import PostgresServer, free_port
from hpo.database.storage import open_storage

from .conftest import REPOSITORY, Hpo

pytest.importorskip("ray", reason="Ray is an extra: pip install 'hpo-service[ray]'")

Study = Callable[..., Path]
LIMIT_SECONDS = 200


@dataclass
class Cluster:
    """A running cluster, the database beside it, and the file in which its trainers note what they do."""

    process: "subprocess.Popen[str]"
    address: str
    client_address: str
    log: Path
    storage: str
    folder: Path

    def lose_a_node(self) -> list[int]:
        """Kills one of two nodes with all that runs on it; returns the process ids."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("lose\n")
        self.process.stdin.flush()
        killed: list[int] = json.loads(self.process.stdout.readline())["killed"]
        return killed


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Paths of Ray's sockets hold at most 107 bytes: pytest's own folders are too long for them.
    folder = Path(tempfile.mkdtemp(prefix="hpo-ray-"))
    log = folder / "trainer.log"
    log.touch()
    # What Ray's workers have in their environment is what the nodes were started with.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HPO_")}
    environment |= {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"PYTHONPATH": str(REPOSITORY), "SLEEPING_LOG": str(log)}
    command = [sys.executable, "-m", "tests.acceptance.ray_cluster"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    try:
        # The end of its input, which comes with the end of this block, ends the cluster.
        with (
            subprocess.Popen(command, env=environment, cwd=REPOSITORY, text=True, **pipes) as process,
            PostgresServer(folder / "postgres") as server,
        ):
            assert process.stdout is not None
            addresses = json.loads(process.stdout.readline())
            yield Cluster(process, log=log, storage=server.address, folder=folder, **addresses)
    finally:
        shutil.rmtree(folder)


def launch(cluster: Cluster, environment: dict[str, str], file: Path, address: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "hpo", "launch", str(file), "--launcher", "ray", "--ray-address", address]
    command += ["--heartbeat-seconds", "0.5", "--grace-seconds", "6"]
    return subprocess.Popen(
        command,
        env={**environment, "HPO_STORAGE": cluster.storage},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_epochs(cluster: Cluster, launcher: "subprocess.Popen[str]", count: int) -> None:
    before = cluster.log.read_bytes().count(b"\n")
    deadline = time.monotonic() + LIMIT_SECONDS
    while cluster.log.read_bytes().count(b"\n") < before + count:
        if launcher.poll() is not None or time.monotonic() > deadline:
            launcher.kill()
            pytest.fail(f"no {count} epochs: {launcher.communicate()[0]}")
        time.sleep(0.02)


def workers_of(name: str) -> list[psutil.Process]:
    """The worker processes of the experiment that are there, wherever they came from."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [])[-3:] == ["hpo", "worker", name]:
            found.append(process)
    return found


TRIALS = """
SELECT s.study_name, t.state::text, h.lineage, h.retried,
  (SELECT value_json FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'reason') AS reason,
  (SELECT value_json FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = 'config') AS config
FROM trials t JOIN studies s USING (study_id) JOIN hpo_trials h USING (trial_id) WHERE s.study_name LIKE :name
"""


def trials(address: str, name: str) -> list[sa.Row]:
    storage = open_storage(address)
    with storage.engine.connect() as connection:
        rows = list(connection.execute(sa.text(TRIALS), {"name": f"{name}/%"}))
    storage.engine.dispose()
    return rows


def assert_exact(rows: list[sa.Row], name: str, samplers: tuple[str, ...], budget: int) -> None:
    final = [row for row in rows if not row.retried]
    assert Counter((row.study_name, row.state) for row in final) == {
        (f"{name}/{sampler}/0", "COMPLETE"): budget for sampler in samplers
    }
    assert Counter((row.study_name, row.lineage) for row in final) == {
        (f"{name}/{sampler}/0", lineage): 1 for sampler in samplers for lineage in range(budget)
    }
    assert all(row.state == "FAIL" for row in rows if row.retried)


def test_a_lost_node_costs_nothing(cluster: Cluster, environment: dict[str, str], study: Study) -> None:
    file = study(name="lost", samplers='["grid", "tpe"]', epochs=4, seconds=0.15)
    launcher = launch(cluster, environment, file, cluster.address)
    wait_for_epochs(cluster, launcher, 20)
    on_both = {process.pid for process in workers_of("lost")}
    killed = on_both & set(cluster.lose_a_node())
    assert len(on_both) == 4
    assert len(killed) == 2
    output, _ = launcher.communicate(timeout=LIMIT_SECONDS)
    assert launcher.returncode == 0, output
    assert workers_of("lost") == []

    rows = trials(cluster.storage, "lost")
    assert_exact(rows, "lost", ("grid", "tpe"), 12)
    reasons = [row.reason for row in rows if row.retried]
    # Each of the two workers held one trial, and may have claimed its next one ahead.
    assert 1 <= len(set(reasons)) <= 2
    assert len(reasons) <= 4
    assert all("gave no sign of life for 6 s" in reason for reason in reasons)
    assert len({row.config for row in rows if row.study_name == "lost/grid/0" and not row.retried}) == 12


def test_over_ray_client_ctrl_c_gives_trials_back_and_launching_again_goes_on(
    cluster: Cluster, environment: dict[str, str], study: Study
) -> None:
    file = study(name="remote", samplers='["random"]', budget="trials = 4", epochs=8, seconds=0.1)
    launcher = launch(cluster, environment, file, cluster.client_address)
    wait_for_epochs(cluster, launcher, 6)
    launcher.send_signal(signal.SIGINT)
    output, _ = launcher.communicate(timeout=LIMIT_SECONDS)
    assert launcher.returncode == 130, output
    assert "the same command goes on" in output
    assert "Traceback" not in output
    assert workers_of("remote") == []
    rows = trials(cluster.storage, "remote")
    assert {row.state for row in rows} <= {"COMPLETE", "FAIL", "WAITING"}
    assert {row.reason for row in rows if row.retried} == {'"its worker was asked to end"'}

    again = launch(cluster, environment, file, cluster.client_address)
    output, _ = again.communicate(timeout=LIMIT_SECONDS)
    assert again.returncode == 0, output
    assert workers_of("remote") == []
    assert_exact(trials(cluster.storage, "remote"), "remote", ("random",), 4)


def test_without_an_address_ray_runs_on_this_machine(
    cluster: Cluster, hpo_command: Hpo, study: Study, home: Path
) -> None:
    """Its own Ray and the embedded server, though the machine has a cluster that Ray would find."""
    file = study(name="here", samplers='["random"]', budget="trials = 3", epochs=2)
    done = hpo_command(
        "launch", str(file), "--launcher", "ray", "--workers", "1", RAY_TMPDIR=str(cluster.folder), RAY_ADDRESS=""
    )
    assert done.returncode == 0, done.stderr
    assert workers_of("here") == []
    storage = open_storage(home=home)
    address = storage.secret_address
    storage.engine.dispose()
    assert_exact(trials(address, "here"), "here", ("random",), 3)


def test_what_cannot_work_is_told_at_once(hpo_command: Hpo, study: Study, home: Path) -> None:
    port = free_port()
    launched = ("launch", str(study()), "--launcher", "ray")
    no_storage = hpo_command(*launched, "--ray-address", f"ray://127.0.0.1:{port}")
    assert no_storage.returncode == 2
    assert no_storage.stderr == (
        f"error: workers on the Ray cluster at ray://127.0.0.1:{port} need a database that they all reach: "
        "give --serve, --storage or HPO_STORAGE\n"
    )
    named = hpo_command(*launched, "--gpus", "0,1")
    assert named.returncode == 2
    assert "--gpus 0,1 chooses among the GPUs of one machine" in named.stderr
    missing = subprocess.run(
        # As if it were not installed.
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['ray'] = None; from hpo.cli.main import main; main()",
            *launched,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "HPO_TRAINERS": "benchmarks.sleeping", "PYTHONPATH": str(REPOSITORY)},
    )
    assert missing.returncode == 2
    assert missing.stderr == "error: the ray launcher needs Ray: pip install 'hpo-service[ray]'\n"
    assert not home.exists()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_not_there(hpo_command: Hpo, study: Study, address: str, scheme: str) -> None:
    port = free_port()
    done = hpo_command(
        *("launch", str(study()), "--launcher", "ray", "--ray-address", f"{scheme}127.0.0.1:{port}"),
        *("--storage", address),
    )
    assert done.returncode == 1
    *notes, error = done.stderr.splitlines()
    assert all(line.startswith("note: ") for line in notes)
    assert error == (
        f"error: the Ray cluster at {scheme}127.0.0.1:{port} cannot be reached: [Errno 111] Connection refused; "
        "is it running, and is the address host:port or ray://host:port?"
    )
