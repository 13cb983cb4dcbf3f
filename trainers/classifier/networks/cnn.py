"""Two convolutions, of 32 and 16 channels by default, and two linear layers (report 1).

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from hpo.trainers.classifier.network_table import ActivationField, BatchNormField, DropoutField, network

if TYPE_CHECKING:
    from torch import nn


class CNNFields(ActivationField, BatchNormField, DropoutField):
    channels_1: int = Field(32, ge=1, le=4_096, description="channels of the first convolution (cnn)")
    channels_2: int = Field(16, ge=1, le=4_096, description="channels of the second convolution (cnn)")
    head_width: int = Field(64, ge=1, le=65_536, description="units of the first linear layer (cnn)")


@network(
    "cnn", inputs="image", packed=True, widths=("channels_1", "channels_2", "head_width"), counted=("mnist", 55_834)
)
def build(config: CNNFields, shape: tuple[int, ...], num_classes: int) -> "nn.Sequential":
    """two convolutions and two linear layers (report 1)

    (batch, channels, height, width) -> (batch, num_classes).
    """
    from torch import nn

    from hpo.trainers.classifier.layers import ACTIVATIONS, layers
    from hpo.trainers.classifier.regularizers import Dropout

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
