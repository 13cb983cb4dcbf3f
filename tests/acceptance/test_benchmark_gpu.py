"""The whole flow of ``python -m benchmarks.gpu`` with small sizes on a CPU; a machine with a GPU runs the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from tests.unit.trainers_support import DATA_DIR, needs_cifar10, needs_mnist

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HPO_")}
    words = [sys.executable, "-m", "benchmarks.gpu", "--data-dir", str(folder), "--out", str(folder / "out"), "--small"]
    return subprocess.run(
        [*words, *more], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


def record(folder: Path) -> dict[str, dict[str, object]]:
    steps: dict[str, dict[str, object]] = json.loads((folder / "out" / "record.json").read_text())["steps"]
    return steps


def number_of(name: str) -> str:
    return str([step.name for step in gpu.STEPS].index(name) + 1)


def test_a_step_is_recorded_with_the_hardware(tmp_path: Path) -> None:
    """A search, its export, and the export trained again to the same bits."""
    done = run(tmp_path, "--step", number_of("same-bits"))
    assert done.returncode == 0, done.stdout + (tmp_path / "out" / "08-same-bits.txt").read_text()
    assert record(tmp_path)["same-bits"]["finished"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| 8 | hpo train gives the same bits in the deterministic mode |" in table
    assert "| 2 | packed digits MLP |  | not run |" in table
    assert "processor" in table
    assert "reproduced" in table


@pytest.mark.release
def test_a_step_that_fails_is_said_and_run_again(tmp_path: Path) -> None:
    (tmp_path / "out" / "home").mkdir(parents=True)
    (tmp_path / "out" / "home" / "postgres").write_text("a file where the server's folder is to be")
    failed = run(tmp_path, "--step", number_of("report-3"))
    assert failed.returncode == 1
    assert "failed: report-3" in failed.stdout
    (tmp_path / "out" / "home" / "postgres").unlink()
    again = run(tmp_path, "--step", number_of("report-3"))
    assert again.returncode == 0, again.stdout


@pytest.mark.release
@pytest.mark.timeout(1000)
@needs_mnist
@needs_cifar10
def test_all_steps_in_order_and_none_twice(tmp_path: Path) -> None:
    for name in DATA_DIR.iterdir():
        (tmp_path / name.name).symlink_to(name)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    assert [name for name, entry in record(tmp_path).items() if entry["finished"]] == [s.name for s in gpu.STEPS]
    again = run(tmp_path)
    assert again.stdout.count("done before") == len(gpu.STEPS)
