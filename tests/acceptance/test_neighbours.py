"""Neighbours: several launches of one experiment, and one that somebody deletes while it runs."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from hpo.database.storage import open_storage

from .conftest import Hpo

Study = Callable[..., Path]
LIMIT_SECONDS = 200


@pytest.fixture
def log(environment: dict[str, str], tmp_path: Path) -> Path:
    """Where the trainers of all launches note their epochs."""
    path = tmp_path / "trainer.log"
    path.touch()
    environment["SLEEPING_LOG"] = str(path)
    return path


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts ``hpo`` with arguments; ends what still runs after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> "subprocess.Popen[str]":
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "hpo", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def wait_for_epochs(log: Path, count: int, *processes: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while log.read_bytes().count(b"\n") < count:
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_exact(home: Path, log: Path, name: str, samplers: tuple[str, ...], budget: int, epochs: int) -> None:
    """Each lineage finished once and was trained once, and nothing else is there."""
    storage = open_storage(home=home)
    sql = """
        SELECT s.study_name, h.lineage, t.state::text FROM trials t JOIN studies s USING (study_id)
        LEFT JOIN hpo_trials h USING (trial_id)
    """
    with storage.engine.connect() as connection:
        rows = Counter(map(tuple, connection.execute(sa.text(sql))))
    storage.engine.dispose()
    assert rows == {
        (f"{name}/{sampler}/0", lineage, "COMPLETE"): 1 for sampler in samplers for lineage in range(budget)
    }
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == len({(line["seed"], line["epoch"]) for line in lines}) == len(samplers) * budget * epochs


def workers_of(launcher: "subprocess.Popen[str]") -> set[int]:
    return {child.pid for child in psutil.Process(launcher.pid).children()}


def test_two_launches_in_the_same_moment(
    start: Callable[..., "subprocess.Popen[str]"], study: Study, log: Path, home: Path
) -> None:
    """Not even the embedded server and the tables are there before."""
    file = study(samplers='["grid", "tpe"]', epochs=3, seconds=0.1)
    launchers = [start("launch", str(file), "--workers", "2") for _ in range(2)]
    outputs = [launcher.communicate(timeout=LIMIT_SECONDS)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    for output in outputs:
        assert "comparison could not be" not in output
        assert "hpo export sleepy" in output
    assert_exact(home, log, "sleepy", ("grid", "tpe"), 12, 3)


def test_a_launch_joins_one_that_runs(
    start: Callable[..., "subprocess.Popen[str]"], study: Study, log: Path, home: Path
) -> None:
    file = study(samplers='["grid", "tpe"]', epochs=3, seconds=0.1)
    first = start("launch", str(file), "--workers", "1")
    wait_for_epochs(log, 9, first)
    second = start("launch", str(file), "--workers", "2")
    outputs = [launcher.communicate(timeout=LIMIT_SECONDS)[0] for launcher in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert_exact(home, log, "sleepy", ("grid", "tpe"), 12, 3)
    # The second one took part.
    assert len({json.loads(line)["pid"] for line in log.read_text().splitlines()}) == 3


def test_two_files_of_one_name_in_the_same_moment(
    start: Callable[..., "subprocess.Popen[str]"], study: Study, log: Path, home: Path, tmp_path: Path, hpo_command: Hpo
) -> None:
    files = {}
    for epochs in (2, 3):
        file = study(samplers='["random"]', budget="trials = 6", epochs=epochs, seconds=0.1)
        files[epochs] = file.rename(tmp_path / f"{epochs}.toml")
    launchers = {epochs: start("launch", str(file), "--workers", "1") for epochs, file in files.items()}
    outputs = {epochs: launcher.communicate(timeout=LIMIT_SECONDS)[0] for epochs, launcher in launchers.items()}
    codes = {epochs: launcher.returncode for epochs, launcher in launchers.items()}
    assert sorted(codes.values()) == [0, 1], outputs
    won, refused = (2, 3) if codes[2] == 0 else (3, 2)
    assert outputs[refused].startswith(
        "error: the experiment 'sleepy' was made from another study file:\n"
        f"  fixed.epochs: {won} -> {refused}\n"
        "give this one another name, or delete that one first: hpo delete sleepy\n"
    )
    assert_exact(home, log, "sleepy", ("random",), 6, won)
    best = json.loads(hpo_command("status", "sleepy", "--json").stdout)["studies"][0]["best"]
    assert best["config"]["epochs"] == won


@pytest.mark.parametrize("pruner", ["none", "median"])
def test_an_experiment_deleted_while_it_runs(
    start: Callable[..., "subprocess.Popen[str]"], study: Study, log: Path, home: Path, hpo_command: Hpo, pruner: str
) -> None:
    """With a pruner a worker reads the others' trials after each epoch, without one it only writes."""
    file = study(samplers='["grid", "tpe"]', epochs=5, seconds=0.2, pruner=pruner)
    launcher = start("launch", str(file), "--workers", "2")
    wait_for_epochs(log, 6, launcher)
    workers = workers_of(launcher)
    alone = start("worker", "sleepy")
    while not any(json.loads(line)["pid"] == alone.pid for line in log.read_text().splitlines()):
        assert alone.poll() is None, alone.communicate()[0]
        time.sleep(0.02)
    deleted = hpo_command("delete", "sleepy", "--yes")
    assert deleted.returncode == 0, deleted.stderr

    output, _ = launcher.communicate(timeout=LIMIT_SECONDS)
    worker_output, _ = alone.communicate(timeout=LIMIT_SECONDS)
    assert (launcher.returncode, alone.returncode) == (1, 1)
    for text in (output, worker_output):
        assert "Traceback" not in text
        assert text.splitlines()[-1].strip() == "error: the experiment was deleted while this worker ran"
    assert not any(psutil.pid_exists(pid) for pid in workers)

    # Nothing has come back, and the name is free.
    storage = open_storage(home=home)
    with storage.engine.connect() as connection:
        for table in ("studies", "trials", "hpo_studies", "hpo_trials", "trial_user_attributes", "trial_heartbeats"):
            assert connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar() == 0, table
    storage.engine.dispose()
    assert not [path for path in (home / "checkpoints").rglob("*") if path.is_file()]
    again = study(samplers='["random"]', budget="trials = 2", epochs=1)
    assert hpo_command("launch", str(again), "--workers", "1").returncode == 0
