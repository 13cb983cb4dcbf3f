"""The trainers that come with the package. Importing this module registers them; it imports no torch."""

from pathlib import Path
from typing import Any

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.datasets import DATASETS, SPLIT_SEED, read_split, verify_files
from hpo.trainers.protocol import BuildOptions, Direction, Trainer
from hpo.trainers.registry import TrainerEntry, register

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
}
"""What the classifier yields. train_set_* need ``evaluate_train``; test_* come from ``hpo train`` only."""


def check_classifier(config: ClassifierConfig, data_dir: Path | None, download: bool) -> dict[str, Any]:
    """Verifies the data of one configuration and returns its fingerprint.

    Raises:
        TrainerError: where a file is absent, cut short or altered, or a label is out of range.
    """
    checksums = verify_files(config.dataset, data_dir, download)
    for part in ("train", "val", "test"):
        read_split(config.dataset, part, data_dir)
    data = DATASETS[config.dataset]
    return {
        "dataset": config.dataset,
        "files": checksums,
        "split_seed": SPLIT_SEED,
        "train": config.num_train,
        "val": config.val_size or data.num_val,
        "test": data.num_test,
    }


def _build_classifier(options: BuildOptions) -> Trainer:
    """One trial at a time, or as many at once as asked for, or as a short measurement finds fastest."""
    slots = options.slots
    if slots is None:
        from hpo.trainers.classifier.packed.probe import choose_slots

        slots = choose_slots(options)
    if slots != 1:
        from hpo.trainers.classifier.packed.trainer import PackedTrainer

        return PackedTrainer(options, slots)
    from hpo.trainers.classifier.training import ClassifierTrainer

    return ClassifierTrainer(options)


register(
    TrainerEntry(
        name="classifier",
        config=ClassifierConfig,
        build=_build_classifier,
        description="image classifiers on data that stays on the device",
        metrics=CLASSIFIER_METRICS,
        check=check_classifier,
    )
)
