"""Two classes in turn along a line: data that is made, not read."""

from pathlib import Path

import numpy as np

from hpo.trainers.classifier.dataset_table import Arrays, Part, dataset

SIZES: dict[Part, int] = {"train": 1_000, "val": 500, "test": 500}
SEEDS: dict[Part, int] = {"train": 1, "val": 2, "test": 3}


@dataset("line", shape=(1,), num_classes=2, sizes=(SIZES["train"], SIZES["val"], SIZES["test"]))
def read(part: Part, folder: Path | None) -> Arrays:
    """a number in [-2, 2], two classes in turn along the line, 5 % of the training labels flipped

    Three and a half turns between the classes; the noise is only in the training labels.
    """
    random = np.random.RandomState(SEEDS[part])
    x = random.uniform(-2, 2, (SIZES[part], 1)).astype(np.float32)
    y = (np.sin(2 * np.pi * x[:, 0] / 1.6) > 0).astype(np.int64)
    if part == "train":
        flipped = random.permutation(SIZES[part])[: SIZES[part] // 20]
        y[flipped] = 1 - y[flipped]
    return x, y
