"""Runs the command line as a person does: real processes, a real server, a home of the test's own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.postgres_server import PostgresServer

Hpo = Callable[..., "subprocess.CompletedProcess[str]"]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """The environment of commands: the embedded server in the test's home, the sleeping trainer importable."""
    return {**os.environ, "HPO_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "HPO_TRAINERS": "benchmarks.sleeping"}


@pytest.fixture
def hpo_command(environment: dict[str, str], tmp_path: Path) -> Hpo:
    """Runs ``hpo`` with arguments in an empty folder; returns the finished process with its output as text."""

    def run(*arguments: str, timeout: float = 240, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "hpo", *arguments],
            env={**environment, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    return run


SLEEPING = """
name = "{name}"
trainer = "sleeping"
metric = "value"
samplers = {samplers}
budget = {{ {budget} }}
pruner = "{pruner}"
[fixed]
epochs = {epochs}
epoch_seconds = {seconds}
[space]
lr = {{ low = 1e-3, high = 1.0, log = true, grid = 4 }}
beta = {{ low = 0.8, high = 0.99, grid = [0.85, 0.9, 0.95] }}
batch_size = [32, 64]
"""


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study file of the sleeping trainer and returns its path."""

    def write(
        name: str = "sleepy",
        samplers: str = '["grid", "random", "tpe"]',
        budget: str = "trials = 12",
        pruner: str = "none",
        epochs: int = 4,
        seconds: float = 0.02,
    ) -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(
            SLEEPING.format(name=name, samplers=samplers, budget=budget, pruner=pruner, epochs=epochs, seconds=seconds)
        )
        return path

    return write


@pytest.fixture
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of the test's own, with a password."""
    with PostgresServer(tmp_path_factory.mktemp("faults") / "postgres", "fsync=off") as running:
        yield running
