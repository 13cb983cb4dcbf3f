"""Programs of a user's own, from the launch to the exported file: the examples, interruptions, logs, models."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpo.trainers.process_guard import _environments

from .conftest import REPOSITORY, Hpo

EXAMPLES = REPOSITORY / "examples"


def processes_below(folder: Path) -> list[int]:
    """Programs of trials whose folders lie below ``folder``."""
    mark = f"HPO_FOLDER={folder}".encode()
    return [pid for pid, entries in _environments() if any(entry.startswith(mark) for entry in entries)]


def status(hpo_command: Hpo, name: str) -> dict[str, int]:
    done = hpo_command("status", name, "--json")
    assert done.returncode == 0, done.stderr
    (study,) = json.loads(done.stdout)["studies"]
    return {state.lower(): count for state, count in study["states"].items() if count}


def test_a_script_with_one_line_of_ours(hpo_command: Hpo, tmp_path: Path) -> None:
    for name in ("train.py", "study.toml"):
        shutil.copy(EXAMPLES / "program" / name, tmp_path)
    done = hpo_command("launch", "study.toml", "--workers", "2")
    assert done.returncode == 0, done.stderr
    counts = status(hpo_command, "digits-program")
    assert counts["complete"] + counts.get("pruned", 0) == 8
    assert hpo_command("export", "digits-program", "--output", "best.toml").returncode == 0
    trained = hpo_command("train", "best.toml", "--model", "again.npz", "--json")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["reproduced"] is True
    exported = hpo_command("export", "digits-program", "--model", "model.npz")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "model.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()

    best = re.search(r"trial (\d+)", exported.stdout)
    assert best is not None
    log = hpo_command("logs", "digits-program", best[1]).stdout
    assert "epoch 5: validation accuracy" in log
    values = json.loads(hpo_command("export", "digits-program", "--format", "json").stdout)
    assert set(values) == {"lr", "hidden", "batch-size", "epochs"}
    assert f"batch-size: {values['batch-size']}\n" in hpo_command("export", "digits-program", "--format", "yaml").stdout
    command = shlex.split(hpo_command("export", "digits-program", "--format", "args").stdout)
    assert command[:4] == [sys.executable, "train.py", "--lr", str(values["lr"])]
    # Only the best trial's folder has stayed, and the script left nothing where it was launched.
    assert len(list((tmp_path / "home" / "checkpoints").glob("*/trials/*"))) == 1
    assert not list(tmp_path.glob("*.npz.*"))


def test_a_script_without_any(hpo_command: Hpo, tmp_path: Path) -> None:
    for name in ("train.py", "study.toml"):
        shutil.copy(EXAMPLES / "program_output" / name, tmp_path)
    assert "hpo" not in (tmp_path / "train.py").read_text().partition('"""\n\n')[2]
    done = hpo_command("launch", "study.toml", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert status(hpo_command, "digits-output") == {"complete": 6}


def test_the_two_scripts_differ_in_two_lines() -> None:
    ours, plain = (
        (EXAMPLES / name / "train.py").read_text().partition('"""\n\n')[2].splitlines()
        for name in ("program", "program_output")
    )
    assert [line.strip() for line in ours if line not in plain] == [
        "import hpo",
        "hpo.report(val_accuracy=accuracy, epoch=epoch)",
    ]


TRAIN_AGAIN = """
name = "fails"
trainer = "program"
command = "{python} fails.py"
metric = "loss"
direction = "minimize"
fixed = { width = 300 }
"""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("hpo.infeasible('it does not fit')", "error: this configuration is infeasible: it does not fit\n"),
        ("1 / 0", "error: the program ended with exit code 1; its last lines: "),
    ],
)
def test_train_of_a_program_that_fails(code: str, message: str, hpo_command: Hpo, tmp_path: Path) -> None:
    """One message; a traceback of ours would only hide the program's own."""
    (tmp_path / "fails.py").write_text(f"import hpo\n{code}\n")
    (tmp_path / "fails.toml").write_text(TRAIN_AGAIN)
    done = hpo_command("train", "fails.toml")
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


SLOW = """
import json, os, subprocess, sys, time
path = os.path.join(os.environ["HPO_CHECKPOINT_DIR"], "epoch")
start = int(open(path).read()) if os.path.exists(path) else 0
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open("started", "a").write(f"{os.environ['HPO_TRIAL']} from {start}\\n")
for epoch in range(start + 1, 7):
    time.sleep(0.25)
    with open(path + ".new", "w") as file:
        file.write(str(epoch))
    os.replace(path + ".new", path)
    print(json.dumps({"loss": 1 / epoch + float(sys.argv[1].partition("=")[2]), "epoch": epoch}), flush=True)
"""
SLOW_STUDY = """
name = "slow"
trainer = "program"
command = "{python} slow.py"
metric = "loss"
samplers = ["random"]
budget = { trials = 4 }
stop_grace_seconds = 1
[space]
lr = { low = 0.1, high = 1.0 }
"""


def worker_of(program: int) -> int:
    """The process that has started the program."""
    return int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1])


def leaders(folder: Path) -> list[int]:
    """The programs below ``folder`` that a worker has started itself."""
    found = []
    for pid in processes_below(folder):
        try:
            if "slow.py" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
        except OSError:
            continue
    return found


def until(condition: "object", seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_ends_in_mid_trial(number: int, hpo_command: Hpo, environment: dict[str, str], tmp_path: Path) -> None:
    """Its program and the children of it end with it; another attempt goes on from the program's checkpoint."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "slow.toml").write_text(SLOW_STUDY)
    home = tmp_path / "home"
    launch = subprocess.Popen(
        [sys.executable, "-m", "hpo", "launch", "slow.toml", "--workers", "1"],
        env={**environment, "HPO_GRACE_SECONDS": "3", "HPO_HEARTBEAT_SECONDS": "0.5"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until(lambda: leaders(home))
        epoch = lambda: [path.read_text() for path in home.glob("checkpoints/*/trials/*/checkpoints/epoch")]  # noqa: E731
        until(lambda: any(int(text) >= 2 for text in epoch() if text))
        (program,) = leaders(home)
        before = set(processes_below(home))
        os.kill(worker_of(program), number)
        until(lambda: not before & set(processes_below(home)), 10)
        output, _ = launch.communicate(timeout=120)
        print(output)
    finally:
        launch.kill()
        launch.wait()
    if number == signal.SIGTERM:  # its launcher replaces no worker that a person has asked to end
        output = hpo_command("launch", "slow.toml", "--workers", "1").stderr
    assert status(hpo_command, "slow") == {"complete": 4}, output
    started = (tmp_path / "started").read_text().splitlines()
    assert len(started) == 5, started
    assert sum(not line.endswith("from 0") for line in started) == 1, started
    assert processes_below(home) == []
