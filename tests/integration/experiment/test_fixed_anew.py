"""What a trainer fixes for new experiments only: those of before go on, export and train as they did."""

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpo
from hpo.experiment.imports import read_import
from hpo.launchers.progress import PlainProgress
from hpo.studyfile.load import parse_study_file
from hpo.trainers.loading import load_trainers
from hpo.trainers.registry import TRAINERS

STUDY: dict[str, Any] = {
    "trainer": "classifier",
    "metric": "val_loss",
    "samplers": ["tpe"],
    "fixed": {"dataset": "digits", "train_size": 200, "val_size": 100, "epochs": 2, "width_1": 24, "width_2": 16},
    "space": {"lr": {"low": 0.01, "high": 0.1}, "dropout": {"low": 0.2, "high": 0.5}},
}


@pytest.fixture
def settings(home: Path, address: str) -> hpo.Settings:
    return hpo.Settings(home=home, storage=address, slots=1)


@pytest.fixture
def as_before() -> Iterator[Any]:
    """Sets whether the classifier fixes nothing anew, as in earlier versions."""
    load_trainers([])
    entry = TRAINERS["classifier"]
    yield lambda is_before: TRAINERS.update(
        classifier=dataclasses.replace(entry, fixes_anew=None) if is_before else entry
    )
    TRAINERS["classifier"] = entry


def launch(settings: hpo.Settings, name: str, trials: int, **changes: Any) -> hpo.LoadedExperiment:
    table = {**STUDY, "name": name, "budget": {"trials": trials}, **changes}
    return hpo.launch(table, launcher="inline", gpus="none", settings=settings, progress=PlainProgress(io.StringIO()))


def test_an_experiment_of_before_keeps_its_dropout(settings: hpo.Settings, as_before: Any, tmp_path: Path) -> None:
    as_before(True)
    launch(settings, "before", 2)
    as_before(False)
    gone_on = launch(settings, "before", 3)
    assert "dropout_generator" not in gone_on._experiment.content["fixed"]
    ((path, best),) = gone_on.export(tmp_path / "before.toml")
    assert 'dropout_generator = "torch"' in path.read_text()
    assert hpo.train(path, settings=settings)["reproduced"]

    # A file that an earlier version wrote does not name the generator.
    older = path.read_text().replace('dropout_generator = "torch"\n', "")
    path.write_text(older)
    assert hpo.train(path, settings=settings)["obtained"] == best.value
    path.write_text(older.replace("\n[fixed]\n", '\n[fixed]\ndropout_generator = "philox"\n'))
    assert hpo.train(path, settings=settings)["obtained"] != best.value

    # Its finished trials are knowledge for a new experiment all the same.
    table = {**STUDY, "name": "anew", "budget": {"trials": 2}}
    assert len(read_import(gone_on._experiment.storage, parse_study_file(table, "anew"), "before").trials) == 3


def test_a_new_experiment_takes_the_counters(settings: hpo.Settings, tmp_path: Path) -> None:
    launch(settings, "anew", 2)
    again = launch(settings, "anew", 3)
    assert again._experiment.content["fixed"]["dropout_generator"] == "philox"
    ((path, _),) = again.export(tmp_path / "anew.toml")
    assert 'dropout_generator = "philox"' in path.read_text()
    assert hpo.train(path, settings=settings)["reproduced"]
    given = launch(settings, "given", 1, fixed={**STUDY["fixed"], "dropout_generator": "torch"})
    assert given._experiment.content["fixed"]["dropout_generator"] == "torch"
    without = launch(settings, "without", 1, space={"lr": {"low": 0.01, "high": 0.1}})
    assert "dropout_generator" not in without._experiment.content["fixed"]
