"""How published training images are split into training and validation, once and for all."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpo.trainers.classifier.dataset_table import Arrays, Part, Read

Published = Literal["train", "test"]
SPLIT_SEED = 0


def split_indices(labels: NDArray[np.int64], num_classes: int, sizes: dict[Part, int]) -> dict[Part, NDArray[np.int64]]:
    """The rows of each split among the published images, shuffled, each class in proportion.

    The order is drawn from ``SPLIT_SEED``, so that the first n images of a split are a fair sample of it.
    RandomState's numbers are frozen by NumPy's policy, so the splits are the same with any version.
    """
    random = np.random.RandomState(SPLIT_SEED)
    # Sorted by the rank within the class as a fraction, any stretch of the order holds all classes in proportion.
    order = random.permutation(len(labels))
    fraction = np.empty(len(labels))
    for label in range(num_classes):
        members = order[labels[order] == label]
        fraction[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = order[np.argsort(fraction[order], kind="stable")]
    splits: dict[Part, NDArray[np.int64]] = {}
    start = 0
    for part, count in reversed(sizes.items()):
        splits[part] = random.permutation(order[start : start + count]).astype(np.int64)
        start += count
    return splits


def split_published(read: Callable[[Published, Path | None], Arrays], num_classes: int, sizes: dict[Part, int]) -> Read:
    """A reader of the splits, made of one that reads the published training and test images.

    The published test images are the test set; if ``sizes`` names "test", there are none and it is split off too.
    """

    def read_part(part: Part, folder: Path | None) -> Arrays:
        if part == "test" and "test" not in sizes:
            return read("test", folder)
        images, labels = read("train", folder)
        index = split_indices(labels, num_classes, sizes)[part]
        return images[index], labels[index]

    read_part.__module__ = read.__module__
    return read_part
