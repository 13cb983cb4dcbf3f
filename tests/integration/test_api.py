"""The Python API on the embedded server, workers in this process."""

import io
from pathlib import Path

import optuna
import pytest

import hpo
from hpo.errors import ExperimentError, UsageError
from hpo.launchers.progress import PlainProgress

STUDY = """
name = "api"
trainer = "sleeping"
metric = "value"
samplers = ["random", "tpe"]
budget = { trials = 6 }
[fixed]
epochs = 2
epoch_seconds = 0.0
[space]
lr = { low = 1e-3, high = 1.0, log = true }
beta = { low = 0.8, high = 0.99 }
"""


def test_all_verbs(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(STUDY)
    settings = hpo.Settings(home=home, trainers="benchmarks.sleeping")
    with pytest.raises(ExperimentError, match="there is no experiment 'api'"):
        hpo.load("api", settings=settings)
    launched = hpo.launch(
        file, launcher="inline", gpus="none", settings=settings, progress=PlainProgress(io.StringIO())
    )
    loaded = hpo.load("api", settings=settings)
    assert launched.status() == loaded.status()
    assert isinstance(loaded, hpo.LoadedExperiment)
    assert repr(loaded) == "LoadedExperiment('api', 2 studies)"

    assert list(loaded.studies) == ["api/random/0", "api/tpe/0"]
    for study in loaded.studies.values():
        assert isinstance(study, optuna.Study)
        assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6
        figure = optuna.visualization.plot_optimization_history(study)
        assert len(figure.data[0].x) == 6
        assert len(optuna.visualization.plot_slice(study).data) == 2

    best = loaded.best()
    values = {name: study.best_value for name, study in loaded.studies.items()}
    assert best.value == max(values.values())
    assert values[best.study] == best.value
    assert loaded.best("random").value == values["api/random/0"]
    assert best.config["epochs"] == 2
    status = loaded.status()
    assert [study["states"]["complete"] for study in status["studies"]] == [6, 6]

    ((path, exported),) = loaded.export(tmp_path / "best.toml")
    assert (path, exported.value) == (tmp_path / "best.toml", best.value)
    trained = hpo.train(path, settings=settings)
    assert (trained["expected"], trained["obtained"], trained["reproduced"]) == (best.value, best.value, True)
    written = loaded.export(tmp_path / "top.json", top=3)
    assert [path.name for path, _ in written] == ["top.json", "top-2.json", "top-3.json"]
    with pytest.raises(UsageError, match="there is no folder"):
        loaded.export(tmp_path / "absent" / "best.toml")


def test_public_names() -> None:
    assert hpo.__all__ == [
        "Config",
        "HPOError",
        "LoadedExperiment",
        "Run",
        "Settings",
        "StudyFileError",
        "launch",
        "load",
        "train",
        "trainer",
    ]
    for name in hpo.__all__:
        assert getattr(hpo, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'hpo' has no attribute 'lunch'"):
        _ = hpo.lunch
