"""The slurm launcher on a real Slurm of one node: job arrays that are preempted, cancelled, orphaned, refused."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.postgres_server import PostgresServer
from hpo.database.storage import open_storage

from .conftest import REPOSITORY
from .slurm_cluster import is_installed, running_slurm

pytestmark = pytest.mark.skipif(not is_installed(), reason="needs root and Debian's slurm-wlm and munge")

Study = Callable[..., Path]
LIMIT_SECONDS = 200
TRIALS = """
SELECT t.state::text, h.lineage, h.retried, h.failures, h.worker,
  (SELECT count(*) FROM trial_intermediate_values v WHERE v.trial_id = t.trial_id) AS epochs
FROM trials t JOIN studies s USING (study_id) JOIN hpo_trials h USING (trial_id) WHERE s.study_name LIKE :name
"""


@dataclass
class Slurm:
    """A running Slurm, a database beside it, and the file in which trainers note what they do."""

    environment: dict[str, str]
    storage: str
    log: Path
    folder: Path
    launchers: "list[subprocess.Popen[str]]"

    def launch(self, file: Path, *options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "hpo", "launch", str(file), "--launcher", "slurm", "--gpus", "none"]
        launcher = subprocess.Popen(
            [*command, "--heartbeat-seconds", "0.5", "--grace-seconds", "3", *options],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.launchers.append(launcher)
        return launcher

    def end_all(self) -> None:
        """Ends what a test that failed has left."""
        for launcher in self.launchers:
            if launcher.poll() is None:
                launcher.kill()
                launcher.communicate()
        self.launchers.clear()
        self.run("scancel", "--user=root")
        while self.jobs():
            time.sleep(0.1)

    def run(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def jobs(self) -> list[str]:
        """The array tasks that are there, each as ``job_place``."""
        return self.run("squeue", "-h", "-r", "-o", "%F_%K", "-t", "PENDING,RUNNING").split()

    def epochs(self) -> int:
        return self.log.read_bytes().count(b"\n")

    def wait_for_epochs(self, launcher: "subprocess.Popen[str]", count: int) -> None:
        before, deadline = self.epochs(), time.monotonic() + LIMIT_SECONDS
        while self.epochs() < before + count:
            if launcher.poll() is not None or time.monotonic() > deadline:
                launcher.kill()
                pytest.fail(f"no {count} epochs: {launcher.communicate()[0]}")
            time.sleep(0.05)

    def trials(self, name: str) -> list[sa.Row]:
        storage = open_storage(self.storage)
        with storage.engine.connect() as connection:
            rows = list(connection.execute(sa.text(TRIALS), {"name": f"{name}/%"}))
        storage.engine.dispose()
        return rows

    def assert_exact(self, name: str, budget: int) -> None:
        last = [row for row in self.trials(name) if not row.retried]
        assert Counter(row.state for row in last) == {"COMPLETE": budget}
        assert sorted(row.lineage for row in last) == list(range(budget))
        assert all(row.failures == 0 for row in last)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    # Paths of sockets hold at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hpo-slurm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        log = folder / "trainer.log"
        log.touch()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HPO_", "SLURM_"))}
        with running_slurm(folder / "slurm") as configuration, PostgresServer(folder / "postgres") as server:
            environment = kept | {
                "SLURM_CONF": str(configuration),
                "HPO_STORAGE": server.address,
                "HPO_HOME": str(folder / "home"),
                "HPO_TRAINERS": "benchmarks.sleeping",
                "PYTHONPATH": str(REPOSITORY),
                "SLEEPING_LOG": str(log),
            }
            yield Slurm(environment, server.address, log, folder, [])


@pytest.fixture(autouse=True)
def nothing_is_left(slurm: Slurm) -> Iterator[None]:
    yield
    slurm.end_all()


def test_preempted_cancelled_and_orphaned(slurm: Slurm, study: Study) -> None:
    """Exact through a preemption, a job that is cancelled, and the launcher's death; the same command goes on."""
    file = study(name="array", samplers='["random"]', budget="trials = 60", epochs=15, seconds=0.15)
    launcher = slurm.launch(file, "--workers", "3", "--partition", "low")
    slurm.wait_for_epochs(launcher, 6)
    assert len(slurm.jobs()) == 3
    # A job of others that takes the whole node for a moment: Slurm requeues ours, which give their trials back.
    slurm.run("srun", "--partition=high", "--exclusive", "sleep", "1")
    slurm.wait_for_epochs(launcher, 6)
    launcher.kill()
    launcher.communicate()
    jobs = slurm.jobs()
    assert len(jobs) == 3

    again = slurm.launch(file, "--workers", "3", "--partition", "low")
    slurm.wait_for_epochs(again, 6)
    assert sorted(slurm.jobs()) == sorted(jobs)
    second = slurm.launch(file, "--workers", "3", "--partition", "low")
    output, _ = second.communicate(timeout=LIMIT_SECONDS)
    assert second.returncode == 1
    assert "another launch watches the Slurm jobs hpo-array-" in output
    slurm.run("scancel", jobs[0])
    output, _ = again.communicate(timeout=LIMIT_SECONDS)
    assert again.returncode == 0, output
    assert "3 workers of an earlier launch are still there" in output
    assert "was cancelled" in output
    slurm.assert_exact("array", 60)
    assert slurm.jobs() == []


