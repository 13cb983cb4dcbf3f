"""MNIST and the data sets in its format (IDX)."""

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpo.trainers.classifier.dataset_files import torchvision_download
from hpo.trainers.classifier.dataset_splits import Published, split_published
from hpo.trainers.classifier.dataset_table import Arrays, DatasetEntry, add_dataset


def reader(files: tuple[tuple[str, str], ...]) -> Callable[[Published, Path | None], Arrays]:
    """Reads images (n, 1, height, width) uint8 and labels of the files ``train-…`` and ``t10k-…``."""

    def read(published: Published, folder: Path | None) -> Arrays:
        assert folder is not None
        prefix = "train" if published == "train" else "t10k"
        images, labels = (
            _read_idx(folder / next(file for file, _ in files if file.startswith(f"{prefix}-{kind}")))
            for kind in ("images", "labels")
        )
        return images[:, None], labels.astype(np.int64)

    return read


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of bytes: two zeros, type 8, number of dimensions, each dimension as big-endian int32, the bytes."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dims = data[3]
    shape = tuple(np.frombuffer(data, ">i4", dims, 4).tolist())
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


for name, description, folder, class_name, files, class_names in (
    (
        "mnist",
        "handwritten digits, 28x28 grey (LeCun, Cortes, Burges)",
        "MNIST/raw",
        "MNIST",
        (
            ("train-images-idx3-ubyte", "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
            ("train-labels-idx1-ubyte", "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            ("t10k-images-idx3-ubyte", "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            ("t10k-labels-idx1-ubyte", "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ),
        (),
    ),
    (
        "fashion_mnist",
        "Zalando's clothes, 28x28 grey (Xiao, Rasul, Vollgraf 2017)",
        "FashionMNIST/raw",
        "FashionMNIST",
        (
            ("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        (
            *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
        ),
    ),
):
    add_dataset(
        DatasetEntry(
            name,
            description,
            split_published(reader(files), 10, {"train": 50_000, "val": 10_000}),
            shape=(1, 28, 28),
            num_classes=10,
            num_train=50_000,
            num_val=10_000,
            num_test=10_000,
            folder=folder,
            files=files,
            download=partial(torchvision_download, class_name),
            class_names=class_names,
        )
    )
