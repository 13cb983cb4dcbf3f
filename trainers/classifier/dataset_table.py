"""The table of data sets and the decorator that adds one. Imports no torch."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpo.trainers.errors import TrainerError

Part = Literal["train", "val", "test"]
Arrays = tuple[NDArray[Any], NDArray[np.int64]]
Read = Callable[[Part, Path | None], Arrays]


@dataclass(frozen=True)
class DatasetEntry:
    """One row of the table.

    Attributes:
        name: what a study file calls it.
        description: one line.
        read: ``read(part, folder)`` gives the inputs (n, *shape) and the labels int64 (n,) of one split, in an order
            of which the first n are a fair sample. ``folder`` is where ``files`` are, or the data folder without them.
        shape: of one input: (channels, height, width) for images, (features,) for vectors.
        num_classes: labels are 0 to num_classes - 1.
        num_train, num_val, num_test: sizes of the splits.
        scale: the value that counts as 1 under ``normalize = "unit"``; None if inputs are taken as they are.
        folder: below the data folder; None if it has no files.
        files: name in the folder -> "md5:..." or "sha256:..." of its content.
        download: puts the files below the data folder that it is given.
        checksums: of files that lie elsewhere, by name; what makes the data what it is.
        class_names: what each label stands for; digits if empty.
    """

    name: str
    description: str
    read: Read
    shape: tuple[int, ...]
    num_classes: int
    num_train: int
    num_val: int
    num_test: int
    scale: float | None = 255.0
    folder: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    download: Callable[[Path], object] | None = None
    checksums: Callable[[], dict[str, str]] | None = None
    class_names: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3


DATASETS: dict[str, DatasetEntry] = {}


def add_dataset(entry: DatasetEntry) -> None:
    """Adds a row to the table.

    Raises:
        TrainerError: if another data set has the name, or the shape, sizes or class names do not fit each other.
    """
    where = f"data set {entry.name!r} ({entry.read.__module__})"
    before = DATASETS.get(entry.name)
    if before is not None and before.read.__module__ != entry.read.__module__:
        raise TrainerError(
            f"two data sets are called {entry.name!r}: in {before.read.__module__} and {entry.read.__module__}"
        )
    if len(entry.shape) not in (1, 3) or min(entry.shape) < 1:
        raise TrainerError(f"{where}: shape must be (features,) or (channels, height, width), not {entry.shape}")
    if entry.num_classes < 2 or min(entry.num_train, entry.num_val, entry.num_test) < 1 or entry.num_train < 2:
        raise TrainerError(f"{where}: at least 2 classes, 2 training inputs and one of each other split are needed")
    if entry.class_names and len(entry.class_names) != entry.num_classes:
        raise TrainerError(f"{where}: {len(entry.class_names)} class names for {entry.num_classes} classes")
    DATASETS[entry.name] = entry


def dataset(
    name: str,
    *,
    shape: tuple[int, ...],
    num_classes: int,
    sizes: tuple[int, int, int],
    scale: float | None = None,
    folder: str | None = None,
    files: tuple[tuple[str, str], ...] = (),
    class_names: tuple[str, ...] = (),
) -> Callable[[Read], Read]:
    """Adds a data set to the table: decorates ``read(part, folder) -> (inputs, labels)``.

    ``part`` is "train", "val" or "test", ``sizes`` how many inputs each of them has; the other arguments are those of
    :class:`DatasetEntry`. The first line of the function's docstring is its description.

    Raises:
        TrainerError: as :func:`add_dataset`.
    """

    def decorate(read: Read) -> Read:
        description = (inspect.getdoc(read) or "").partition("\n")[0] or f"data set in {read.__module__}"
        add_dataset(
            DatasetEntry(
                name,
                description,
                read,
                shape,
                num_classes,
                *sizes,
                scale=scale,
                folder=folder,
                files=files,
                class_names=class_names,
            )
        )
        return read

    return decorate
