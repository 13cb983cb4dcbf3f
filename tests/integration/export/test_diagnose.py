"""``hpo train --diagnose --attach`` through the Python API, on a study of the embedded server."""

import io
import json
from pathlib import Path

import optuna
import pytest

import hpo
from hpo.errors import UsageError
from hpo.files.artifacts import PREFIX
from hpo.launchers.progress import PlainProgress

STUDY = """
name = "looked-into"
trainer = "classifier"
metric = "val_accuracy"
value = "{value}"
samplers = ["random"]
budget = {{ trials = 2 }}
[fixed]
dataset = "digits"
network = "mlp"
width_1 = 16
width_2 = 16
epochs = 3
[space]
lr = {{ low = 0.05, high = 0.2 }}
"""

SLEEPING = """
name = "asleep"
trainer = "sleeping"
metric = "value"
samplers = ["random"]
budget = { trials = 1 }
[fixed]
epochs = 1
epoch_seconds = 0.0
"""


def exported(home: Path, folder: Path, value: str = "last") -> tuple[Path, hpo.LoadedExperiment, hpo.Settings]:
    """The file of the best of two trials, and their experiment."""
    settings = hpo.Settings(home=home, slots=1)
    file = folder / "study.toml"
    file.write_text(STUDY.format(value=value))
    loaded = hpo.launch(file, launcher="inline", gpus="none", settings=settings, progress=PlainProgress(io.StringIO()))
    ((path, _),) = loaded.export(folder / "chosen.toml")
    return path, loaded, settings


def artifacts(study: optuna.Study) -> dict[str, str]:
    """The study's files: name -> key in the store."""
    found = study._storage.get_study_system_attrs(study._study_id)
    return {json.loads(text)["filename"]: key.removeprefix(PREFIX) for key, text in found.items() if PREFIX in key}


def test_one_training_is_reported_diagnosed_and_attached(home: Path, tmp_path: Path) -> None:
    path, loaded, settings = exported(home, tmp_path)
    epochs: list[tuple[int, int]] = []
    result = hpo.train(
        path,
        settings=settings,
        report=lambda seed, epoch, metrics: epochs.append((seed, epoch)),
        diagnose=tmp_path / "inside",
        attach=True,
    )
    seed = loaded.best().seed
    assert epochs == [(seed, 1), (seed, 2), (seed, 3)]
    assert result["reproduced"]
    assert result["config"]["evaluate_train"] is False
    plain = hpo.train(path, settings=settings)
    for name, value in plain["mean"].items():
        assert result["mean"][name] == value

    numbers = json.loads((tmp_path / "inside" / "diagnostics.json").read_text())
    assert numbers["accuracy"]["accuracy"] == result["mean"]["test_accuracy"]
    assert numbers["accuracy"]["train_accuracy"] == result["mean"]["train_set_accuracy"]

    ((_, study),) = loaded.studies.items()
    attached = artifacts(study)
    pictures = {name for name in numbers["files"] if name.endswith(".png")}
    assert {"noise.png", "sharpness.png", "loss_plane.png", "hamming.png", "mistakes.png"} <= pictures
    assert set(attached) == {"diagnostics.json", *pictures}
    for name, key in attached.items():
        assert (settings.artifacts / key).read_bytes() == (tmp_path / "inside" / name).read_bytes()

    # Once more: the files are replaced, not doubled; beside fresh seeds, the file's own seed is diagnosed.
    again = hpo.train(path, seeds=2, settings=settings, diagnose=tmp_path / "again", attach=True)
    assert again["n"] == 2
    assert artifacts(study) == attached
    assert json.loads((tmp_path / "again" / "diagnostics.json").read_text()) == _timeless(numbers, tmp_path / "again")


def _timeless(numbers: dict[str, object], folder: Path) -> dict[str, object]:
    """The numbers with the seconds of another run, which alone may differ."""
    other = json.loads((folder / "diagnostics.json").read_text())
    for epoch, metrics in enumerate(numbers["history"]["epochs"]):  # type: ignore[index]
        for name in ("seconds", "seconds_per_epoch"):
            metrics[name] = other["history"]["epochs"][epoch][name]
    return numbers


def test_a_study_that_counts_the_best_epoch(home: Path, tmp_path: Path) -> None:
    path, _, settings = exported(home, tmp_path, value="best")
    result = hpo.train(path, settings=settings, diagnose=tmp_path / "inside")
    assert result["reproduced"]
    epochs = json.loads((tmp_path / "inside" / "diagnostics.json").read_text())["history"]["epochs"]
    best = max(epochs, key=lambda metrics: metrics["val_accuracy"])
    assert result["mean"]["test_accuracy"] == best["test_accuracy"]


@pytest.mark.parametrize("seeds", [None, 2])
def test_what_cannot_be_diagnosed_is_told_before_training(home: Path, tmp_path: Path, seeds: int | None) -> None:
    def refused(path: Path, folder: Path, attach: bool, trainers: str = "") -> str:
        trained: list[int] = []
        with pytest.raises(UsageError) as caught:
            hpo.train(
                path,
                seeds=seeds,
                settings=hpo.Settings(home=home, trainers=trainers),
                report=lambda seed, epoch, metrics: trained.append(epoch),
                diagnose=folder,
                attach=attach,
            )
        assert trained == []
        assert not (tmp_path / "inside").exists()
        return str(caught.value)

    asleep, own = tmp_path / "asleep.toml", tmp_path / "own.toml"
    asleep.write_text(SLEEPING)
    own.write_text(STUDY.format(value="last").partition("[space]")[0])
    inside = tmp_path / "inside"
    assert refused(asleep, inside, False, "benchmarks.sleeping") == (
        "--diagnose looks into networks of the trainer 'classifier', not of 'sleeping'"
    )
    assert refused(own, own, False) == f"--diagnose needs a folder to write into; {own} is a file"
    assert refused(own, inside, True) == (
        "'looked-into' names no study that it was exported from, so there is none to attach to"
    )
    own.write_text(own.read_text() + '[provenance]\nstudy = "gone/random/0"\n')
    assert "there is no study 'gone/random/0' at " in refused(own, inside, True)
