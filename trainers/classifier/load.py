"""Loads a network that the classifier has trained, from the weights that ``hpo export --model`` writes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpo.trainers.classifier.config import ClassifierConfig, extended_config
from hpo.trainers.classifier.training import trained_network


def load_network(config: ClassifierConfig | Mapping[str, Any], model: str | os.PathLike[str]) -> nn.Module:
    """The trained network on the CPU, in evaluation mode.

    Its inputs are those of ``hpo.trainers.classifier.data.load_split``: normalized as the configuration says.

    Args:
        config: the configuration that it was trained with, such as ``hpo.load(NAME).best().config``.
        model: the file with its ``state_dict``.

    Raises:
        pydantic.ValidationError: if the configuration is none of the classifier's.
        RuntimeError: if the weights are those of another configuration.
    """
    if not isinstance(config, ClassifierConfig):
        config = extended_config().model_validate(dict(config))
    return trained_network(config, {"network": torch.load(Path(model), weights_only=True, map_location="cpu")})
