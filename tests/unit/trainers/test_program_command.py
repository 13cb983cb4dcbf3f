"""How a program's command line is made."""

from pathlib import Path

import pytest

from hpo.trainers.program_command import command_line, default_style, placeholders, split_command
from hpo.trainers.protocol import Run

VALUES = {"lr": 0.001, "num-layers": 3, "model.width": 16, "lambda": 1e-7, "amp": True, "name": "a b", "none": None}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(seed=7, trial=12, study="e/tpe/0", trial_folder=tmp_path / "000003", devices=("cuda:0", "cuda:1"))


def test_one_string_is_split_without_a_shell():
    assert split_command("python 'my train.py' --x=$HOME") == ["python", "my train.py", "--x=$HOME"]
    with pytest.raises(ValueError, match="No closing quotation"):
        split_command("python 'train.py")


def test_flags_for_all(run: Run):
    assert default_style(["train", "{seed}"]) == "flags"
    assert command_line(["train"], "flags", VALUES, run) == [
        "train",
        "--lr=0.001",
        "--num-layers=3",
        "--model.width=16",
        "--lambda=1e-07",
        "--amp=true",
        "--name=a b",
        "--none=null",
    ]


def test_hydra(run: Run):
    assert command_line(["t"], "hydra", {"model.lr": 0.1, "opt": "sgd"}, run) == ["t", "model.lr=0.1", "opt=sgd"]
    assert command_line(["t"], "none", {"lr": 0.1}, run) == ["t"]


def test_placeholders(run: Run, tmp_path: Path):
    command = ["t", "--lr", "{lr}", "x{model.width}y{num-layers}", "{seed}/{trial}/{num_gpus}", "{{lr}}", "{", "{ }"]
    assert placeholders(command) == ["lr", "model.width", "num-layers", "seed", "trial", "num_gpus"]
    assert default_style(command) == "none"
    assert command_line(command, "none", VALUES, run) == [
        "t",
        "--lr",
        "0.001",
        "x16y3",
        "7/12/2",
        "{lr}",
        "{",
        "{ }",
    ]
    assert command_line(["{folder}", "{checkpoint_dir}", "{study}"], "none", {}, run) == [
        str(tmp_path / "000003"),
        str(tmp_path / "000003" / "checkpoints"),
        "e/tpe/0",
    ]
    assert command_line(["t", "{lr}"], "flags", {"lr": 1, "b": 2}, run) == ["t", "1", "--b=2"]


def test_a_parameter_that_is_not_active_is_left_out(run: Run):
    command = ["t", "--momentum", "{momentum}", "--beta={beta}", "--lr", "{lr}", "-v", "{momentum}"]
    assert command_line(command, "none", {"lr": 0.1}, run) == ["t", "--lr", "0.1"]


def test_a_value_is_one_argument_whatever_it_holds(run: Run):
    assert command_line(["t", "{x}"], "none", {"x": "; rm -rf {lr} $(id)"}, run) == ["t", "; rm -rf {lr} $(id)"]
