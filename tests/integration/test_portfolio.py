"""``portfolio = true``: the classifier's ready configurations as first trials."""

import io
from pathlib import Path
from typing import Any

import pytest

import hpo
from hpo.compare.report import compare
from hpo.database import attributes
from hpo.errors import ExperimentError, StudyFileError
from hpo.launchers.progress import PlainProgress
from hpo.trainers.classifier.entry import read_portfolio

STUDY = {
    "name": "ready",
    "trainer": "classifier",
    "metric": "val_accuracy",
    "samplers": ["random"],
    "budget": {"trials": 10},
    "portfolio": True,
    "fixed": {"dataset": "digits", "network": "mlp", "epochs": 1, "width_1": 16, "width_2": 16},
    "space": {
        "lr": {"low": 1e-3, "high": 1.0, "log": True},
        "batch_size": [32, 64],
        "scheduler": ["cosine", "constant"],
    },
}


def launch(settings: hpo.Settings, **changes: Any) -> tuple[hpo.LoadedExperiment, str]:
    out = io.StringIO()
    table = {**STUDY, **changes}
    done = hpo.launch(table, launcher="inline", gpus="none", settings=settings, progress=PlainProgress(out))
    return done, out.getvalue()


@pytest.fixture
def settings(home: Path, address: str) -> hpo.Settings:
    return hpo.Settings(home=home, storage=address)


def test_the_portfolio_is_tried_first(settings: hpo.Settings) -> None:
    ready, printed = launch(settings)
    trials = ready.studies["ready/random/0"].trials
    assert len(trials) == 10  # counted in the budget
    first = [trial for trial in trials if attributes.START in trial.user_attrs]
    assert first == trials[: len(first)]
    assert f"first trials: {len(first)} configurations of the portfolio of classifier" in printed
    fitting = {(entry["lr"], entry["scheduler"]) for entry in read_portfolio() if entry["scheduler"] != "exponential"}
    assert len(first) >= 3
    assert {(trial.params["lr"], trial.params["scheduler"]) for trial in first} <= fitting
    notes = compare(ready._experiment.storage, ["ready"]).experiments[0].notes
    assert any("have configurations of the portfolio" in note for note in notes)
    _, printed = launch(settings)
    assert "finished already" in printed


def test_where_there_is_none(settings: hpo.Settings) -> None:
    with pytest.raises(StudyFileError, match="portfolio: the trainer 'sleeping' has none; classifier"):
        hpo.launch(
            {
                "name": "none",
                "trainer": "sleeping",
                "metric": "value",
                "budget": {"trials": 3},
                "portfolio": True,
                "space": {"lr": {"low": 0.1, "high": 1.0}},
            },
            launcher="inline",
            settings=settings.replaced(trainers="benchmarks.sleeping"),
        )
    with pytest.raises(ExperimentError, match="nothing of the portfolio of classifier fits 'ready'"):
        launch(settings, fixed={**STUDY["fixed"], "optimizer": "adam"})  # type: ignore[dict-item]
    with pytest.raises(ExperimentError, match="which searches width_1"):
        launch(settings, space={"width_1": {"low": 16, "high": 64}}, fixed={"dataset": "digits", "epochs": 1})
