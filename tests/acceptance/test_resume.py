"""A killed trial goes on to the same result, to the last bit: real workers, killed at random moments of an epoch.

Momentum, Adam's moments, the schedule, dropout and the order of the data all go on where they were.
"""

import contextlib
import csv
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.database.storage import open_storage

from .conftest import Hpo

STUDY = """
name = "{name}"
trainer = "classifier"
metric = "val_loss"
checkpoint_seconds = 0
samplers = ["grid"]
budget = {{ trials = {trials} }}
slots = {slots}
{more}
[fixed]
dataset = "{dataset}"
network = "mlp"
epochs = {epochs}
batch_size = {batch_size}
train_size = {train_size}
val_size = 100
width_1 = 300
width_2 = 100
lr = 0.01
beta = 0.9
weight_decay = 1e-4
dropout = 0.2
scheduler = "cosine"
warmup_epochs = 1.5
[space]
{space}
"""
TWO = 'optimizer = { choices = ["sgd", "adam"], grid = true }'
SIX = "lr = { low = 0.001, high = 0.03, log = true, grid = 3 }\nbeta = { low = 0.5, high = 0.9, grid = 2 }"

Start = Callable[..., "subprocess.Popen[str]"]
Curves = dict[int, list[dict[str, str]]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes the study file under a name; its trials are the same whatever the name."""

    def written(name: str, **values: object) -> Path:
        path = tmp_path / f"{name}.toml"
        path.write_text(STUDY.format(name=name, **{"more": "", **values}))
        return path

    return written


def trials(home: Path, name: str) -> list[FrozenTrial]:
    storage = open_storage(home=home)
    found = storage.get_all_trials(storage.get_study_id_from_name(f"{name}/grid/0"))
    storage.engine.dispose()
    return found


def curves(home: Path, name: str) -> Curves:
    """All metrics of all epochs as they were written, by lineage; ``seconds`` alone may differ."""
    found: Curves = {}
    for trial in trials(home, name):
        if trial.state is not TrialState.COMPLETE:
            continue
        notes = [json.loads(v) for k, v in trial.system_attrs.items() if k.startswith("artifacts:")]
        (table,) = [note["artifact_id"] for note in notes if note["filename"] == "epochs.csv"]
        rows = list(csv.DictReader((home / "artifacts" / table).read_text().splitlines()))
        lineage = trial.user_attrs["lineage"]
        assert lineage not in found
        found[lineage] = [
            {name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows
        ]
        # What Optuna shows are the same numbers.
        assert [repr(v) for _, v in sorted(trial.intermediate_values.items())] == [row["val_loss"] for row in rows]
        assert repr(trial.value) == rows[-1]["val_loss"]
    return found


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts ``hpo launch``; what still runs at the end is ended, and its workers with it."""
    started: list[subprocess.Popen[str]] = []

    def launch(file: Path, *options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "hpo", "launch", str(file), "--gpus", "none", *options]
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        return started[-1]

    yield launch
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def wait_for_a_moment(launcher: "subprocess.Popen[str]", home: Path, lineage: int) -> None:
    """Waits until two epochs of the lineage are saved, and then for a random part of the next one."""
    times: list[float] = []
    while len(times) < 2:
        assert launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.005)
        with contextlib.suppress(FileNotFoundError):
            times = sorted(path.stat().st_mtime for path in home.glob(f"checkpoints/*/{lineage:06d}/*.ckpt"))
    time.sleep(random.random() * (times[-1] - times[0]))


def worker_of(launcher: "subprocess.Popen[str]") -> psutil.Process:
    (worker,) = [child for child in psutil.Process(launcher.pid).children() if "worker" in child.cmdline()]
    return worker


@pytest.mark.parametrize("dataset", [pytest.param("mnist", marks=pytest.mark.release), "digits"])
def test_bit_equal_to_a_run_never_killed(
    dataset: str,
    request: pytest.FixtureRequest,
    hpo_command: Hpo,
    home: Path,
    start: Start,
    write: Callable[..., Path],
) -> None:
    """A trial with momentum and one with Adam; a worker is killed within each."""
    options = ["--workers", "1"]
    if dataset == "mnist":
        options += ["--data-dir", str(request.getfixturevalue("data_dir"))]
    batch_size, train_size = {"mnist": (32, 2400), "digits": (4, 600)}[dataset]
    values = {
        "dataset": dataset,
        "batch_size": batch_size,
        "train_size": train_size,
        "epochs": 6,
        "slots": 1,
        "trials": 2,
        "space": TWO,
    }
    done = hpo_command("launch", str(write("whole", **values)), "--gpus", "none", *options)
    assert done.returncode == 0, done.stderr

    launcher = start(write("killed", **values), *options)
    for lineage in (0, 1):
        wait_for_a_moment(launcher, home, lineage)
        worker_of(launcher).kill()
    output, _ = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, output
    assert output.count("was ended by SIGKILL; another takes its place") == 2

    found = trials(home, "killed")
    assert sorted((trial.user_attrs["lineage"], trial.state.name) for trial in found) == [
        (0, "COMPLETE"),
        (0, "FAIL"),
        (1, "COMPLETE"),
        (1, "FAIL"),
    ]
    for trial in found:
        if trial.state is TrialState.COMPLETE:
            assert 2 <= trial.user_attrs["start_epoch"] < 6
    expected = curves(home, "whole")
    assert [len(expected[lineage]) for lineage in (0, 1)] == [6, 6]
    assert expected[0] != expected[1]
    assert curves(home, "killed") == expected


