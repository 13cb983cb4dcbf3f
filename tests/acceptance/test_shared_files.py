"""A trial's files read on a machine that shares only the database and the address of the checkpoints.

A home of its own stands in for the other machine: nothing in it comes from the workers.
"""

import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import pytest

from .conftest import REPOSITORY, Hpo

PROGRAM = """
import pathlib, sys, time
value, folder = float(sys.argv[1]), pathlib.Path(sys.argv[2])
for epoch in range(3):
    print(f"epoch {epoch + 1} of x = {value}")
    print(f"loss: {value + 1 / (epoch + 1)}", flush=True)
(folder / "model.txt").write_text(f"weights of {value}")
(folder / "plots").mkdir(exist_ok=True)
(folder / "plots" / "curve.svg").write_text("<svg/>")
while pathlib.Path(sys.argv[3]).exists() and value < 0.5:
    time.sleep(0.1)
"""
STUDY = """
name = "shared"
trainer = "program"
command = ["{python}", "train.py", "{{x}}", "{{folder}}", "{hold}"]
metric = "loss"
metrics.loss = "loss: ([0-9.]+)"
direction = "minimize"
samplers = ["grid"]
budget.trials = 3
keep_folders = "{keep}"
space.x = {{ low = 0.0, high = 1.0, grid = [0.9, 0.7, 0.1] }}
"""


def launch(folder: Path, environment: dict[str, str], hold: Path, keep: str = "best") -> "subprocess.Popen[str]":
    (folder / "train.py").write_text(PROGRAM)
    (folder / "study.toml").write_text(STUDY.format(python=sys.executable, hold=hold, keep=keep))
    return subprocess.Popen(
        [sys.executable, "-m", "hpo", "launch", "study.toml", "--workers", "1", "--gpus", "none"],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(what: str, hpo: Hpo, *arguments: str, seconds: float = 150) -> str:
    deadline = time.monotonic() + seconds
    while True:
        done = hpo(*arguments)
        if what in done.stdout:
            return done.stdout
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.3)


@pytest.mark.parametrize("kind", ["s3", pytest.param("folder", marks=pytest.mark.release)])
def test_everything_is_read_elsewhere_and_deleted(
    kind: str, bucket: str, address: str, environment: dict[str, str], hpo_command: Hpo, tmp_path: Path
) -> None:
    place = bucket if kind == "s3" else str(tmp_path / "shared")
    files, base = fsspec.core.url_to_fs(place)
    environment |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    environment |= {"HPO_STORAGE": address, "HPO_CHECKPOINT_DIR": place, "HPO_TRAINERS": ""}
    hold = tmp_path / "hold"
    hold.touch()
    launcher = launch(tmp_path, environment, hold)

    def elsewhere(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return hpo_command(*arguments, **{**environment, "HPO_HOME": str(tmp_path / "elsewhere")})

    try:
        # The last trial of the grid runs, and its program has written what it writes.
        wait_for("epoch 3 of x = 0.1", elsewhere, "logs", "shared", "2")
        assert "epoch 1 of x = 0.9" in elsewhere("logs", "shared", "0").stdout
        hold.unlink()
        output = launcher.communicate(timeout=200)[0]
    finally:
        hold.unlink(missing_ok=True)
        launcher.kill()
        launcher.wait()
    assert launcher.returncode == 0, output

    assert "epoch 3 of x = 0.1" in elsewhere("logs", "shared", "2").stdout
    exported = elsewhere("export", "shared", "--model", str(tmp_path / "model.txt"))
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "model.txt").read_text() == "weights of 0.1"
    shown = elsewhere("show", "shared", "2").stdout
    assert re.search(r"^folder: .*/trials/000002$", shown, re.M), shown
    assert "plots/curve.svg, 6 bytes" in shown
    assert "folder:" not in elsewhere("show", "shared", "1").stdout
    assert read_page(environment | {"HPO_HOME": str(tmp_path / "elsewhere")}) == b"<svg/>"

    # Nothing is left in between, and after the deletion nothing at all.
    files.invalidate_cache()
    names = [path.removeprefix(base) for path in files.find(base)]
    assert not [name for name in names if name.endswith(".ckpt")]
    assert {name.split("/trials/")[1].split("/")[0] for name in names if "/trials/" in name} == {"000002"}
    assert list((tmp_path / "home").glob("unsent/*/*")) == []
    deleted = elsewhere("delete", "shared", "--yes")
    assert deleted.stdout == "deleted 'shared'\n", deleted.stdout + deleted.stderr
    files.invalidate_cache()
    assert files.find(base) == []


def read_page(environment: dict[str, str]) -> bytes:
    """The page of the best trial has its log and its folder's files, of which one is returned."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hpo", "dashboard", "--port", "0"],
        env=environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]

        def read(path: str) -> bytes:
            with urllib.request.urlopen(f"{url}hpo/{path}", timeout=30) as answer:
                content: bytes = answer.read()
                return content

        page = read(f"trial?name=shared&trial={quote('grid/0/2')}").decode()
        assert "epoch 3 of x = 0.1" in page
        assert "plots/curve.svg" in page
        with pytest.raises(urllib.error.HTTPError):
            read("trial.file?name=shared&trial=grid/0/2&file=../../key")
        return read("trial.file?name=shared&trial=grid/0/2&file=plots/curve.svg")
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_an_address_that_cannot_be_written_ends_the_launch(
    object_store: Any, address: str, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for place, code, message in (
        ("s3://no-such-bucket/folder", 1, "s3://no-such-bucket/folder of --checkpoint-dir cannot be written"),
        ("s4://bucket/folder", 2, "the address s4://bucket/folder cannot be opened"),
    ):
        given = {**environment, "HPO_STORAGE": address, "HPO_CHECKPOINT_DIR": place, "HPO_TRAINERS": ""}
        launcher = launch(tmp_path, given, tmp_path / "hold")
        output = launcher.communicate(timeout=60)[0]
        assert launcher.returncode == code, output
        assert message in output
        assert "Traceback" not in output
