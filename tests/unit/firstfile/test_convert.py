"""Files of other tools become study files that the product accepts, with a note on what has no counterpart."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import StudyFileError
from hpo.firstfile.convert import convert
from hpo.firstfile.draft import Draft, text
from hpo.studyfile.load import parse_study_file
from hpo.studyfile.model import StudyFile
from hpo.trainers.loading import load_trainers

FILES = sorted((Path(__file__).parents[2] / "data" / "other_tools").iterdir())


def made(name: str) -> tuple[Draft, StudyFile, dict[str, Any]]:
    load_trainers("")
    path = next(path for path in FILES if path.name == name)
    draft = convert(path)
    table = tomllib.loads(text(draft))
    return draft, parse_study_file(table, name), table


def test_there_are_ten() -> None:
    assert len(FILES) == 10


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_each_file_is_accepted(name: str) -> None:
    draft, study_file, table = made(name)
    assert study_file.space.parameters
    assert study_file.command
    assert table.keys() >= {"name", "metric", "direction", "budget", "samplers"}
    for note in draft.notes:
        assert f"# {note}" in text(draft)


def test_a_sweep() -> None:
    draft, study_file, table = made("wandb-bayes.yaml")
    assert table["space"] == {
        "learning_rate": {"low": 1e-5, "high": 0.1, "log": True},
        "dropout": {"low": 0.0, "high": 0.6},
        "hidden": {"choices": [64, 128, 256], "grid": True},
        "momentum": {"low": pytest.approx(0.84), "high": pytest.approx(0.96)},
    }
    assert table["fixed"] == {"epochs": 20}
    assert table["budget"] == {"trials": 60}
    assert table["pruner"] == {"name": "asha", "reduction_factor": 3, "min_epochs": 3}
    assert table["command"] == ["python", "train.py"]
    assert any("normal distribution has no counterpart" in note for note in draft.notes)
    assert any("early_terminate.s" in note for note in draft.notes)
    assert [sampler.name for sampler in study_file.samplers] == ["tpe"]


def test_nested_parameters_and_hydra_style_arguments() -> None:
    draft, _, table = made("wandb-nested.yaml")
    assert table["args"] == "hydra"
    assert table["target"] == 0.9
    assert table["space"]["model"]["width"] == {"low": 32.0, "high": 480.0, "step": 32.0}
    assert table["space"]["lr"]["low"] == pytest.approx(1.01e-4, rel=0.01)
    assert any("500.0 is not reached" in note for note in draft.notes)
    assert any("probabilities" in note for note in draft.notes)


def test_katib() -> None:
    draft, study_file, table = made("katib-random.yaml")
    assert study_file.command is not None
    assert study_file.command[:3] == ["python3", "/opt/mnist.py", "--lr={lr}"]
    assert "--layers={num-layers}" in study_file.command
    assert (table["seed"], table["target"], table["pruner"]) == (10, 0.05, "median")
    assert any("--workers 3" in note for note in draft.notes)
    assert made("katib-tpe.yaml")[2]["space"]["dropout"]["high"] == pytest.approx(0.5)


def test_hydra() -> None:
    _, _, table = made("hydra-old.yaml")
    assert table["space"]["x"] == {"low": -5, "high": 4}  # the end of a range is exclusive
    assert table["space"]["optim"]["lr"] == {"low": 1e-5, "high": 0.1, "log": True}
    assert table["space"]["z"] == ["foo", "bar", 3]
    assert (table["seed"], table["budget"]) == (123, {"trials": 25})
    assert made("hydra-search-space.yaml")[2]["samplers"] == ["random"]


def test_ray_and_optuna() -> None:
    draft, _, table = made("ray-strings.json")
    assert table["space"]["layers"] == {"low": 1, "high": 4}
    assert table["space"]["model"]["width"] == {"low": 64, "high": 512, "step": 64}
    assert (table["pruner"], table["direction"]) == ("asha", "maximize")
    assert any("sample_from" in note for note in draft.notes)
    assert made("ray-tables.json")[2]["budget"] == {"trials": 20, "seconds": 3600.0}
    _, _, optuna = made("optuna-distributions.json")
    assert optuna["space"]["optimizer"] == ["adam", "sgd", "none"]
    assert optuna["space"]["layers"] == {"low": 1, "high": 4}
    assert (optuna["samplers"], optuna["pruner"]) == (["tpe"], "median")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a: 1", "is of no tool that is known; expected a W&B sweep"),
        ("- 1", "is no table"),
        ("method: grid\nparameters: {x: {min: low, max: 1}}", "cannot be understood: ValueError"),
        ("a: [", "cannot be read"),
    ],
)
def test_what_cannot_be_converted_says_why(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(content)
    with pytest.raises(StudyFileError, match=why):
        convert(path)
