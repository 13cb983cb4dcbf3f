"""CIFAR-10. Its files are pickles, so they are read only after their checksums matched."""

import pickle
from functools import partial
from pathlib import Path

import numpy as np

from hpo.trainers.classifier.dataset_files import torchvision_download
from hpo.trainers.classifier.dataset_splits import Published, split_published
from hpo.trainers.classifier.dataset_table import Arrays, DatasetEntry, add_dataset

FILES = (
    ("data_batch_1", "md5:c99cafc152244af753f735de768cd75f"),
    ("data_batch_2", "md5:d4bba439e000b95fd0a9bffe97cbabec"),
    ("data_batch_3", "md5:54ebc095f3ab1f0389bbae665268c751"),
    ("data_batch_4", "md5:634d18415352ddfa80567beed471001a"),
    ("data_batch_5", "md5:482c414d41f54cd18b22e5b47cb7c3cb"),
    ("test_batch", "md5:40351d587109b95175f43aff81a1287e"),
)


def read(published: Published, folder: Path | None) -> Arrays:
    """Images (n, 3, 32, 32) uint8 and labels."""
    assert folder is not None
    files = [file for file, _ in FILES if file.startswith("data" if published == "train" else "test")]
    batches = [pickle.loads((folder / file).read_bytes(), encoding="latin1") for file in files]
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    return images, np.concatenate([batch["labels"] for batch in batches]).astype(np.int64)


add_dataset(
    DatasetEntry(
        "cifar10",
        "small photographs, 32x32 colour (Krizhevsky 2009)",
        split_published(read, 10, {"train": 45_000, "val": 5_000}),
        shape=(3, 32, 32),
        num_classes=10,
        num_train=45_000,
        num_val=5_000,
        num_test=10_000,
        folder="cifar-10-batches-py",
        files=FILES,
        download=partial(torchvision_download, "CIFAR10"),
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    )
)
