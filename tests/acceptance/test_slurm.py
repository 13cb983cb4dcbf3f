"""The slurm launcher on a real Slurm of one node: job arrays that are preempted, cancelled, orphaned, refused."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.postgres_server import PostgresServer
from hpo.database.storage import open_storage
from hpo.experiment.experiment import create_experiment
from hpo.studyfile.load import load_study_file

from .conftest import REPOSITORY
from .slurm_cluster import is_installed, running_slurm
from .test_supervised_worker import BREAKING
from .test_supervised_worker import STUDY as BROKEN

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
    home: Path | None = None

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

    def start_requeued(self) -> None:
        """Slurm has jobs that it requeues begin two minutes later."""
        for job in self.run("squeue", "-h", "-r", "-o", "%F_%K", "-t", "PENDING").split():
            # One that has begun meanwhile does not take it.
            subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], env=self.environment, check=False)

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
        storage = open_storage(self.storage or "embedded", home=self.home)
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


@dataclass(frozen=True)
class Size:
    """How much is trained, and by how many workers."""

    trials: int
    epochs: int
    seconds: float
    workers: int


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(Size(24, 36, 0.15, 4), id="short"),
        pytest.param(Size(40, 50, 0.25, 6), id="long", marks=pytest.mark.release),
    ],
)
def test_everything_that_a_cluster_does(slurm: Slurm, study: Study, size: Size) -> None:
    """A preemption, a time limit, a requeue, a cancelled task and the launcher's death: exact, each epoch once.

    The database is the one that comes with the package, on TCP, started by the launcher that dies.
    """
    name = f"everything-{size.trials}"
    home = slurm.folder / name
    slurm = replace(slurm, environment={k: v for k, v in slurm.environment.items() if k != "HPO_STORAGE"})
    slurm.environment["HPO_HOME"] = str(home)
    budget = f"trials = {size.trials}"
    file = study(name=name, samplers='["random"]', budget=budget, epochs=size.epochs, seconds=size.seconds)
    options = ("--workers", str(size.workers), "--partition", "low", "--serve")
    logged = slurm.epochs()
    launcher = slurm.launch(file, *options)
    slurm.wait_for_epochs(launcher, 6)
    assert len(slurm.jobs()) == size.workers
    # A job of others that takes the whole node for a moment: Slurm requeues ours, which give their trials back.
    slurm.run("srun", "--partition=high", "--exclusive", "sleep", "1")
    slurm.start_requeued()
    slurm.wait_for_epochs(launcher, 6)
    # A limit that is near: the task is asked to end, and another takes its place.
    slurm.run("scontrol", "update", f"jobid={slurm.jobs()[0]}", "timelimit=1")
    slurm.run("scontrol", "requeue", slurm.jobs()[1])
    slurm.wait_for_epochs(launcher, 6)
    launcher.kill()
    launcher.communicate()
    slurm.start_requeued()
    jobs = slurm.jobs()
    assert len(jobs) >= size.workers - 1

    again = slurm.launch(file, *options)
    slurm.wait_for_epochs(again, 6)
    second = slurm.launch(file, *options)
    output, _ = second.communicate(timeout=LIMIT_SECONDS)
    assert second.returncode == 1
    assert f"another launch watches the Slurm jobs hpo-{name}-" in output
    slurm.run("scancel", slurm.jobs()[-1])
    slurm.start_requeued()
    output, _ = again.communicate(timeout=LIMIT_SECONDS)
    assert again.returncode == 0, output
    assert "workers of an earlier launch are still there" in output
    assert "was cancelled" in output
    assert slurm.jobs() == []

    slurm = replace(slurm, storage="", home=home)
    slurm.assert_exact(name, size.trials)
    rows = slurm.trials(name)
    given_back = sum(row.retried for row in rows)
    assert given_back >= 4
    # What was trained is what was wanted, and at most the epoch that ran when a trial was interrupted.
    wanted = size.trials * size.epochs
    assert wanted <= slurm.epochs() - logged <= wanted + given_back


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


def test_the_whole_array_is_cancelled(slurm: Slurm, study: Study) -> None:
    """Somebody's wish: nothing takes its place, the launch ends, and the same command goes on."""
    file = study(name="gone", samplers='["random"]', budget="trials = 4", epochs=6, seconds=0.2)
    launcher = slurm.launch(file, "--workers", "2")
    slurm.wait_for_epochs(launcher, 4)
    slurm.run("scancel", slurm.jobs()[0].partition("_")[0])
    output, _ = launcher.communicate(timeout=LIMIT_SECONDS)
    assert launcher.returncode == 1, output
    assert output.count("was cancelled") == 2
    assert "error: the workers ended before the experiment did; launch it again to go on" in output
    assert {row.failures for row in slurm.trials("gone")} == {0}
    again = slurm.launch(file, "--workers", "2")
    output, _ = again.communicate(timeout=LIMIT_SECONDS)
    assert again.returncode == 0, output
    slurm.assert_exact("gone", 4)


