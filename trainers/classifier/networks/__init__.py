"""The networks, one family a file: the fields that it reads, and ``build``, which reads as a table of layers.

A file in this folder is found by being here. It imports torch inside of ``build`` only: the launcher, ``hpo list`` and
the check of a study file need the fields, and torch takes two seconds.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from hpo.trainers.classifier.base_config import BaseConfig
from hpo.trainers.classifier.datasets import DATASETS
from hpo.trainers.classifier.network_table import NETWORKS

if TYPE_CHECKING:
    from torch import nn

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["NETWORKS", "build_network"]


def build_network(config: BaseConfig) -> "nn.Module":
    """The network that the configuration names, on the ``meta`` device: no memory and no random numbers yet.

    ``network.to_empty(device="cpu")`` and :func:`initializers.initialize` give it weights.
    """
    import torch

    data = DATASETS[config.dataset]
    with torch.device("meta"):
        return NETWORKS[config.network].build(config, data.shape, data.num_classes)
