"""A network and a data set of your own for the image classifier.

    hpo launch examples/own_network.toml --trainers examples/own_network.py

The study file searches the fields of ``DeepFields`` as it searches the classifier's own. ``packed=True`` trains many of
these networks as one batched computation; ``widths`` names the field that is a size of layers.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

import hpo


class DeepFields(hpo.Config):
    depth: int = Field(2, ge=1, le=6, description="hidden layers")
    units: int = Field(32, ge=1, le=1024, description="units of each hidden layer")


@hpo.network("deep", packed=True, widths=("units",))
def deep(config: DeepFields, shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """hidden layers of equal width"""
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = int(np.prod(shape))
    for _ in range(config.depth):
        layers += [nn.Linear(inputs, config.units), nn.ReLU()]
        inputs = config.units
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))


@hpo.dataset("spirals", shape=(2,), num_classes=3, sizes=(600, 150, 150))
def spirals(
    part: Literal["train", "val", "test"], folder: Path | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """three spiral arms in the plane"""
    count = {"train": 600, "val": 150, "test": 150}[part]
    random = np.random.RandomState({"train": 0, "val": 1, "test": 2}[part])
    arm = np.arange(count) % 3
    radius = random.uniform(0.1, 1.0, count)
    angle = 4 * radius + 2 * np.pi * arm / 3 + random.normal(0, 0.1, count)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points.astype(np.float32), arm.astype(np.int64)
