"""An exported configuration trains again to the same bits, whatever company it was found in."""

import io
from pathlib import Path

import pytest

import hpo
from hpo.launchers.progress import PlainProgress

STUDY = """
name = "again"
trainer = "classifier"
metric = "val_loss"
samplers = ["random"]
budget = { trials = 9 }

[fixed]
dataset = "digits"
network = "mlp"
epochs = 4

[space]
lr = { low = 0.01, high = 0.1, log = true }
width_1 = { low = 16, high = 100 }
width_2 = { low = 16, high = 50 }
batch_size = [16, 30, 64]
dropout = { low = 0.0, high = 0.3 }
"""


@pytest.mark.parametrize("slots", [1, 6])
def test_every_trial_gives_its_value_again(home: Path, tmp_path: Path, slots: int) -> None:
    file = tmp_path / "study.toml"
    file.write_text(STUDY)
    settings = hpo.Settings(home=home, slots=slots)
    found = hpo.launch(file, launcher="inline", gpus="none", settings=settings, progress=PlainProgress(io.StringIO()))
    exported = found.export(tmp_path / "best.toml", top=9)
    assert len({best.value for _, best in exported}) == 9
    for path, best in exported:
        assert best.attrs["trained_on"]["slots"] == slots
        trained = hpo.train(path, settings=settings)
        assert (trained["expected"], trained["obtained"], trained["reproduced"]) == (best.value, best.value, True)
