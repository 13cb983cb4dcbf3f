"""The classifier's row in the table of trainers. Importing this module adds it; it imports no torch."""

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from hpo.trainers.classifier.config import ClassifierConfig, extended_config
from hpo.trainers.classifier.dataset_files import verify_files
from hpo.trainers.classifier.dataset_splits import SPLIT_SEED
from hpo.trainers.classifier.dataset_table import DATASETS, Part
from hpo.trainers.classifier.datasets import read_split
from hpo.trainers.classifier.network_table import NETWORKS
from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import BuildOptions, Direction, Trainer
from hpo.trainers.registry import TrainerEntry, register

NEEDED = {"torch": "torch", "torchvision": "torchvision", "sklearn": "scikit-learn"}
"""Modules of the extra, and the distributions that they come from."""
SPLITS: tuple[Part, ...] = ("train", "val", "test")

CLASSIFIER_METRICS: dict[str, Direction | None] = {
    "val_accuracy": "maximize",
    "val_loss": "minimize",
    "train_loss": "minimize",
    "train_set_accuracy": "maximize",
    "train_set_loss": "minimize",
    "test_accuracy": "maximize",
    "test_loss": "minimize",
    "lr": None,
    "grad_norm": None,
    "seconds": None,
    "num_parameters": "minimize",
    "seconds_per_epoch": "minimize",
}
"""What the classifier yields. train_set_* need ``evaluate_train``; test_* come from ``hpo train`` only."""


def check_installed() -> None:
    """Raises TrainerError if the libraries of the extra are not installed; imports none of them."""
    missing = [name for module, name in NEEDED.items() if not _is_installed(module)]
    if missing:
        raise TrainerError(
            f"trainer 'classifier' needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed: pip install 'hpo-service[classifier]'"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def check_device(device: str) -> None:
    """Raises TrainerError if the installed torch cannot compute on ``device``; imports torch."""
    if not device.startswith("cuda"):
        return
    import torch

    if torch.version.cuda is None:
        raise TrainerError(
            f"there is a GPU ({device}), and torch {torch.__version__} was built without CUDA: install a build with "
            "CUDA (https://pytorch.org/get-started), or give --gpus none to train on the CPU"
        )
    if not torch.cuda.is_available():
        raise TrainerError(
            f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable GPU for {device}: the driver may "
            "be too old for it, or CUDA_VISIBLE_DEVICES may name none; --gpus none trains on the CPU"
        )


def check_classifier(config: ClassifierConfig, data_dir: Path | None, download: bool) -> dict[str, Any]:
    """Verifies the data of one configuration and returns its fingerprint.

    Raises:
        TrainerError: if a file is absent, cut short or altered, a label is out of range, or torch is not installed.
    """
    check_installed()
    checksums = verify_files(config.dataset, data_dir, download)
    for part in SPLITS:
        read_split(config.dataset, part, data_dir)
    data = DATASETS[config.dataset]
    return {
        "dataset": config.dataset,
        "files": checksums or _array_checksums(config.dataset, data_dir),
        "split_seed": SPLIT_SEED,
        "train": config.num_train,
        "val": config.val_size or data.num_val,
        "test": data.num_test,
    }


@lru_cache(maxsize=4)
def _array_checksums(name: str, data_dir: Path | None) -> dict[str, str]:
    """For data that is made or read without published files: a checksum of each split's inputs and labels."""
    checksums: dict[str, str] = {}
    for part in SPLITS:
        digest = hashlib.sha256()
        for array in read_split(name, part, data_dir):
            digest.update(array.tobytes())
        checksums[part] = f"sha256:{digest.hexdigest()}"
    return checksums


def _build_classifier(options: BuildOptions) -> Trainer:
    """One trial at a time, or as many at once as asked for, or as a short measurement finds fastest."""
    check_installed()
    check_device(options.device)
    slots, threads = options.slots, options.threads
    if slots is None or (slots == 1 and options.choose_threads and threads > 1):
        from hpo.trainers.classifier.packed.probe import choose

        slots, threads = choose(options)
    if slots != 1 or _is_graphed(options):
        from hpo.trainers.classifier.packed.trainer import PackedTrainer

        return PackedTrainer(options, slots)
    from hpo.trainers.classifier.training import ClassifierTrainer

    return ClassifierTrainer(dataclasses.replace(options, threads=threads))


def _is_graphed(options: BuildOptions) -> bool:
    """Whether a trial alone is a pack of one: on a GPU, if all are packable. Its step is then one launch, a graph's."""
    if not options.device.startswith("cuda") or not options.configs:
        return False
    from hpo.trainers.classifier.packed.shape import why_not

    return all(why_not(config) is None for config in options.configs)


def _modules() -> list[str]:
    """The modules of all networks and data sets; a user's own are code that decides what a trial gives."""
    return [
        *(entry.build.__module__ for entry in NETWORKS.values()),
        *(entry.read.__module__ for entry in DATASETS.values()),
    ]


def read_portfolio() -> list[dict[str, Any]]:
    """Configurations that are good on average over the tables of ``benchmarks/curves``, the best first.

    ``python -m benchmarks.portfolio`` makes the file.
    """
    return list(json.loads(Path(__file__).with_name("portfolio.json").read_text()))


def fixes_anew(names: Collection[str]) -> dict[str, Any]:
    """New experiments with dropout take its random numbers from counters; those of before draw them one by one."""
    return {"dropout_generator": "philox"} if "dropout" in names else {}


def register_classifier(config: type[ClassifierConfig]) -> None:
    """Adds the classifier to the table of trainers, or replaces it by one with a larger configuration."""
    register(
        TrainerEntry(
            name="classifier",
            config=config,
            build=_build_classifier,
            description="image classifiers on data that stays on the device",
            metrics=CLASSIFIER_METRICS,
            check=check_classifier,
            more_modules=_modules,
            portfolio=read_portfolio,
            fixes_anew=fixes_anew,
        )
    )


def register_additions() -> None:
    """After a network or a data set has been added to its table: the configuration gets its fields and its name."""
    register_classifier(extended_config())


register_classifier(ClassifierConfig)
