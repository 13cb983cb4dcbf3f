"""Commands that people guess lead to the right one; the list of parts has the sizes of networks."""

import json
import subprocess
import sys

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
    script = run("--show-completion", "bash")
    shown = script.stdout or script.stderr
    complete = f"{shown}\n_hpo_completion_test() {{ COMP_WORDS=(hpo sta); COMP_CWORD=1; }}"
    assert subprocess.run(["bash", "-n", "-c", complete], capture_output=True).returncode == 0
    ended = run(_HPO_COMPLETE="complete_bash", COMP_WORDS="hpo sta", COMP_CWORD="1")
    assert "status" in ended.stdout.split(), (ended.stdout, ended.stderr, sys.executable)
