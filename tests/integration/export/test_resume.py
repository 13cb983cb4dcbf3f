"""``hpo train --resume``: a training that is killed goes on from its last epochs and ends with the same result."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hpo.export.resumption
from hpo.export.resumption import Resumption
from hpo.studyfile.load import load_study_file
from hpo.trainers.loading import load_trainers
from hpo.trainers.protocol import EpochEnd, Run

FILE = """
name = "resumed"
trainer = "classifier"
metric = "val_accuracy"
[fixed]
dataset = "digits"
network = "mlp"
epochs = 12
batch_size = 64
lr = 0.05
"""
# Saves after each epoch; --slow waits after each, so that there is time to kill it.
RUN = """
import json, sys, time
import hpo.export.resumption
from hpo import api
hpo.export.resumption.SAVE_SECONDS = 0.0
file, folder, diagnose, slow = sys.argv[1:]

def report(seed, epoch, metrics):
    print("epoch", epoch, flush=True)
    time.sleep(0.3 if slow == "slow" else 0)

result = api.train(file, resume=folder or None, diagnose=diagnose or None, report=report)
print(json.dumps(result["runs"]))
"""


def command(file: Path, folder: Path | str, diagnose: Path | str = "", slow: str = "") -> list[str]:
    return [sys.executable, "-c", RUN, str(file), str(folder), str(diagnose), slow]


def finished(arguments: list[str]) -> tuple[int, list[dict[str, float]]]:
    """Number of epochs reported, and the runs."""
    output = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=120).stdout.splitlines()
    runs = json.loads(output[-1])
    for run in runs:
        run.pop("seconds", None)
        run.pop("seconds_per_epoch", None)
    return len(output) - 1, runs


def killed_after(arguments: list[str], epochs: int) -> None:
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == f"epoch {epochs}\n":
                process.send_signal(signal.SIGKILL)


def test_a_killed_training_goes_on_and_gives_the_same_bits(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_text(FILE)
    _, expected = finished(command(file, ""))
    state = tmp_path / "state"
    killed_after(command(file, state, slow="slow"), 5)
    assert list(state.rglob("*.ckpt")) != []
    epochs, runs = finished(command(file, state))
    assert (epochs, runs) == (12, expected)
    assert list(state.rglob("*.ckpt")) == []  # nothing is left of a training that has ended


@pytest.mark.release
def test_a_diagnosis_goes_on_too(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_text(FILE)
    _, expected = finished(command(file, "", tmp_path / "whole"))
    killed_after(command(file, tmp_path / "state", tmp_path / "parts", "slow"), 5)
    epochs, runs = finished(command(file, tmp_path / "state", tmp_path / "parts"))
    assert (epochs, runs) == (12, expected)
    whole, parts = (json.loads((tmp_path / name / "diagnostics.json").read_text()) for name in ("whole", "parts"))
    for each in (whole, parts):
        for metrics in each["history"]["epochs"]:
            metrics.pop("seconds")
            metrics.pop("seconds_per_epoch")
    assert whole["history"] == parts["history"]
    # Activations are watched at each step, and those of the first process are gone.
    assert 0 < parts["hamming"]["num_steps"] < whole["hamming"]["num_steps"]
    assert {name for name in whole if whole[name] != parts[name]} == {"hamming"}


def test_a_program_finds_its_checkpoints_again(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time, pathlib\n"
        "path = pathlib.Path(os.environ['HPO_CHECKPOINT_DIR']) / 'epoch'\n"
        "start = int(path.read_text()) if path.exists() else 0\n"
        "print('started at', start)\n"
        "for epoch in range(start + 1, 7):\n"
        "    path.write_text(str(epoch))\n"
        '    print(\'{"acc": %d, "epoch": %d}\' % (epoch, epoch), flush=True)\n'
        "    time.sleep(0.3)\n"
    )
    file = tmp_path / "file.toml"
    file.write_text(
        'name = "program"\ntrainer = "program"\nmetric = "acc"\ndirection = "maximize"\n'
        f"command = [\"{{python}}\", '{program}']\n"
    )
    killed_after(command(file, tmp_path / "state"), 3)
    time.sleep(0.2)
    epochs, runs = finished(command(file, tmp_path / "state"))
    assert 4 <= epochs <= 6  # reports of a program within a second after a saved one are not kept
    assert runs[0]["acc"] == 6.0
    log = next((tmp_path / "state" / "files").rglob("log.txt")).read_text()
    assert log.count("started at") == 2
    assert "started at 0" in log


def resumption(folder: Path, file: Path, seed: int = 3) -> Resumption:
    return Resumption(folder, load_study_file(file), seed)


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_short_epochs_are_not_all_written(seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpo.export.resumption, "SAVE_SECONDS", seconds)
    load_trainers("")
    file, other = tmp_path / "file.toml", tmp_path / "other.toml"
    file.write_text(FILE)
    other.write_text(FILE.replace("lr = 0.05", "lr = 0.06"))
    kept = resumption(tmp_path / "state", file)
    for epoch in (1, 2, 3):
        metrics = {"val_accuracy": 0.1 * epoch}
        kept.add(EpochEnd(0, epoch, metrics, False, lambda: {"w": 1}), metrics)

    def restored(file: Path, seed: int) -> tuple[int, int]:
        run = Run()
        history = resumption(tmp_path / "state", file, seed).restore(run)
        return run.start_epoch, len(history)

    assert restored(file, 3) == ((3, 3) if seconds == 0 else (0, 0))
    # Another seed or configuration in the same folder has a state of its own.
    assert restored(file, 4) == restored(other, 3) == (0, 0)
    resumption(tmp_path / "state", other).clear()
    assert restored(file, 3) == ((3, 3) if seconds == 0 else (0, 0))
    kept.clear()
    assert restored(file, 3) == (0, 0)
