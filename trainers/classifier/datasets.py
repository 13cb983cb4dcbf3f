"""The data sets: their files, checksums and splits, read with NumPy. Imports no torch, for the launcher's check.

A file is trusted only after its checksum matched (CIFAR's are pickles). The published training images are split into
training and validation once and for all, stratified by class, in an order drawn from ``SPLIT_SEED``, so that the
first n images of a split are a fair sample of it. The published test images are the test set.
"""

import gzip
import hashlib
import importlib.util
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpo.trainers.errors import TrainerError

Part = Literal["train", "val", "test"]
Arrays = tuple[NDArray[Any], NDArray[np.int64]]
SPLIT_SEED = 0


@dataclass(frozen=True)
class DatasetEntry:
    """One row of the table.

    Attributes:
        description: one line.
        shape: of one input: (channels, height, width), or (1,) for a number.
        num_classes: labels are 0 to num_classes - 1.
        num_train, num_val, num_test: sizes of the splits.
        scale: the value that counts as 1 under ``normalize = "unit"``; None where inputs are taken as they are.
        folder: below the data folder; None where no folder is needed.
        files: name in the folder -> "md5:..." or "sha256:..." of its content.
        torchvision: name of the torchvision class that downloads it.
    """

    description: str
    shape: tuple[int, ...]
    num_classes: int
    num_train: int
    num_val: int
    num_test: int
    scale: float | None = 255.0
    folder: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    torchvision: str | None = None


