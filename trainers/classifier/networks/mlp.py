"""Two hidden layers. Batch normalization comes before the activation and dropout after it (report 5's order).

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import math
from typing import TYPE_CHECKING

from pydantic import Field

from hpo.trainers.classifier.network_table import ActivationField, BatchNormField, DropoutField, network

if TYPE_CHECKING:
    from torch import nn


class MLPFields(ActivationField, BatchNormField, DropoutField):
    width_1: int = Field(512, ge=1, le=65_536, description="units of the first hidden layer (mlp)")
    width_2: int = Field(256, ge=1, le=65_536, description="units of the second hidden layer (mlp)")


@network("mlp", packed=True, widths=("width_1", "width_2"), counted=("mnist", 535_818))
def build(config: MLPFields, shape: tuple[int, ...], num_classes: int) -> "nn.Sequential":
    """two hidden layers of any widths

    (batch, *shape) -> (batch, num_classes).
    """
    from torch import nn

    from hpo.trainers.classifier.layers import ACTIVATIONS, layers
    from hpo.trainers.classifier.regularizers import Dropout

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
