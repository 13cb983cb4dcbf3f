"""``hpo worker`` by hand: where no launcher stands above, another worker follows one that asks to be replaced."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpo.database.storage import Storage
from hpo.experiment.experiment import create_experiment
from hpo.experiment.status import snapshot
from hpo.studyfile.load import load_study_file
from hpo.worker.exit_codes import EXIT_DEVICE

from .conftest import Hpo

BREAKING = """
import os
import hpo

class Config(hpo.Config):
    x: float = 0.5

@hpo.trainer("breaking", metrics={"loss": "minimize"})
def breaking(config: Config, run: hpo.Run):
    yield {"loss": config.x + 1}
    with open("notes", "a") as notes:
        notes.write(f"{os.getpid()} {os.environ['HPO_WORKER_ID']}\\n")
    if run.lineage == 0 and run.attempt == 0:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    yield {"loss": config.x}
"""
STUDY = """
name = "broken"
trainer = "breaking"
metric = "loss"
samplers = ["random"]
budget = { trials = 2 }
[space]
x = { low = 0.0, high = 1.0 }
"""


@pytest.fixture
def broken(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """An experiment whose first trial breaks its device once; returns what reads process and worker of each attempt."""
    (tmp_path / "breaking_device.py").write_text(BREAKING)
    (tmp_path / "broken.toml").write_text(STUDY)
    monkeypatch.syspath_prepend(tmp_path)
    create_experiment(storage, load_study_file(tmp_path / "broken.toml", "breaking_device"), "breaking_device")
    return lambda: [line.split() for line in (tmp_path / "notes").read_text().splitlines()]


GIVEN = {"HPO_TRAINERS": "breaking_device", "HPO_DEVICE": "cpu"}


def test_by_default_another_worker_follows(
    broken: Callable[[], list[list[str]]], storage: Storage, address: str, hpo_command: Hpo
) -> None:
    done = hpo_command("worker", "broken", HPO_STORAGE=address, **GIVEN)
    assert done.returncode == 0, done.stderr
    assert "another worker takes the place of this one" in done.stderr
    notes = broken()
    assert len({pid for pid, _ in notes}) == 1
    assert len({worker for _, worker in notes}) == 2
    (study,) = storage.get_all_studies()
    from hpo.experiment.experiment import load_experiment

    assert snapshot(load_experiment(storage, "broken"))["studies"][0]["states"]["complete"] == 2
    assert study.study_name == "broken/random/0"


@pytest.mark.parametrize("how", ["a launcher", "--no-supervise"])
def test_where_a_launcher_stands_above_it_is_the_one_that_decides(
    how: str, broken: Callable[[], list[list[str]]], address: str, environment: dict[str, str], tmp_path: Path
) -> None:
    given = {**environment, **GIVEN, "HPO_STORAGE": address}
    given |= {"HPO_LAUNCHER_PID": str(os.getpid())} if how == "a launcher" else {}
    options = [how] if how.startswith("--") else []
    done = subprocess.run(
        [sys.executable, "-m", "hpo", "worker", "broken", *options],
        env=given,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == EXIT_DEVICE, done.stderr
    assert "another worker takes" not in done.stderr
    assert len({worker for _, worker in broken()}) == 1
