"""Commands that people guess lead to the right one; the list of parts has the sizes of networks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.catalog import parts, sizes
from tests.unit.cli.test_main import run


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["run", "study.toml", "--workers", "2"], "hpo launch study.toml --workers 2"),
        (["continue", "mnist"], "hpo launch STUDY_FILE"),
        (["ls", "--json"], "hpo status --json"),
        (["ui"], "hpo dashboard"),
        (["best", "my study"], "hpo export 'my study'"),
    ],
)
def test_a_guessed_command_names_the_right_one(given: list[str], line: str) -> None:
    ended = run(*given)
    assert ended.returncode == 2
    assert f"  {line}\n" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_nobody_guesses_is_an_unknown_command() -> None:
    assert "No such command 'xyzzy'" in run("xyzzy").stderr


def test_sizes_of_networks_on_data_sets() -> None:
    parts()
    pytest.importorskip("torch")
    found = sizes()
    assert found["squeeze_expand"]["mnist"] == 9_680
    assert found["resnet18"]["cifar10"] == 11_173_962
    assert "mnist" not in found["relu_line"]  # it takes one number
    listed = run("list", COLUMNS="80")
    assert "9,680" in listed.stdout
    assert json.loads(run("list", "--json").stdout)["parameters"] == found


def test_completion_for_bash() -> None:
    command = Path(sys.executable).with_name("hpo")
    script = subprocess.run([command, "--show-completion", "bash"], capture_output=True, text=True).stdout
    assert subprocess.run(["bash", "-n", "-c", script], capture_output=True).returncode == 0
    variables = {**os.environ, "_HPO_COMPLETE": "complete_bash", "COMP_WORDS": "hpo sta", "COMP_CWORD": "1"}
    ended = subprocess.run([command], env=variables, capture_output=True, text=True)
    assert "status" in ended.stdout.split(), (ended.stdout, ended.stderr)
