"""The networks: one family a file, each with ``build(config, shape, num_classes)`` that reads as a table of layers.

Importing this table imports no torch.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hpo.trainers.classifier.datasets import DATASETS

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NetworkEntry:
    """One row of the table.

    Attributes:
        description: one line.
        dataset: the data set that ``num_parameters`` is counted for.
        num_parameters: at the default configuration; a test counts them.
        inputs: what it reads: images, or one number each.
        parameters: fields of the configuration that shape it.
    """

    description: str
    dataset: str
    num_parameters: int
    inputs: Literal["any", "image", "line"]
    parameters: tuple[str, ...]


NETWORKS: dict[str, NetworkEntry] = {
    "mlp": NetworkEntry(
        "two hidden layers of any widths",
        "mnist",
        535_818,
        "any",
        ("width_1", "width_2", "activation", "batch_norm", "dropout"),
    ),
    "squeeze_expand": NetworkEntry(
        "squeeze-expand CNN with batch normalization (report 4)", "mnist", 9_680, "image", ("dropout",)
    ),
    "cnn": NetworkEntry(
        "two convolutions and two linear layers (report 1)",
        "mnist",
        55_834,
        "image",
        ("channels_1", "channels_2", "head_width", "activation", "batch_norm", "dropout"),
    ),
    "resnet18": NetworkEntry(
        "ResNet-18 with a 3x3 stem and no max-pool (report 3)", "cifar10", 11_173_962, "image", ("dropout",)
    ),
    "relu_line": NetworkEntry(
        "a number through 10 ReLU units (report 5)", "line", 42, "line", ("batch_norm", "dropout")
    ),
}


def build_network(config: Any) -> "nn.Module":
    """The network that the configuration names, on the ``meta`` device: no memory and no random numbers yet.

    ``network.to_empty(device="cpu")`` and :func:`initializers.initialize` give it weights.
    """
    import torch

    data = DATASETS[config.dataset]
    module = importlib.import_module(f"hpo.trainers.classifier.networks.{config.network}")
    with torch.device("meta"):
        network: nn.Module = module.build(config, data.shape, data.num_classes)
    return network