def test_a_folder_that_the_node_cannot_write(slurm: Slurm, study: Study) -> None:
    """The workers say which, and the launch ends with it."""
    file = study(name="readonly", samplers='["random"]', budget="trials = 2", epochs=2)
    # What only the node lacks: the job's own view of the shared folder is mounted read-only.
    home = slurm.folder / "shared"
    home.mkdir()
    wrapper = slurm.folder / "python"
    wrapper.write_text(
        f"#!/bin/sh\nexec unshare --mount sh -c 'mount --bind {home} {home} && mount -o remount,ro,bind {home} "
        f'&& exec "$@"\' sh {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o755)
    code = f"import sys; sys.executable = {str(wrapper)!r}; from hpo.cli.main import main; main()"
    command = [sys.executable, "-c", code, "launch", str(file), "--launcher", "slurm", "--gpus", "none"]
    done = subprocess.run(
        [*command, "--workers", "1", "--max-restarts", "1"],
        env=slurm.environment | {"HPO_HOME": str(home)},
        cwd=slurm.folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "annot" in done.stderr
    assert slurm.jobs() == []


@pytest.mark.release
def test_a_time_limit_shorter_than_an_epoch(slurm: Slurm, study: Study) -> None:
    """No epoch is ever finished: the launch ends, and says so."""
    file = study(name="shortlimit", samplers='["random"]', budget="trials = 2", epochs=2, seconds=300)
    launcher = slurm.launch(file, "--workers", "1", "--time", "1", "--max-restarts", "1")
    output, _ = launcher.communicate(timeout=LIMIT_SECONDS)
    assert launcher.returncode == 1, output
    assert "2 workers in a row died before any trial moved on; the last one " in output
    assert {row.failures for row in slurm.trials("shortlimit")} == {0}
    assert slurm.jobs() == []


def test_the_manifest_is_submitted(slurm: Slurm, study: Study) -> None:
    """Made by one command, worked off by the script alone."""
    file = study(name="by-hand", samplers='["random"]', budget="trials = 2", epochs=2)
    output, _ = (launcher := slurm.launch(file, "--workers", "1")).communicate(timeout=LIMIT_SECONDS)
    assert launcher.returncode == 0, output
    extend = [sys.executable, "-m", "hpo", "extend", "by-hand", "--trials", "5", "--yes"]
    slurm.run(*extend)
    manifest = [sys.executable, "-m", "hpo", "manifest", "slurm", "by-hand", "--workers", "2"]
    script = slurm.run(*manifest, "--gpus-per-worker", "0", "--memory-gb", "1", "--cpus-per-worker", "1")
    path = slurm.folder / "workers.sh"
    path.write_text(script)
    hpo_on_path = f"{Path(sys.executable).parent}:{slurm.environment['PATH']}"
    again = replace(slurm, environment=slurm.environment | {"PATH": hpo_on_path})
    again.run("sbatch", "--wait", f"--chdir={slurm.folder}", str(path))
    slurm.assert_exact("by-hand", 5)


@pytest.mark.release
def test_a_worker_by_srun_is_followed_by_another(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher stands above: after a broken device another worker follows in the same process of the task."""
    (slurm.folder / "breaking_by_srun.py").write_text(BREAKING.replace('"breaking"', '"breaking-by-srun"'))
    file = slurm.folder / "bysrun.toml"
    file.write_text(BROKEN.replace('"broken"', '"bysrun"').replace('"breaking"', '"breaking-by-srun"'))
    monkeypatch.syspath_prepend(slurm.folder)
    storage = open_storage(slurm.storage)
    create_experiment(storage, load_study_file(file, "breaking_by_srun"), "breaking_by_srun")
    storage.engine.dispose()
    done = subprocess.run(
        ["srun", "--partition=high", sys.executable, "-m", "hpo", "worker", "bysrun"],
        env=slurm.environment | {"HPO_DEVICE": "cpu", "HPO_TRAINERS": "breaking_by_srun"},
        cwd=slurm.folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("another worker takes the place of this one") == 1
    notes = [line.split() for line in (slurm.folder / "notes").read_text().splitlines()]
    assert len({pid for pid, _ in notes}) == 1
    assert len({worker for _, worker in notes}) == 2
    slurm.assert_exact("bysrun", 2)


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (["--workers", "2", "--partition", "nowhere"], "Slurm refuses: sbatch: error: invalid partition", 2),
        (["--workers", "2", "--sbatch", "--no-such-option"], "Slurm refuses: sbatch: unrecognized option", 2),
        (["--workers", "2", "--gpus-per-worker", "9", "--gpus", "all"], "Slurm refuses: sbatch: error:", 2),
        (["--workers", "5000"], "Slurm refuses: sbatch: error: Batch job submission failed: Invalid job array", 2),
        (["--workers", "1", "--sbatch", "--mem=9999G"], "Memory specification can not be satisfied", 2),
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
