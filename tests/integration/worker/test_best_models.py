"""The classifier's weights of the best trial: kept by a search, exported, and loaded again to the trial's value."""

import io
from pathlib import Path
from typing import Any

import pytest

import hpo
from hpo.errors import ExperimentError
from hpo.launchers.progress import PlainProgress

torch = pytest.importorskip("torch")

STUDY: dict[str, Any] = {
    "name": "weights",
    "trainer": "classifier",
    "metric": "val_accuracy",
    "samplers": ["random"],
    "budget": {"trials": 6},
    "fixed": {"dataset": "digits", "network": "mlp", "epochs": 4, "train_size": 300},
    "space": {"lr": {"low": 0.01, "high": 2.0, "log": True}, "batch_norm": [False, True]},
}


def searched(home: Path, address: str, slots: int, **keys: Any) -> hpo.LoadedExperiment:
    settings = hpo.Settings(home=home, storage=address, slots=slots)
    progress = PlainProgress(io.StringIO())
    return hpo.launch({**STUDY, **keys}, launcher="inline", gpus="none", settings=settings, progress=progress)


def accuracy(config: Any, model: Path) -> float:
    """On the validation set, as the classifier evaluates it."""
    from hpo.trainers.classifier.config import extended_config
    from hpo.trainers.classifier.data import load_split
    from hpo.trainers.classifier.load import load_network

    network = load_network(config, model)
    data = load_split(extended_config().model_validate(dict(config)), "val", device="cpu", dtype=torch.float32)
    with torch.no_grad():
        return (network(data.x).argmax(1) == data.y).double().mean().item()


@pytest.mark.parametrize("value", ["last", "best"])
@pytest.mark.parametrize("slots", [1, 4])
def test_the_best_trials_weights_are_exported(slots: int, value: str, home: Path, address: str, tmp_path: Path) -> None:
    loaded = searched(home, address, slots, value=value)
    (path,) = home.glob("checkpoints/*/trials/*/model.pt")
    best = loaded.best()
    assert path.parent.name == f"{best.attrs['lineage']:06d}"
    assert loaded.export_model(tmp_path / "model.pt").number == best.number
    assert accuracy(best.config, tmp_path / "model.pt") == pytest.approx(best.value, abs=1e-9)
    # A larger budget goes on from there: the model of the best of all trials is the one that stays.
    loaded = searched(home, address, slots, value=value, budget={"trials": 12})
    (path,) = home.glob("checkpoints/*/trials/*/model.pt")
    best = loaded.best()
    assert accuracy(best.config, path) == pytest.approx(best.value, abs=1e-9)


def test_all_models_or_none(home: Path, address: str, tmp_path: Path) -> None:
    searched(home, address, 4, keep_folders="all")
    assert len(list(home.glob("checkpoints/*/trials/*/model.pt"))) == 6
    loaded = searched(home, address, 4, name="none", keep_folders="none")
    assert len(list(home.glob("checkpoints/*/trials/*/model.pt"))) == 6
    with pytest.raises(ExperimentError, match=r"hpo export none --output best\.toml && hpo train best\.toml --model"):
        loaded.export_model(tmp_path / "model.pt")


def test_a_trial_that_violates_a_constraint_keeps_none(home: Path, address: str) -> None:
    loaded = searched(home, address, 4, constraints={"val_loss": {"at_most": 1e-9}})
    assert list(home.glob("checkpoints/*/trials/*/model.pt")) == []
    with pytest.raises(ExperimentError):
        loaded.best()


def test_a_trial_of_several_seeds_keeps_none_and_says_so(home: Path, address: str, tmp_path: Path) -> None:
    loaded = searched(home, address, 4, budget={"trials": 2}, seeds_per_trial=2)
    with pytest.raises(
        ExperimentError, match=r"mean over several seeds no weights are kept; train it again:\n  hpo exp"
    ):
        loaded.export_model(tmp_path / "model.pt")
