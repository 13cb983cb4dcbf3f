"""Commands that need only the database, of an experiment whose trainer this process does not have."""

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpo.cli.main import app
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.errors import ExperimentError
from hpo.experiment.experiment import MissingTrainerError, load_experiment
from hpo.experiment.stored import trainer_modules
from tests.searches import fill


@pytest.fixture
def gone(storage: Storage, address: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An experiment of a trainer that is nowhere, launched with a module that is nowhere."""
    monkeypatch.setenv("HPO_STORAGE", address)
    for study_id in fill(storage, "e", ("random", "tpe"), 2, 4, trainer="somebodys"):
        storage.set_study_user_attr(study_id, attributes.TRAINER_MODULES, "no_such_module")
    return storage


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("named", [None, "no_such_module"])
def test_views_need_no_trainer(
    gone: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    """Also where the environment names modules that cannot be imported from here, as after a cd."""
    if named is not None:
        monkeypatch.setenv("HPO_TRAINERS", named)
    status = json.loads(run("status", "e", "--json"))
    assert [study["states"]["complete"] + study["states"]["pruned"] for study in status["studies"]] == [4] * 4
    assert json.loads(run("compare", "e", "--json"))["finished"]
    exported = tomllib.loads(run("export", "e", "--sampler", "tpe"))
    assert exported["trainer"] == "somebodys"
    assert exported["fixed"]["epochs"] == 5
    assert exported["provenance"]["trainers"] == "no_such_module"
    run("export", "e", "--top", "3", "--output", str(tmp_path / "best.json"))
    assert len(list(tmp_path.glob("best*.json"))) == 3
    assert "deleted 'e'" in run("delete", "e", "--yes")


def test_what_needs_the_trainer_names_the_modules_of_the_launch(gone: Storage) -> None:
    experiment = load_experiment(gone, "e")
    with pytest.raises(MissingTrainerError, match="--trainers no_such_module") as raised:
        _ = experiment.study_file
    assert isinstance(raised.value, ExperimentError)
    assert raised.value.modules == "no_such_module"


@pytest.mark.parametrize("value", [None, 3, ["os"], "two\nlines", {"a": 1}])
def test_only_a_printable_text_is_suggested(value: object) -> None:
    assert trainer_modules({attributes.TRAINER_MODULES: value}) == ""
