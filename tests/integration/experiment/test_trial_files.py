"""What stays of a trial: its folder as ``keep_folders`` says, its log, its model."""

import importlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpo
from hpo.errors import ExperimentError, UsageError
from hpo.experiment.experiment import load_experiment
from hpo.experiment.trial_log import trial_log
from hpo.launchers.progress import PlainProgress
from hpo.trainers.registry import TRAINERS

STUDY = """
name = "{keep}"
trainer = "keeping"
metric = "loss"
samplers = {samplers}
budget = {{ trials = 4 }}
keep_folders = "{keep}"
[space]
x = {{ low = 0.0, high = 1.0 }}
"""


class Config(hpo.Config):
    x: float = 0.0


@pytest.fixture(autouse=True)
def keeping() -> Iterator[None]:
    importlib.import_module("hpo.trainers.classifier.entry")
    before = dict(TRAINERS)

    @hpo.trainer("keeping", metrics={"loss": "minimize"})
    def keeping(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
        assert list(run.folder.iterdir()) == []
        run.log(f"{run.study} {run.trial} {run.lineage} {run.attempt}: x = {config.x}")
        yield {"loss": config.x}
        (run.folder / "weights").write_text(str(config.x))
        run.save_model(run.folder / "weights")

    yield
    TRAINERS.clear()
    TRAINERS.update(before)


def launch(home: Path, folder: Path, keep: str, samplers: str = '["random"]') -> "hpo.LoadedExperiment":
    (folder / "study.toml").write_text(STUDY.format(keep=keep, samplers=samplers))
    settings = hpo.Settings(home=home)
    progress = PlainProgress(io.StringIO())
    return hpo.launch(folder / "study.toml", launcher="inline", settings=settings, progress=progress)


@pytest.mark.parametrize(("keep", "num_kept"), [("all", 4), ("best", 1), ("none", 0)])
def test_folders_logs_and_models(keep: str, num_kept: int, home: Path, tmp_path: Path) -> None:
    loaded = launch(home, tmp_path, keep)
    kept = sorted(home.glob("checkpoints/*/trials/*"))
    assert len(kept) == num_kept
    best = loaded.best()
    if num_kept:
        loaded.export_model(tmp_path / "model")
        assert float((tmp_path / "model").read_text()) == best.value
    else:
        with pytest.raises(ExperimentError, match=r"its folder is not here .*keep_folders = 'none'"):
            loaded.export_model(tmp_path / "model")
    experiment, settings = loaded._experiment, loaded.settings
    for number in range(4):
        text = trial_log(experiment, str(number), settings).decode()
        assert text.startswith(f"{keep}/random/0 {number} {number} 0: x = 0.")
    for name, error, message in (
        ("4", ExperimentError, "has no trial 4"),
        ("best", UsageError, "'best' names no trial"),
        ("tpe/0/1", UsageError, "has no study 'tpe/0'"),
    ):
        with pytest.raises(error, match=message):
            trial_log(experiment, name, settings)
    assert trial_log(experiment, f"{keep}/random/0/1", settings) == trial_log(experiment, "random/0/1", settings)


def test_several_studies_want_a_name(home: Path, tmp_path: Path) -> None:
    loaded = launch(home, tmp_path, "best", '["random", "tpe"]')
    experiment = load_experiment(loaded._experiment.storage, "best")
    with pytest.raises(UsageError, match="has 2 studies; name one of them too, such as random/0/3"):
        trial_log(experiment, "3", loaded.settings)
    assert trial_log(experiment, "tpe/0/3", loaded.settings).startswith(b"best/tpe/0 3 3 0")
    # One folder of each study.
    assert len(list(home.glob("checkpoints/*/trials/*"))) == 2
