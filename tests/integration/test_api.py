"""The Python API on the embedded server, workers in this process."""

import io
import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest

import hpo
from hpo.errors import ExperimentError, UsageError
from hpo.launchers.progress import PlainProgress
from hpo.studyfile.load import load_study_file
from hpo.trainers.registry import TRAINERS

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
        "Infeasible",
        "LoadedExperiment",
        "Run",
        "Settings",
        "StudyFileError",
        "compare",
        "dataset",
        "delete",
        "enqueue",
        "export",
        "extend",
        "import_trials",
        "infeasible",
        "launch",
        "load",
        "network",
        "pause",
        "prune",
        "report",
        "resume",
        "retry",
        "should_stop",
        "status",
        "stop",
        "train",
        "trainer",
    ]
    for name in hpo.__all__:
        assert getattr(hpo, name).__name__ in (name, f"hpo.{name}")
        assert callable(getattr(hpo, name))
    assert {*hpo.__all__, "list"} == {name for name in dir(hpo) if not name.startswith("_")}
    with pytest.raises(AttributeError, match="module 'hpo' has no attribute 'lunch'"):
        _ = hpo.lunch


def test_packages_that_are_called_as_functions_stay_packages() -> None:
    import hpo.compare.load
    import hpo.export.files

    assert hpo.compare.load.Loader is not None
    assert hpo.export.files.exported is not None


def objective(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def test_verbs_of_a_function_with_plain_arguments(address: str, home: Path, tmp_path: Path) -> None:
    """An importable function with worker processes, then everything else without its code."""
    place = {"storage": address, "home": home}
    lines = io.StringIO()
    quiet = PlainProgress(lines)
    launched = hpo.launch(
        objective, trials=4, sampler="random,tpe", repeats=2, name="fn", workers=2, gpus="none", progress=quiet, **place
    )
    assert [study["states"]["complete"] for study in launched.status()["studies"]] == [4] * 4
    assert "<caption>fn</caption>" in launched._repr_html_()
    frame = launched.studies["fn/tpe/0"].trials_dataframe()
    assert list(frame["state"]) == ["COMPLETE"] * 4
    assert list(frame["value"]) == list(frame["params_x"])
    del TRAINERS["tests.integration.test_api:objective"]

    assert hpo.status(**place) == ["fn"]
    assert hpo.status("fn", **place) == launched.status()
    compared = hpo.compare("fn", **place)
    assert set(compared.to_dict()["samplers"]) == {"random", "tpe"}
    assert "Final values" in repr(compared)
    assert "<table>" in compared._repr_html_()
    text = hpo.export("fn", **place)
    assert 'trainer = "tests.integration.test_api:objective"' in text
    assert hpo.export("fn", tmp_path / "best.toml", sampler="tpe", **place) == [tmp_path / "best.toml"]
    trained = hpo.train(tmp_path / "best.toml", trainers=["tests.integration.test_api:objective"])
    assert trained["reproduced"] is True
    launched = hpo.launch(
        objective, trials=4, sampler="random,tpe", repeats=2, name="fn", launcher="inline", progress=quiet, **place
    )
    assert "fn is finished already" in lines.getvalue()
    hpo.delete("fn", **place)
    assert hpo.status(**place) == []
    assert "tpe" in hpo.list()["samplers"]


CONTENT = """
name = "{name}"
trainer = "sleeping"
metric = "value"
samplers = ["random"]
budget = {{ trials = 2 }}
[fixed]
epochs = 1
epoch_seconds = 0.0
[space]
lr = {{ low = 1e-3, high = 1.0, log = true }}
"""


def test_a_study_as_text_dict_object_and_path(address: str, home: Path, tmp_path: Path) -> None:
    more = {
        "storage": address,
        "home": str(home),
        "trainers": ["benchmarks.sleeping"],
        "launcher": "inline",
        "progress": PlainProgress(io.StringIO()),
    }
    (tmp_path / "study.toml").write_text(CONTENT.format(name="path"))
    sources = [
        CONTENT.format(name="text"),
        tomllib.loads(CONTENT.format(name="dict")),
        load_study_file(tmp_path / "study.toml", ["benchmarks.sleeping"]),
        tmp_path / "study.toml",
    ]
    names = [hpo.launch(source, **more).name for source in sources]
    assert names == ["text", "dict", "path", "path"]
    with pytest.raises(hpo.StudyFileError, match="not TOML"):
        hpo.launch("name = \n", **more)
    with pytest.raises(hpo.StudyFileError, match="the dict: "):
        hpo.launch({"name": "x"}, **more)


@pytest.mark.parametrize(
    ("study", "arguments", "message"),
    [
        ("study.toml", {"worker": 2}, r"there is no argument 'worker' \(did you mean 'workers'\?\)"),
        ("study.toml", {"trials": 2}, "trials is a key of the study file"),
        (objective, {"trails": 2}, r"there is no argument 'trails' \(did you mean 'trials'\?\)"),
        (objective, {"n_trials": 2}, "n_trials is an argument of Optuna's; give trials="),
        (objective, {"trials": 2, "callbacks": []}, "callbacks is an argument of Optuna's; they are not called"),
        (objective, {}, "give the number of trials"),
        (objective, {"trials": 2, "launcher": "remote"}, "remote"),
        (objective, {"trials": 2, "launcher": "inline", "per_gpu": 2}, "has no option per_gpu"),
    ],
)
def test_arguments_that_nothing_takes(home: Path, study: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        hpo.launch(study, **arguments)


def test_gpus_per_trial_beside_a_study_file(home: Path, tmp_path: Path) -> None:
    """It goes before the file and stays in the record, which a file that does not say it goes on with."""
    settings = hpo.Settings(home=home, trainers="benchmarks.sleeping")

    def launch(text: str, **options: Any) -> hpo.LoadedExperiment:
        progress = PlainProgress(io.StringIO())
        return hpo.launch(text, launcher="inline", gpus="none", settings=settings, progress=progress, **options)

    assert launch("gpus_per_trial = 3\n" + STUDY, gpus_per_trial=2)._experiment.content["gpus_per_trial"] == 2
    assert launch(STUDY)._experiment.content["gpus_per_trial"] == 2
    with pytest.raises(ExperimentError, match="gpus_per_trial: 2 -> 1"):
        launch(STUDY, gpus_per_trial=1)
    with pytest.raises(UsageError, match="--gpus-per-trial must be a whole number from 1 to 64, not 65"):
        launch(STUDY, gpus_per_trial=65)
