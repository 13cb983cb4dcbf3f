"""torchvision's ResNet-18 (He et al. 2016) with a 3x3 stem and no max-pool, for images of 32x32.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from typing import TYPE_CHECKING

from hpo.trainers.classifier.network_table import DropoutField, network

if TYPE_CHECKING:
    from torch import nn


class ResNet18Fields(DropoutField):
    pass


@network("resnet18", inputs="image", counted=("cifar10", 11_173_962))
def build(config: ResNet18Fields, shape: tuple[int, ...], num_classes: int) -> "nn.Module":
    """ResNet-18 with a 3x3 stem and no max-pool (report 3)

    (batch, channels, height, width) -> (batch, num_classes).
    """
    from torch import nn
    from torchvision.models import resnet18  # type: ignore[import-untyped]

    from hpo.trainers.classifier.layers import layers
    from hpo.trainers.classifier.regularizers import Dropout

    network: nn.Module = resnet18(num_classes=num_classes)
    network.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    if config.dropout:
        network.fc = layers(Dropout(config.dropout), nn.Linear(512, num_classes))
    return network
