"""Workers whose launcher was killed while the database is away: nobody wants them any more, and they end."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.postgres_server import PostgresServer

Study = Callable[..., Path]
LIMIT_SECONDS = 200
# Stands for a launcher that has just started a worker when the database goes away.
LAUNCHER = """
import os, subprocess, sys
os.environ["HPO_LAUNCHER_PID"] = str(os.getpid())
subprocess.run([sys.executable, "-m", "hpo", "worker", "sleepy"])
"""


def assert_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=LIMIT_SECONDS)
    for process in alive:
        process.kill()
    assert alive == []


def test_workers_end_without_launcher_and_database(environment: dict[str, str], study: Study, tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    log.touch()
    file = study(samplers='["random"]', epochs=50, seconds=0.1)
    with PostgresServer(tmp_path / "postgres") as server:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "hpo", "launch", str(file), "--workers", "1", "--heartbeat-seconds", "0.5"],
            env={**environment, "HPO_STORAGE": server.address, "SLEEPING_LOG": str(log)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while log.read_bytes().count(b"\n") < 4:
            assert launcher.poll() is None
            time.sleep(0.02)
        workers = psutil.Process(launcher.pid).children()
        assert len(workers) == 1
        server.stop()
        launcher.kill()
        launcher.wait()
        assert_end(workers)


def test_a_worker_that_has_just_started_ends_too(environment: dict[str, str], tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "postgres") as server:
        server.stop()
        with subprocess.Popen(
            [sys.executable, "-c", LAUNCHER],
            env={**environment, "HPO_STORAGE": server.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as launcher:
            assert launcher.stdout is not None
            while "the database does not answer; waiting for it" not in (line := launcher.stdout.readline()):
                assert line
            workers = psutil.Process(launcher.pid).children()
            assert len(workers) == 1
            launcher.kill()
            assert_end(workers)
            assert "nothing listens there" in launcher.stdout.read()
