"""``hpo train`` in this process, with trainers of a user's own."""

import importlib
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpo
from hpo.errors import ExperimentError, UsageError
from hpo.export.threads import VARIABLES, restore_threads
from hpo.trainers.registry import TRAINERS

FILE = """
name = "file"
trainer = "{name}"
metric = "loss"
{more}
[fixed]
x = 0.5
[provenance]
seed = 7
value = {value}
"""


class Config(hpo.Config):
    x: float = 0.0


@pytest.fixture
def settings(home: Path) -> hpo.Settings:
    return hpo.Settings(home=home)


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    importlib.import_module("hpo.trainers.classifier.entry")
    before = dict(TRAINERS)
    yield
    TRAINERS.clear()
    TRAINERS.update(before)


def write(folder: Path, name: str, value: float = 1.0, more: str = "") -> Path:
    path = folder / "best.toml"
    path.write_text(FILE.format(name=name, value=value, more=more))
    return path


def test_the_libraries_are_seeded(tmp_path: Path, settings: hpo.Settings):
    @hpo.trainer("drawing", metrics={"loss": "minimize"})
    def drawing(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
        import numpy as np

        yield {"loss": random.random() + np.random.random()}

    file = write(tmp_path, "drawing")
    first, second = hpo.train(file, settings=settings), hpo.train(file, settings=settings)
    assert first["obtained"] == second["obtained"]
    assert first["reproduced"] is False
    different = hpo.train(file, settings=settings, seeds=2)["runs"]
    assert different[0]["loss"] != different[1]["loss"]
    own = write(tmp_path, "drawing", more="seed_libraries = false")
    assert hpo.train(own, settings=settings)["obtained"] != hpo.train(own, settings=settings)["obtained"]


def test_a_seed_that_diverges_or_fails_loses_nothing(tmp_path: Path, settings: hpo.Settings):
    @hpo.trainer("odd", metrics={"loss": "minimize", "grad_norm": None})
    def odd(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
        if run.seed == 3:
            raise hpo.Infeasible("not this seed")
        yield {"loss": math.nan if run.seed == 1 else float(run.seed), "grad_norm": math.inf}

    result = hpo.train(write(tmp_path, "odd"), settings=settings, seeds=5)
    json.dumps(result, allow_nan=False)
    assert result["mean"] == {"loss": 2.0, "grad_norm": None}
    assert [run.get("loss") for run in result["runs"]] == [0.0, None, 2.0, None, 4.0]
    assert result["runs"][3]["error"] == "Infeasible: not this seed"


def test_the_tail_runs_and_the_test_set_is_asked_for(tmp_path: Path, settings: hpo.Settings):
    @hpo.trainer("tailed", metrics={"loss": "minimize"})
    def tailed(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
        assert (run.test, run.experiment, run.attempt) == ("last", "file", 0)
        yield {"loss": 1.0}
        (run.folder / "after.txt").write_text("after the last epoch")
        run.log("done")

    result = hpo.train(write(tmp_path, "tailed"), settings=settings)
    assert result["reproduced"] is True
    folder = Path(result["folder"]) / "seed-7"
    assert (folder / "after.txt").read_text() == "after the last epoch"
    assert (folder / "log.txt").read_text() == "done\n"
    assert folder.is_relative_to(settings.home_path)


def test_the_model(tmp_path: Path, settings: hpo.Settings):
    @hpo.trainer("modelled", metrics={"loss": "minimize"})
    def modelled(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
        yield {"loss": 1.0}
        if config.x:
            (run.folder / "weights").write_text("weights")
            run.save_model(run.folder / "weights")

    file = write(tmp_path, "modelled")
    hpo.train(file, settings=settings, model=tmp_path / "model.bin", folder=tmp_path / "files")
    assert (tmp_path / "model.bin").read_text() == "weights"
    assert (tmp_path / "files" / "seed-7" / "model").exists()
    file.write_text(file.read_text().replace("x = 0.5", "x = 0.0"))
    with pytest.raises(ExperimentError, match=r"kept no model: call run.save_model"):
        hpo.train(file, settings=settings, model=tmp_path / "model.bin", folder=tmp_path / "others")
    with pytest.raises(UsageError, match="leave out --seeds"):
        hpo.train(file, settings=settings, model=tmp_path / "model.bin", seeds=2)
    with pytest.raises(UsageError, match="is a folder"):
        hpo.train(file, settings=settings, model=tmp_path)


def test_the_classifiers_weights(tmp_path: Path, settings: hpo.Settings):
    file = tmp_path / "digits.toml"
    file.write_text(
        'name = "d"\ntrainer = "classifier"\nmetric = "val_loss"\n[fixed]\ndataset = "digits"\nnetwork = "mlp"\n'
        "epochs = 1\nwidth_1 = 8\nwidth_2 = 4\n"
    )
    hpo.train(file, settings=settings, model=tmp_path / "model.pt")
    import torch

    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert [tuple(value.shape) for value in state.values()][:2] == [(8, 64), (8,)]


def test_threads_are_those_of_the_file(tmp_path: Path):
    code = """
import sys
from pathlib import Path
from hpo.export.threads import restore_threads
restore_threads(Path(sys.argv[1]))
import torch
print(torch.get_num_threads())
"""
    path = write(tmp_path, "any", more="")
    path.write_text(path.read_text() + "[provenance.trained_on]\nthreads = 1\n")
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("text", ["", "name = ", "provenance = 3", "[provenance.trained_on]\nthreads = -1"])
def test_a_file_with_mistakes_restores_no_threads(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    (tmp_path / "best.toml").write_text(text)
    restore_threads(tmp_path / "best.toml")
    restore_threads(tmp_path / "absent.toml")
    assert os.environ["OMP_NUM_THREADS"] == "5"
