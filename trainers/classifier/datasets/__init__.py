"""The data sets, one kind a file: their files, checksums, splits, and how they are read with NumPy.

A file in this folder is found by being here. Nothing here imports torch: the launcher checks the data too.
"""

import importlib
import pkgutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.trainers.classifier.dataset_files import data_folder, verify_files
from hpo.trainers.classifier.dataset_table import DATASETS, Arrays, Part
from hpo.trainers.errors import TrainerError

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["DATASETS", "Part", "check_arrays", "read_split"]


def check_arrays(name: str, images: NDArray[Any], labels: NDArray[np.int64], where: str) -> None:
    """Raises TrainerError where images have the wrong shape, counts differ or a label is out of range."""
    data = DATASETS[name]
    if images.shape != (len(labels), *data.shape):
        expected = ("n", *data.shape)
        raise TrainerError(f"{where}: inputs of shape {images.shape} for {len(labels)} labels; expected {expected}")
    wrong = (labels < 0) | (labels >= data.num_classes)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise TrainerError(
            f"{where}: {int(wrong.sum())} labels are out of range, the first is {int(labels[first])} at {first}; "
            f"expected 0 to {data.num_classes - 1}"
        )


@lru_cache(maxsize=4)
def read_split(name: str, part: Part, data_dir: Path | None, download: bool = False) -> Arrays:
    """Inputs (n, *shape) as published (uint8, or floating point) and labels int64 (n,) of one split.

    Raises:
        TrainerError: as :func:`verify_files` and :func:`check_arrays`; if the split has not the size of its row.
    """
    verify_files(name, data_dir, download)
    data = DATASETS[name]
    folder = data_folder(name, data_dir) if data.folder is not None else data_dir
    inputs, labels = data.read(part, folder)
    inputs, labels = np.asarray(inputs), np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise TrainerError(
            f"the data set {name!r}: labels must be whole numbers (n,), not {labels.dtype} {labels.shape}"
        )
    labels = labels.astype(np.int64, copy=False)
    check_arrays(name, inputs, labels, f"the data set {name!r}")
    size = {"train": data.num_train, "val": data.num_val, "test": data.num_test}[part]
    if len(labels) != size:
        raise TrainerError(f"the data set {name!r}: {len(labels)} inputs in the split {part!r}; expected {size}")
    return inputs, labels
