"""Splits, normalization, fingerprints, and what is said of absent and altered files."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.data import clear_cache, load_split
from hpo.trainers.classifier.dataset_files import verify_files
from hpo.trainers.classifier.dataset_splits import split_indices
from hpo.trainers.classifier.datasets import DATASETS, Part, check_arrays, read_split
from hpo.trainers.classifier.entry import check_classifier
from hpo.trainers.errors import TrainerError
from tests.unit.trainers_support import DATA_DIR, needs_cifar10, needs_mnist

SIZES = {
    "digits": (1197, 300, 300),
    "line": (1000, 500, 500),
    "mnist": (50_000, 10_000, 10_000),
    "cifar10": (45_000, 5_000, 10_000),
}
DIGITS_SIZES: dict[Part, int] = {"train": 1197, "val": 300, "test": 300}
PRESENT = [
    pytest.param("digits"),
    pytest.param("line"),
    pytest.param("mnist", marks=needs_mnist),
    pytest.param("cifar10", marks=needs_cifar10),
]


@pytest.mark.parametrize("name", PRESENT)
def test_sizes_and_labels(name: str) -> None:
    for part, size in zip(("train", "val", "test"), SIZES[name], strict=True):
        images, labels = read_split(name, part, DATA_DIR)
        assert images.shape == (size, *DATASETS[name].shape)
        assert set(labels.tolist()) == set(range(DATASETS[name].num_classes))


@needs_cifar10
def test_cifar10_is_stratified_exactly() -> None:
    assert np.bincount(read_split("cifar10", "train", DATA_DIR)[1]).tolist() == [4500] * 10
    assert np.bincount(read_split("cifar10", "val", DATA_DIR)[1]).tolist() == [500] * 10


@pytest.mark.parametrize("name", ["digits", pytest.param("mnist", marks=needs_mnist)])
def test_every_split_holds_the_classes_in_proportion(name: str) -> None:
    parts = [read_split(name, part, DATA_DIR)[1] for part in ("train", "val")]
    whole = np.bincount(np.concatenate(parts)) / sum(map(len, parts))
    for labels in parts:
        assert np.abs(np.bincount(labels) - whole * len(labels)).max() < 2


def test_splits_share_nothing_and_leave_nothing() -> None:
    labels = np.arange(1797) % 10
    splits = split_indices(labels, 10, DIGITS_SIZES)
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(1797))
    assert {part: len(index) for part, index in splits.items()} == {"train": 1197, "val": 300, "test": 300}


def test_splits_are_the_same_on_every_machine() -> None:
    splits = split_indices(np.arange(1797) % 10, 10, DIGITS_SIZES)
    assert splits["train"][:5].tolist() == FIRST_TRAIN
    assert splits["val"][:5].tolist() == FIRST_VAL


FIRST_TRAIN = [1685, 139, 824, 1284, 1691]
FIRST_VAL = [706, 2, 1695, 768, 440]


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    published = load_digits()
    rows = {
        image.astype(np.uint8).tobytes(): int(label)
        for image, label in zip(published.data, published.target, strict=True)
    }
    for part in ("train", "val", "test"):
        for image, label in zip(*read_split("digits", part, None), strict=True):
            assert rows[image.tobytes()] == label


@needs_mnist
def test_mnist_test_set_is_torchvisions() -> None:
    from torchvision.datasets import MNIST

    published = MNIST(str(DATA_DIR), train=False)
    images, labels = read_split("mnist", "test", DATA_DIR)
    assert np.array_equal(images[:, 0], published.data.numpy())
    assert np.array_equal(labels, published.targets.numpy())


@needs_cifar10
def test_cifar10_test_set_is_torchvisions() -> None:
    from torchvision.datasets import CIFAR10

    published = CIFAR10(str(DATA_DIR), train=False)
    images, labels = read_split("cifar10", "test", DATA_DIR)
    assert np.array_equal(images.transpose(0, 2, 3, 1), published.data)
    assert labels.tolist() == published.targets


@pytest.mark.parametrize("name", ["digits", pytest.param("cifar10", marks=needs_cifar10)])
def test_normalization(name: str) -> None:
    def train_split(normalize: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        config = ClassifierConfig.model_validate({"dataset": name, "normalize": normalize})
        return load_split(config, "train", device="cpu", dtype=dtype, data_dir=DATA_DIR).x

    x = train_split("standardize")
    channels = x.transpose(0, 1).flatten(1)
    assert channels.mean(1).tolist() == pytest.approx([0] * len(channels), abs=1e-9)
    assert channels.std(1, correction=0).tolist() == pytest.approx([1] * len(channels))
    x = train_split("unit")
    assert (x.min().item(), x.max().item()) == (0, 1)
    single = train_split("unit", torch.float32)
    assert single.dtype == torch.float32
    assert single.is_contiguous(memory_format=torch.channels_last)
    clear_cache()


def test_limits_take_the_first_images_and_the_whole_sets_normalization() -> None:
    whole = load_split(ClassifierConfig(dataset="digits"), "train", device="cpu")
    few = load_split(ClassifierConfig(dataset="digits", train_size=200), "train", device="cpu")
    assert torch.equal(few.x, whole.x[:200])
    assert torch.equal(few.y, whole.y[:200])
    assert len(load_split(ClassifierConfig(dataset="digits", val_size=50), "val", device="cpu")) == 50
    assert len(load_split(ClassifierConfig(dataset="digits", val_size=50), "test", device="cpu")) == 300


def test_later_trials_reuse_the_tensors() -> None:
    first = load_split(ClassifierConfig(dataset="digits", lr=0.1), "train", device="cpu")
    assert load_split(ClassifierConfig(dataset="digits", lr=0.2), "train", device="cpu").x is first.x


def test_line_is_noisy_only_where_it_trains() -> None:
    for part, flipped in (("train", 50), ("val", 0), ("test", 0)):
        x, y = read_split("line", part, None)
        assert -2 <= x.min() < -1.9
        assert 1.9 < x.max() <= 2
        assert int(((np.sin(2 * np.pi * x[:, 0] / 1.6) > 0) != y).sum()) == flipped


class TestCheck:
    def test_fingerprint_of_digits(self) -> None:
        fingerprint = check_classifier(ClassifierConfig(dataset="digits", val_size=100), None, False)
        assert fingerprint == {
            "dataset": "digits",
            "files": {"digits.csv.gz": "sha256:09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"},
            "split_seed": 0,
            "train": 1197,
            "val": 100,
            "test": 300,
        }

    @needs_mnist
    def test_fingerprint_of_mnist(self) -> None:
        fingerprint = check_classifier(ClassifierConfig(dataset="mnist"), DATA_DIR, False)
        assert len(fingerprint["files"]) == 4
        assert fingerprint["train"] == 50_000

    def test_imports_no_torch(self) -> None:
        code = (
            "import sys; from hpo.trainers.classifier.entry import *; "
            "check_classifier(ClassifierConfig(dataset='digits'), None, False); "
            "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_no_folder_named(self) -> None:
        with pytest.raises(TrainerError, match=r"--data-dir.*HPO_DATA.*MNIST/raw/train-images-idx3-ubyte"):
            check_classifier(ClassifierConfig(dataset="mnist"), None, False)

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(TrainerError, match=f"not complete in {tmp_path}/cifar-10-batches-py: data_batch_1"):
            check_classifier(ClassifierConfig(dataset="cifar10"), tmp_path, False)

    @needs_mnist
    @pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
    def test_damaged(self, tmp_path: Path, damage: str) -> None:
        raw = tmp_path / "MNIST/raw"
        shutil.copytree(DATA_DIR / "MNIST/raw", raw)
        labels = raw / "t10k-labels-idx1-ubyte"
        data = bytearray(labels.read_bytes())
        if damage == "truncated":
            labels.write_bytes(data[:5000])
            expected = r"t10k-labels-idx1-ubyte is not the published file.*\(5,000 bytes\)"
        elif damage == "altered":
            data[100] ^= 1
            labels.write_bytes(data)
            expected = "t10k-labels-idx1-ubyte is not the published file.*checksum is sha256:.*, expected sha256:ff7b"
        else:
            labels.unlink()
            expected = "not complete .*: t10k-labels-idx1-ubyte is missing"
        with pytest.raises(TrainerError, match=expected):
            check_classifier(ClassifierConfig(dataset="mnist"), tmp_path, False)

    def test_an_altered_archive_is_not_unpacked(self, tmp_path: Path) -> None:
        raw = tmp_path / "FashionMNIST/raw"
        raw.mkdir(parents=True)
        for file, _ in DATASETS["fashion_mnist"].files:
            (raw / file).write_bytes(gzip.compress(b"not it"))
        with pytest.raises(TrainerError, match=r"train-images-idx3-ubyte\.gz is not the published file"):
            verify_files("fashion_mnist", tmp_path)

    @pytest.mark.parametrize("label", [-1, 10])
    def test_labels_out_of_range(self, label: int) -> None:
        labels = np.array([3, 9, label, 0])
        with pytest.raises(
            TrainerError, match=f"1 labels are out of range, the first is {label} at 2; expected 0 to 9"
        ):
            check_arrays("digits", np.zeros((4, 1, 8, 8)), labels, "here")

    def test_counts_that_differ(self) -> None:
        with pytest.raises(TrainerError, match="for 3 labels"):
            check_arrays("digits", np.zeros((4, 1, 8, 8)), np.zeros(3, int), "here")
