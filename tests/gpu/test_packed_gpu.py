"""Packs in CUDA graphs. Skipped where there is no CUDA device."""

import pytest
import torch

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.packed.trainer import PackedTrainer
from hpo.trainers.classifier.training import ClassifierTrainer
from hpo.trainers.protocol import BuildOptions, Run
from tests.unit.packed_support import Curves, configuration, run_all

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CASES: dict[str, dict[str, object]] = {
    "base": {},
    "smaller batch, narrower": {"batch_size": 17, "width_1": 13},
    "decay and smoothing": {"weight_decay": 0.01, "label_smoothing": 0.1, "l1": 0.001},
    "dropout": {"dropout": 0.2, "batch_size": 20},
    "philox": {"dropout": 0.2, "batch_size": 20, "dropout_generator": "philox"},
    "schedule": {"scheduler": "cosine", "beta": 0.5},
    "batch_norm": {"batch_norm": True, "batch_size": 25},
    "augment": {"augment": True, "pad": 1, "batch_size": 20},
    "adam": {"optimizer": "adam", "lr": 0.002},
    "adamw": {"optimizer": "adamw", "lr": 0.002, "beta2": 0.95, "weight_decay": 0.05},
    "cnn": {"network": "cnn", "channels_1": 6, "channels_2": 5, "head_width": 12},
    "squeeze_expand": {"network": "squeeze_expand"},
}


def train(configs: list[ClassifierConfig], slots: int) -> Curves:
    options = BuildOptions(device="cuda", configs=tuple(configs))
    trainer = ClassifierTrainer(options) if slots == 1 else PackedTrainer(options, slots)
    runs = {index: Run(device="cuda", seed=index) for index in range(len(configs))}
    return run_all(trainer, configs, runs=runs)[0]


@pytest.mark.parametrize("name", CASES)
def test_captured_training_is_the_same_training(name: str) -> None:
    """Eight trials in three slots, so that slots are refilled, against the same trials alone."""
    values = {"lr": 0.02, **CASES[name], "precision": "fp64", "epochs": 4}
    configs = [configuration(**values) for _ in range(8)]
    ours, theirs = train(configs, 3), train(configs, 1)
    for index, curve in theirs.items():
        for mine, reference in zip(ours[index], curve, strict=True):
            for metric in ("train_loss", "val_loss", "grad_norm"):
                assert mine[metric] == pytest.approx(reference[metric], rel=1e-7), metric


def test_a_refill_captures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    captures = []
    capture = torch.cuda.CUDAGraph.capture_begin
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "capture_begin", lambda *args, **kwargs: captures.append(1) or capture(*args, **kwargs)
    )
    configs = [configuration(epochs=1 + index % 3, batch_size=16 + index, width_1=10 + index) for index in range(12)]
    train(configs, 4)
    assert len(captures) == 1


def test_a_diverging_neighbour_changes_no_bit() -> None:
    calm = configuration(dropout=0.1, batch_size=20)
    tame, wild = (train([calm, configuration(lr=lr, weight_decay=0.1, l1=0.01)], 2)[0] for lr in (0.001, 100.0))
    assert tame == wild
