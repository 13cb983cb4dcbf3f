"""A squeeze-expand CNN of exactly 9,680 parameters on MNIST (report 4).

A block squeezes to few channels by a 1x1 convolution and expands them by a 3x3 one. Pooling comes before
normalization, which then works on a quarter of the values; the convolutions have no biases, which normalization would
take out again. Any image size works: the head averages over what is left.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from typing import TYPE_CHECKING

from hpo.trainers.classifier.network_table import DropoutField, network

if TYPE_CHECKING:
    from torch import nn

STEM = 24
BLOCKS = (
    # squeezed to, expanded to, pooled
    (8, 24, False),
    (8, 32, True),
    (8, 36, False),
    (8, 20, False),
)


class SqueezeExpandFields(DropoutField):
    pass


@network("squeeze_expand", inputs="image", packed=True, counted=("mnist", 9_680))
def build(config: SqueezeExpandFields, shape: tuple[int, ...], num_classes: int) -> "nn.Sequential":
    """squeeze-expand CNN with batch normalization (report 4)

    (batch, channels, height, width) -> (batch, num_classes).
    """
    from torch import nn

    from hpo.trainers.classifier.layers import layers
    from hpo.trainers.classifier.regularizers import Dropout

    def block(channels: int, squeezed: int, expanded: int, pooled: bool) -> nn.Sequential:
        return layers(
            nn.Conv2d(channels, squeezed, 1, bias=False),
            nn.Conv2d(squeezed, expanded, 3, padding=1, bias=False),
            nn.MaxPool2d(2) if pooled else None,
            nn.BatchNorm2d(expanded),
            nn.ReLU(),
        )

    blocks: list[nn.Module] = []
    channels = STEM
    for squeezed, expanded, pooled in BLOCKS:
        blocks.append(block(channels, squeezed, expanded, pooled))
        channels = expanded
    return layers(
        nn.Conv2d(shape[0], STEM, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(STEM),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        Dropout(config.dropout) if config.dropout else None,
        nn.Linear(channels, num_classes, bias=False),
    )
