"""Two hidden layers. Batch normalization comes before the activation and dropout after it (report 5's order)."""

import math
from typing import Any

from torch import nn

from hpo.trainers.classifier.networks.layers import ACTIVATIONS, layers
from hpo.trainers.classifier.regularizers import Dropout


def build(config: Any, shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """(batch, *shape) -> (batch, num_classes)."""
    activation = ACTIVATIONS[config.activation]
    return layers(
        nn.Flatten(),
        nn.Linear(math.prod(shape), config.width_1),
        nn.BatchNorm1d(config.width_1) if config.batch_norm else None,
        activation(),
        Dropout(config.dropout) if config.dropout else None,
        nn.Linear(config.width_1, config.width_2),
        nn.BatchNorm1d(config.width_2) if config.batch_norm else None,
        activation(),
        Dropout(config.dropout) if config.dropout else None,
        nn.Linear(config.width_2, num_classes),
    )
