"""Two convolutions, of 32 and 16 channels by default, and two linear layers (report 1)."""

from typing import Any

from torch import nn

from hpo.trainers.classifier.networks.layers import ACTIVATIONS, layers
from hpo.trainers.classifier.regularizers import Dropout


def build(config: Any, shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """(batch, channels, height, width) -> (batch, num_classes)."""
    activation = ACTIVATIONS[config.activation]
    first, second, head = config.channels_1, config.channels_2, config.head_width
    return layers(
        nn.Conv2d(shape[0], first, 3, padding=1),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(first) if config.batch_norm else None,
        activation(),
        nn.Conv2d(first, second, 3, padding=1),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(second) if config.batch_norm else None,
        activation(),
        nn.Flatten(),
        nn.Linear(second * (shape[1] // 4) * (shape[2] // 4), head),
        activation(),
        Dropout(config.dropout) if config.dropout else None,
        nn.Linear(head, num_classes),
    )