DATASETS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry(
        "scikit-learn's 8x8 digits; comes with it, nothing to download", (1, 8, 8), 10, 1197, 300, 300, scale=16.0
    ),
    "mnist": DatasetEntry(
        "handwritten digits, 28x28 grey (LeCun, Cortes, Burges)",
        (1, 28, 28),
        10,
        50_000,
        10_000,
        10_000,
        folder="MNIST/raw",
        files=(
            ("train-images-idx3-ubyte", "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
            ("train-labels-idx1-ubyte", "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            ("t10k-images-idx3-ubyte", "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            ("t10k-labels-idx1-ubyte", "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ),
        torchvision="MNIST",
    ),
    "fashion_mnist": DatasetEntry(
        "Zalando's clothes, 28x28 grey (Xiao, Rasul, Vollgraf 2017)",
        (1, 28, 28),
        10,
        50_000,
        10_000,
        10_000,
        folder="FashionMNIST/raw",
        files=(
            ("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        torchvision="FashionMNIST",
    ),
    "cifar10": DatasetEntry(
        "small photographs, 32x32 colour (Krizhevsky 2009)",
        (3, 32, 32),
        10,
        45_000,
        5_000,
        10_000,
        folder="cifar-10-batches-py",
        files=(
            ("data_batch_1", "md5:c99cafc152244af753f735de768cd75f"),
            ("data_batch_2", "md5:d4bba439e000b95fd0a9bffe97cbabec"),
            ("data_batch_3", "md5:54ebc095f3ab1f0389bbae665268c751"),
            ("data_batch_4", "md5:634d18415352ddfa80567beed471001a"),
            ("data_batch_5", "md5:482c414d41f54cd18b22e5b47cb7c3cb"),
            ("test_batch", "md5:40351d587109b95175f43aff81a1287e"),
        ),
        torchvision="CIFAR10",
    ),
    "line": DatasetEntry(
        "a number in [-2, 2], two classes in turn along the line, 5 % of the training labels flipped",
        (1,),
        2,
        1_000,
        500,
        500,
        scale=None,
    ),
}


def data_folder(name: str, data_dir: Path | None) -> Path | None:
    """Where the data set's files are expected; None for one that needs no folder.

    Raises:
        TrainerError: where it needs one and ``data_dir`` is None.
    """
    data = DATASETS[name]
    if data.folder is None:
        return None
    if data_dir is None:
        raise TrainerError(
            f"the data set {name!r} is read from files and no data folder was named: give --data-dir FOLDER or set "
            f"HPO_DATA; {data.folder}/{data.files[0][0]} is expected below it"
        )
    return Path(data_dir) / data.folder


def verify_files(name: str, data_dir: Path | None, download: bool = False) -> dict[str, str]:
    """Checks that the data set is there and unaltered; downloads it first where allowed and absent.

    Returns:
        The checksum of each file, by name; what makes the data what it is.

    Raises:
        TrainerError: for a file that is absent, cut short or altered; the message names it and what was expected.
    """
    data = DATASETS[name]
    folder = data_folder(name, data_dir)
    if folder is None:
        if name == "digits":
            return {"digits.csv.gz": f"sha256:{hashlib.sha256(_digits_file().read_bytes()).hexdigest()}"}
        return {}
    missing = [file for file, _ in data.files if not (folder / file).is_file()]
    if missing and download:
        _download(name, data_dir)
        missing = [file for file, _ in data.files if not (folder / file).is_file()]
    if missing:
        raise TrainerError(
            f"the data set {name!r} is not complete in {folder}: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; name the folder that holds {data.folder} with "
            f"--data-dir or HPO_DATA, or allow the download with --download"
        )
    for file, expected in data.files:
        found = _checksum(folder / file, expected.partition(":")[0])
        if found != expected:
            raise TrainerError(
                f"{folder / file} is not the published file of the data set {name!r}: its checksum is {found}, "
                f"expected {expected} ({(folder / file).stat().st_size:,} bytes); remove it and fetch it again"
            )
    return dict(data.files)


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
    """Inputs (n, *shape) as published (uint8, or float32 for ``line``) and labels int64 (n,) of one split.

    Raises:
        TrainerError: as :func:`verify_files` and :func:`check_arrays`.
    """
    if name == "line":
        return _line(part)
    verify_files(name, data_dir, download)
    published: Literal["train", "test"] = "test" if part == "test" and name != "digits" else "train"
    images, labels = _read_published(name, published, data_folder(name, data_dir))
    check_arrays(name, images, labels, f"the data set {name!r}")
    if published == "test":
        return images, labels
    index = split_indices(name, labels)[part]
    return images[index], labels[index]


def split_indices(name: str, labels: NDArray[np.int64]) -> dict[Part, NDArray[np.int64]]:
    """The rows of each split among the published training images, shuffled, each class in proportion.

    RandomState's numbers are frozen by NumPy's policy, so the splits are the same with any version.
    """
    data = DATASETS[name]
    wanted: dict[Part, int] = {"train": data.num_train, "val": data.num_val}
    if name == "digits":
        wanted["test"] = data.num_test
    random = np.random.RandomState(SPLIT_SEED)
    # Sorted by the rank within the class as a fraction, any stretch of the order holds all classes in proportion.
    order = random.permutation(len(labels))
    fraction = np.empty(len(labels))
    for label in range(data.num_classes):
        members = order[labels[order] == label]
        fraction[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = order[np.argsort(fraction[order], kind="stable")]
    splits: dict[Part, NDArray[np.int64]] = {}
    start = 0
    for part, count in reversed(wanted.items()):
        splits[part] = random.permutation(order[start : start + count]).astype(np.int64)
        start += count
    return splits


def _read_published(name: str, part: Literal["train", "test"], folder: Path | None) -> Arrays:
    if folder is None:
        table = np.loadtxt(_digits_file(), delimiter=",", dtype=np.int64)
        return table[:, :64].astype(np.uint8).reshape(-1, 1, 8, 8), table[:, 64]
    if name == "cifar10":
        files = [file for file, _ in DATASETS[name].files if file.startswith("data" if part == "train" else "test")]
        batches = [pickle.loads((folder / file).read_bytes(), encoding="latin1") for file in files]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        return images, np.concatenate([batch["labels"] for batch in batches]).astype(np.int64)
    prefix = "train" if part == "train" else "t10k"
    images, labels = (
        _read_idx(folder / next(file for file, _ in DATASETS[name].files if file.startswith(f"{prefix}-{kind}")))
        for kind in ("images", "labels")
    )
    return images[:, None], labels.astype(np.int64)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of bytes: two zeros, type 8, number of dimensions, each dimension as big-endian int32, the bytes."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dims = data[3]
    shape = tuple(np.frombuffer(data, ">i4", dims, 4).tolist())
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def _line(part: Part) -> Arrays:
    """Three and a half turns between the classes on [-2, 2]; the noise is only in the training labels."""
    data = DATASETS["line"]
    count = {"train": data.num_train, "val": data.num_val, "test": data.num_test}[part]
    random = np.random.RandomState({"train": 1, "val": 2, "test": 3}[part])
    x = random.uniform(-2, 2, (count, 1)).astype(np.float32)
    y = (np.sin(2 * np.pi * x[:, 0] / 1.6) > 0).astype(np.int64)
    if part == "train":
        flipped = random.permutation(count)[: count // 20]
        y[flipped] = 1 - y[flipped]
    return x, y


def _digits_file() -> Path:
    """The file that scikit-learn's load_digits reads, found without importing scikit-learn (1 s)."""
    spec = importlib.util.find_spec("sklearn")
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / "datasets/data/digits.csv.gz"
    if path is None or not path.is_file():
        raise TrainerError(
            "the data set 'digits' comes with scikit-learn, of which no whole installation is found here"
        )
    return path


def _checksum(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _download(name: str, data_dir: Path | None) -> None:
    import torchvision  # type: ignore[import-untyped]

    try:
        getattr(torchvision.datasets, DATASETS[name].torchvision or "")(str(data_dir), download=True)
    except Exception as error:
        raise TrainerError(f"the data set {name!r} could not be downloaded into {data_dir}: {error}") from error
