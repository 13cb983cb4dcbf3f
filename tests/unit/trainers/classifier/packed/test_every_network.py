"""Every network of the table, on every shape of inputs that it takes, trains in a pack as it does alone."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.dataset_table import DATASETS, Arrays, DatasetEntry, Part, add_dataset
from hpo.trainers.classifier.datasets import read_split
from hpo.trainers.classifier.entry import register_additions
from hpo.trainers.classifier.networks import NETWORKS
from hpo.trainers.classifier.packed.shape import why_not
from hpo.trainers.registry import TRAINERS
from tests.unit.packed_support import alone, assert_same, packed
from tests.unit.trainers_support import DATA_DIR, needs_cifar10

SHAPES = {"grey": (1, 12, 12), "colour": (3, 12, 12), "wide": (4, 8, 16), "vectors": (5,), "numbers": (1,)}
"""One data set for each kind of shape; `colour` is what CIFAR-10 has."""
SIZES: dict[Part, int] = {"train": 52, "val": 30, "test": 20}
CASES = [
    (network, data)
    for network, (data, shape) in itertools.product(NETWORKS, SHAPES.items())
    if NETWORKS[network].takes(shape)
]


def _made(name: str) -> DatasetEntry:
    def read(part: Part, folder: object) -> Arrays:
        random = np.random.RandomState(list(SIZES).index(part))
        labels = np.arange(SIZES[part]) % 3
        inputs = (
            random.randint(0, 200, (SIZES[part], *SHAPES[name])) + labels.reshape(-1, *[1] * len(SHAPES[name])) * 20
        )
        return inputs.astype(np.uint8), labels.astype(np.int64)

    return DatasetEntry(name, "made", read, SHAPES[name], 3, SIZES["train"], SIZES["val"], SIZES["test"])


@pytest.fixture(autouse=True)
def made_data_sets() -> Iterator[None]:
    before, entry = dict(DATASETS), TRAINERS["classifier"]
    for name in SHAPES:
        add_dataset(_made(name))
    register_additions()
    yield
    DATASETS.clear()
    DATASETS.update(before)
    TRAINERS["classifier"] = entry
    read_split.cache_clear()


def configs(network: str, data: str, **values: Any) -> list[ClassifierConfig]:
    """Three trials of one pack, of different sizes, in batches of which the last is not whole."""
    made: list[ClassifierConfig] = []
    for index in range(3):
        widths = dict.fromkeys(NETWORKS[network].widths, (9, 5, 12)[index])
        settings = {"network": network, "dataset": data, "precision": "fp64", "epochs": 2, "lr": 0.02}
        sizes = {"batch_size": (16, 20, 10)[index], "dropout": (0.0, 0.2, 0.0)[index], "evaluate_train": index == 1}
        config: Any = TRAINERS["classifier"].config
        made.append(config.model_validate({**settings, **sizes, **widths, **values}))
    return made


@pytest.mark.parametrize(("network", "data"), CASES)
@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("extra", [{}, {"batch_norm": True}, {"augment": True, "pad": 2}], ids=str)
def test_packed_as_alone(network: str, data: str, slots: int, extra: dict[str, Any]) -> None:
    """With two slots the third trial is alone in its pack: a single slot has other memory layouts."""
    if extra.get("augment") and len(SHAPES[data]) != 3:
        pytest.skip("augment works on images")
    if "batch_norm" in extra and "batch_norm" not in NETWORKS[network].fields.model_fields:
        pytest.skip("the network does not read batch_norm")
    if network == "resnet18":
        if slots == 3 or extra or data != "colour":
            pytest.skip("it has no packed form: once is enough")
        extra = {"train_size": 20, "val_size": 10, "batch_size": 10, "epochs": 1}
    trials = configs(network, data, **extra)
    assert (why_not(trials[0]) is None) == NETWORKS[network].packed
    ours, _ = packed(trials, slots)
    theirs, _ = alone(trials)
    for index in range(3):
        assert_same(ours[index], theirs[index], 1e-9)


@needs_cifar10
@pytest.mark.parametrize("network", ["cnn", "squeeze_expand", "mlp"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_photographs_in_packs(network: str, precision: str) -> None:
    """The published images, in the order of dimensions in which workers hold them."""
    import torch

    from hpo.trainers.classifier.packed.trainer import PackedTrainer
    from hpo.trainers.protocol import BuildOptions, EpochEnd, Run

    values = {"train_size": 64, "val_size": 64, "precision": precision, "batch_size": 32, "epochs": 1}
    trials = configs(network, "cifar10", **values)[:2]
    trainer = PackedTrainer(BuildOptions(threads=1, data_dir=DATA_DIR), 2)
    for index, config in enumerate(trials):
        trainer.start(index, config, Run(seed=index, data_dir=DATA_DIR))
    for event in [event for _ in trials for event in trainer.advance()]:
        assert isinstance(event, EpochEnd), event
        assert torch.tensor(list(event.metrics.values())).isfinite().all()


def test_every_network_has_a_case() -> None:
    assert {network for network, _ in CASES} == set(NETWORKS)
