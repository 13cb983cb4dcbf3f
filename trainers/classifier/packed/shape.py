"""What the trials of one pack must agree on, and the sizes to which they are padded."""

import math
from functools import lru_cache
from typing import Any

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.datasets import DATASETS
from hpo.trainers.classifier.networks import NETWORKS, build_network
from hpo.trainers.classifier.optimizers import OPTIMIZERS
from hpo.trainers.classifier.packed.layers import packed_layers
from hpo.trainers.classifier.packed.optimizers import PACKED_OPTIMIZERS

ROWS = 16
"""A step computes a multiple of so many rows of each slot's batch: the last rows of another number are multiplied by
other instructions, and then a trial's last bits would depend on the sizes of its neighbours' batches."""

COMMON = (
    "dataset",
    "network",
    "optimizer",
    "normalize",
    "train_size",
    "val_size",
    "augment",
    "precision",
    "deterministic",
)
"""What all trials of a pack have in common, whatever the network and the optimizer. ``batch_size`` and the widths of
the network are padded; everything else may differ."""


def why_not(config: ClassifierConfig) -> str | None:
    """Why a configuration trains alone; None if it can be packed."""
    if not NETWORKS[config.network].packed:
        return f"network {config.network!r} has no packed form"
    if config.optimizer not in PACKED_OPTIMIZERS:
        return f"optimizer {config.optimizer!r} has no packed form"
    if config.compiled:
        return "compiled = true"
    return _why_not_packed(agreed(config))


@lru_cache(maxsize=256)
def _why_not_packed(config: ClassifierConfig) -> str | None:
    try:
        packed_layers(build_network(config))
    except TypeError as error:
        return f"network {config.network!r} cannot be packed: {error}"
    return None


def agreed(config: ClassifierConfig) -> ClassifierConfig:
    """The configuration with everything that may differ, or that it does not read, at its default.

    Two trials fit into one pack if this is equal.
    """
    network = NETWORKS[config.network]
    keep = {*COMMON, *OPTIMIZERS[config.optimizer].shared, *network.fields.model_fields}
    keep -= {*network.widths, "dropout"}
    if config.augment:
        keep.add("pad")
    defaults: dict[str, Any] = {
        name: field.get_default(call_default_factory=True)
        for name, field in type(config).model_fields.items()
        if name not in keep
    }
    return config.model_copy(update=defaults)


def padded(config: ClassifierConfig, largest: tuple[ClassifierConfig, ...] = ()) -> ClassifierConfig:
    """The template of a new pack: :func:`agreed`, with sizes that hold the configuration and all of ``largest``.

    The batch is rounded up to a power of two, at least ROWS, the other sizes to 1 or 1.5 times one, so that more trials
    fit.
    """
    sizes = {name: max(getattr(other, name) for other in (config, *largest)) for name in _sizes(config)}
    sizes = {name: min(_rounded(value), 65_536) for name, value in sizes.items()}
    batch = max(ROWS, *(other.batch_size for other in (config, *largest)))
    sizes["batch_size"] = 1 << (batch - 1).bit_length()
    return agreed(config).model_copy(update=sizes)


def holds(template: ClassifierConfig, config: ClassifierConfig) -> bool:
    """Whether the configuration fits into a pack of this template."""
    names = (*_sizes(config), "batch_size")
    return padded_key(template) == agreed(config) and all(getattr(config, n) <= getattr(template, n) for n in names)


@lru_cache(maxsize=256)
def padded_key(template: ClassifierConfig) -> ClassifierConfig:
    return agreed(template)


UPDATE_ROWS = 8
"""The update of a weight costs as much as so many rows of a batch."""


@lru_cache(maxsize=4096)
def cost(config: ClassifierConfig) -> int:
    """Multiplications of one step with its whole batch, forward, about; the update of the weights counts as some."""
    height, width = (*DATASETS[config.dataset].shape[1:], 1, 1)[:2]
    per_row = weights = 0
    for parameter in build_network(config).parameters():
        weights += parameter.numel()
        # Most convolutions come after a pooling.
        per_row += parameter.numel() * (max(1, height * width // 4) if parameter.ndim == 4 else 1)
    return config.batch_size * per_row + UPDATE_ROWS * weights


def _sizes(config: ClassifierConfig) -> tuple[str, ...]:
    return NETWORKS[config.network].widths


def _rounded(value: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    power = 1 << math.ceil(math.log2(value)) if value > 1 else 1
    return power * 3 // 4 if power >= 4 and value <= power * 3 // 4 else power
