"""scikit-learn's 8x8 digits, read from its file without importing scikit-learn (1 s)."""

import importlib.util
from pathlib import Path

import numpy as np

from hpo.trainers.classifier.dataset_files import checksum
from hpo.trainers.classifier.dataset_splits import Published, split_published
from hpo.trainers.classifier.dataset_table import Arrays, DatasetEntry, add_dataset
from hpo.trainers.errors import TrainerError

FILE = "digits.csv.gz"


def file() -> Path:
    """The file that scikit-learn's load_digits reads.

    Raises:
        TrainerError: if scikit-learn is not installed.
    """
    try:
        spec = importlib.util.find_spec("sklearn")
    except ImportError:
        spec = None
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / "datasets/data" / FILE
    if path is None or not path.is_file():
        raise TrainerError(
            "the data set 'digits' comes with scikit-learn, which is not installed here: "
            "pip install 'hpo-service[classifier]'"
        )
    return path


def read(published: Published, folder: Path | None) -> Arrays:
    table = np.loadtxt(file(), delimiter=",", dtype=np.int64)
    return table[:, :64].astype(np.uint8).reshape(-1, 1, 8, 8), table[:, 64]


def checksums() -> dict[str, str]:
    return {FILE: checksum(file(), "sha256")}


add_dataset(
    DatasetEntry(
        "digits",
        "scikit-learn's 8x8 digits; comes with it, nothing to download",
        split_published(read, 10, {"train": 1197, "val": 300, "test": 300}),
        shape=(1, 8, 8),
        num_classes=10,
        num_train=1197,
        num_val=300,
        num_test=300,
        scale=16.0,
        checksums=checksums,
    )
)
