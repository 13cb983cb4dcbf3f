"""torchvision's ResNet-18 (He et al. 2016) with a 3x3 stem and no max-pool, for images of 32x32."""

from typing import Any

from torch import nn

from hpo.trainers.classifier.networks.layers import layers
from hpo.trainers.classifier.regularizers import Dropout


def build(config: Any, shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """(batch, channels, height, width) -> (batch, num_classes)."""
    # Here, because torchvision takes 2.7 s to import on top of torch.
    from torchvision.models import resnet18  # type: ignore[import-untyped]

    network: nn.Module = resnet18(num_classes=num_classes)
    network.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    if config.dropout:
        network.fc = layers(Dropout(config.dropout), nn.Linear(512, num_classes))
    return network