def test_ctrl_c_gives_trials_back_and_the_same_command_goes_on(slurm: Slurm, study: Study) -> None:
    file = study(name="asked", samplers='["random"]', budget="trials = 4", epochs=10, seconds=0.2)
    launcher = slurm.launch(file, "--workers", "2")
    slurm.wait_for_epochs(launcher, 6)
    launcher.send_signal(signal.SIGINT)
    output, _ = launcher.communicate(timeout=LIMIT_SECONDS)
    assert launcher.returncode == 130, output
    assert "the same command goes on" in output
    assert slurm.jobs() == []
    rows = slurm.trials("asked")
    assert {row.state for row in rows} <= {"COMPLETE", "FAIL", "WAITING"}
    assert {row.failures for row in rows} == {0}
    again = slurm.launch(file, "--workers", "2")
    output, _ = again.communicate(timeout=LIMIT_SECONDS)
    assert again.returncode == 0, output
    slurm.assert_exact("asked", 4)


def test_a_node_that_goes_down(slurm: Slurm, study: Study) -> None:
    file = study(name="down", samplers='["random"]', budget="trials = 4", epochs=8, seconds=0.2)
    launcher = slurm.launch(file, "--workers", "2")
    slurm.wait_for_epochs(launcher, 4)
    node = slurm.run("sinfo", "-h", "-N", "-o", "%N").split()[0]
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    time.sleep(1)
    # It may have come back by itself.
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], env=slurm.environment, check=False)
    # Slurm has requeued the jobs, to begin two minutes later.
    time.sleep(2)
    for job in slurm.jobs():
        subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], env=slurm.environment, check=False)
    output, _ = launcher.communicate(timeout=LIMIT_SECONDS)
    assert launcher.returncode == 0, output
    last = [row for row in slurm.trials("down") if not row.retried]
    assert Counter(row.state for row in last) == {"COMPLETE": 4}


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (["--workers", "2", "--partition", "nowhere"], "Slurm refuses: sbatch: error: invalid partition", 2),
        (["--workers", "2", "--sbatch", "--no-such-option"], "Slurm refuses: sbatch: unrecognized option", 2),
        (["--workers", "2", "--gpus-per-worker", "9", "--gpus", "all"], "Slurm refuses: sbatch: error:", 2),
        ([], "--launcher slurm needs --workers", 2),
        (["--workers", "1", "--gpus", "0"], "with Slurm give --gpus-per-worker, or --gpus none", 2),
    ],
)
def test_what_cannot_work_ends_at_once(slurm: Slurm, study: Study, options: list[str], message: str, code: int) -> None:
    launcher = slurm.launch(study(name="refused", samplers='["random"]'), *options)
    output, _ = launcher.communicate(timeout=LIMIT_SECONDS)
    assert message in output
    assert launcher.returncode == code, output
    assert "Traceback" not in output
    assert slurm.jobs() == []
