"""What the trials of one pack must agree on, and the sizes to which they are padded."""

import math
from functools import lru_cache

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.networks import NETWORKS, build_network
from hpo.trainers.classifier.optimizers import OPTIMIZERS
from hpo.trainers.classifier.schedules import SCHEDULERS

PACKABLE = ("mlp", "cnn", "squeeze_expand", "relu_line")

SIZES = ("width_1", "width_2", "channels_1", "channels_2", "head_width")
"""Smaller trials are padded with zeros to these sizes of their pack; ``batch_size`` is the other size."""

ROWS = 16
"""A step computes a multiple of so many rows of each slot's batch: the last rows of another number are multiplied by
other instructions, and then a trial's last bits would depend on the sizes of its neighbours' batches."""

FREE = (
    *("epochs", "evaluate_train", "lr", "beta", "beta2", "weight_decay", "l1", "dropout", "label_smoothing", "flip"),
    *("initializer", "scheduler", "warmup_epochs"),
    *(parameter for schedule in SCHEDULERS.values() for parameter in schedule.parameters),
)
"""What may differ between the trials of a pack besides the sizes and the seed."""


def why_not(config: ClassifierConfig) -> str | None:
    """Why a configuration trains alone; None where it can be packed."""
    if config.network not in PACKABLE:
        return f"network {config.network!r} fills the device by itself"
    return None


def agreed(config: ClassifierConfig) -> ClassifierConfig:
    """The configuration with everything that may differ, or that it does not read, at its default.

    Two trials fit into one pack where this is equal.
    """
    fields = ClassifierConfig.model_fields
    read = NETWORKS[config.network].parameters
    unread = [name for name in ("activation", "batch_norm") if name not in read]
    if "nesterov" not in OPTIMIZERS[config.optimizer].parameters:
        unread.append("nesterov")
    if not config.augment:
        unread.append("pad")
    names = {*FREE, *SIZES, *unread, "batch_size"}
    return config.model_copy(update={name: fields[name].get_default() for name in names})


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


@lru_cache(maxsize=4096)
def cost(config: ClassifierConfig) -> int:
    """Multiplications of one step, up to a factor that is the same for all sizes of one network (about)."""
    return config.batch_size * sum(parameter.numel() for parameter in build_network(config).parameters())


def _sizes(config: ClassifierConfig) -> list[str]:
    return [name for name in SIZES if name in NETWORKS[config.network].parameters]


def _rounded(value: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    power = 1 << math.ceil(math.log2(value)) if value > 1 else 1
    return power * 3 // 4 if power >= 4 and value <= power * 3 // 4 else power