def test_four_slots_of_a_machine_that_died(
    hpo_command: Hpo, home: Path, start: Start, write: Callable[..., Path]
) -> None:
    """Launcher and worker end at once, with four trials in the worker; a worker started by hand goes on."""
    values = {
        "dataset": "digits",
        "batch_size": 8,
        "train_size": 600,
        "epochs": 6,
        "slots": 4,
        "trials": 6,
        "space": SIX,
    }
    done = hpo_command("launch", str(write("whole", **values)), "--gpus", "none", "--workers", "1")
    assert done.returncode == 0, done.stderr

    launcher = start(write("killed", **values), "--workers", "1")
    for lineage in range(4):
        wait_for_a_moment(launcher, home, lineage)
    worker = worker_of(launcher)
    launcher.kill()
    worker.kill()
    launcher.communicate()
    worker.wait()

    status = json.loads(hpo_command("status", "killed", "--json").stdout)
    assert status["studies"][0]["states"]["running"] == 4
    # Two of each; a writer that ends after it has written one and before it removes the oldest leaves a third.
    kept = list(Counter(path.parent for path in home.glob("checkpoints/*/*/*.ckpt")).values())
    assert len(kept) == 4
    assert all(number in (2, 3) for number in kept)
    on_disk = [path.stat().st_size for path in home.glob("checkpoints/*/*/*") if path.is_file()]
    assert status["checkpoint_bytes"] == sum(on_disk)
    shown = hpo_command("status", "killed").stdout
    assert f"checkpoints: {sum(on_disk) / 1e6:.1f} MB in {home}/checkpoints" in shown

    threads = {"HPO_THREADS": str(len(psutil.Process().cpu_affinity())), "HPO_DEVICE": "cpu"}
    done = hpo_command("worker", "killed", "--heartbeat-seconds", "0.2", "--grace-seconds", "1", **threads)
    assert done.returncode == 0, done.stderr
    found = trials(home, "killed")
    states = [trial.state.name for trial in found]
    assert (states.count("COMPLETE"), states.count("FAIL"), len(states)) == (6, 4, 10)
    resumed = [trial for trial in found if trial.user_attrs["attempt"] == 1]
    assert sorted(trial.user_attrs["lineage"] for trial in resumed) == [0, 1, 2, 3]
    assert all(trial.user_attrs["start_epoch"] >= 2 for trial in resumed)
    # The gradient norm of a packed trial is the one metric whose last bits depend on the trials beside it.
    killed, whole = curves(home, "killed"), curves(home, "whole")
    for rows in (*killed.values(), *whole.values()):
        for row in rows:
            row["grad_norm"] = f"{float(row['grad_norm']):.6g}"
    assert killed == whole
    # What is left is the best trial's model.
    left = [path for path in home.glob("checkpoints/**/*") if path.is_file()]
    assert {path.name for path in left} == {"model.pt"}


@pytest.mark.release
def test_trials_of_three_seeds_resume_to_the_same_mean(
    hpo_command: Hpo, home: Path, start: Start, write: Callable[..., Path], tmp_path: Path
) -> None:
    """Two trials at a time in the six slots of a pack; their worker is killed. Then the best is trained again."""
    values = {
        "dataset": "digits",
        "batch_size": 8,
        "train_size": 600,
        "epochs": 5,
        "slots": 6,
        "trials": 2,
        "space": TWO,
        "more": "seeds_per_trial = 3",
    }
    done = hpo_command("launch", str(write("whole", **values)), "--gpus", "none", "--workers", "1")
    assert done.returncode == 0, done.stderr

    launcher = start(write("killed", **values), "--workers", "1")
    wait_for_a_moment(launcher, home, lineage=0)
    worker_of(launcher).kill()
    output, _ = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, output
    assert output.count("was ended by SIGKILL; another takes its place") == 1

    found = trials(home, "killed")
    resumed = [trial for trial in found if trial.state is TrialState.COMPLETE and trial.user_attrs["attempt"]]
    assert any(trial.user_attrs["start_epoch"] >= 6 for trial in resumed)  # two epochs of three seeds
    of_whole = {trial.user_attrs["lineage"]: trial for trial in trials(home, "whole")}
    complete = [trial for trial in found if trial.state is TrialState.COMPLETE]
    assert sorted(trial.user_attrs["lineage"] for trial in complete) == [0, 1]
    for trial in complete:
        whole = of_whole[trial.user_attrs["lineage"]]
        assert trial.intermediate_values == whole.intermediate_values
        assert trial.user_attrs["seed_values"] == whole.user_attrs["seed_values"]
        assert (trial.value, trial.user_attrs["epochs"]) == (whole.value, 15)

    best = min(complete, key=lambda trial: trial.value)
    shown = hpo_command("show", "killed", str(best.number)).stdout
    assert "15, 5 of each of 3 seeds" in shown
    assert "(standard deviation " in shown
    assert "of a mean of 3 seeds" in hpo_command("compare", "killed", "--json").stdout
    assert hpo_command("export", "killed", "--output", "best.toml").returncode == 0
    again = hpo_command("train", "best.toml")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"reproduced: expected {best.value!r}" in again.stdout
    file = tmp_path / "best.toml"
    file.write_text(file.read_text().replace("seeds_per_trial = 3\n", ""))
    assert hpo_command("train", "best.toml").returncode == 1
