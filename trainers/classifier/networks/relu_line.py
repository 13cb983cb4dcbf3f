"""A number through 10 ReLU units (report 5): few enough to look at every linear region and activation pattern.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from typing import TYPE_CHECKING

from hpo.trainers.classifier.network_table import BatchNormField, DropoutField, network

if TYPE_CHECKING:
    from torch import nn

UNITS = 10


class ReLULineFields(BatchNormField, DropoutField):
    pass


@network("relu_line", inputs="number", packed=True, counted=("line", 42))
def build(config: ReLULineFields, shape: tuple[int, ...], num_classes: int) -> "nn.Sequential":
    """a number through 10 ReLU units (report 5)

    (batch, 1) -> (batch, num_classes).
    """
    from torch import nn

    from hpo.trainers.classifier.layers import layers
    from hpo.trainers.classifier.regularizers import Dropout

    return layers(
        nn.Linear(shape[0], UNITS),
        nn.BatchNorm1d(UNITS) if config.batch_norm else None,
        nn.ReLU(),
        Dropout(config.dropout) if config.dropout else None,
        nn.Linear(UNITS, num_classes),
    )
