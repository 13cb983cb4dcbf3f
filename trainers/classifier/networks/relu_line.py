"""A number through 10 ReLU units (report 5): few enough to look at every linear region and activation pattern."""

from typing import Any

from torch import nn

from hpo.trainers.classifier.networks.layers import layers
from hpo.trainers.classifier.regularizers import Dropout

UNITS = 10


def build(config: Any, shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """(batch, 1) -> (batch, num_classes)."""
    return layers(
        nn.Linear(shape[0], UNITS),
        nn.BatchNorm1d(UNITS) if config.batch_norm else None,
        nn.ReLU(),
        Dropout(config.dropout) if config.dropout else None,
        nn.Linear(UNITS, num_classes),
    )
