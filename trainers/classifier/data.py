"""Data sets as tensors that stay on the device; an epoch is a permutation and slices, with no DataLoader.

Images become floating point once, when a worker loads them, and its later trials reuse them.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hpo.trainers.classifier.datasets import DATASETS, Part, read_split

if TYPE_CHECKING:
    from hpo.trainers.classifier.config import ClassifierConfig


@dataclass(frozen=True)
class Split:
    """Inputs ``x`` (n, *shape), floating point and normalized, and labels ``y`` int64 (n,), both on one device."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


def load_split(
    config: "ClassifierConfig",
    part: Part,
    *,
    device: str,
    dtype: torch.dtype = torch.float32,
    data_dir: Path | None = None,
    download: bool = False,
) -> Split:
    """One split of the configuration's data set, normalized as it says; cached for the process.

    ``train_size`` and ``val_size`` take the first images of their split, whose order is random; normalization is that
    of the whole training split all the same.

    Raises:
        TrainerError: where the data is absent, altered or does not fit.
    """
    limits: dict[Part, int | None] = {"train": config.train_size, "val": config.val_size, "test": None}
    return _load(config.dataset, config.normalize, part, limits[part], device, dtype, data_dir, download)


@lru_cache(maxsize=8)
def _load(
    name: str,
    normalize: str,
    part: Part,
    limit: int | None,
    device: str,
    dtype: torch.dtype,
    data_dir: Path | None,
    download: bool,
) -> Split:
    images, labels = read_split(name, part, data_dir, download)
    x = torch.from_numpy(images[:limit].copy()).to(device)
    y = torch.from_numpy(labels[:limit].copy()).to(device)
    scale = DATASETS[name].scale
    if scale is None:
        return Split(x.to(dtype), y)
    mean, std = _moments(name, data_dir) if normalize == "standardize" else ((0.0,), (scale,))
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean_, std_ = (torch.tensor(value, device=device, dtype=torch.float64).view(shape) for value in (mean, std))
    if dtype == torch.float64:
        return Split((x.double() - mean_) / std_, y)
    x = x.float().sub_(mean_.float()).div_(std_.float()).to(dtype)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return Split(x, y)


@lru_cache(maxsize=8)
def _moments(name: str, data_dir: Path | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel (of vectors: each feature) over the training split, as published.

    A channel that is the same everywhere has deviation 1, so that it becomes 0.
    """
    inputs, _ = read_split(name, "train", data_dir)
    values = np.moveaxis(inputs, 1, 0).reshape(inputs.shape[1], -1)
    std = values.std(1, dtype="float64")
    return tuple(values.mean(1, dtype="float64").tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def clear_cache() -> None:
    """Frees the data sets that this process holds."""
    _load.cache_clear()
    _moments.cache_clear()
    read_split.cache_clear()
