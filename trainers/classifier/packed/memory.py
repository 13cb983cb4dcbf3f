"""How much memory slots need, how much there is, and what running out of it looks like."""

import math

import psutil
import torch

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.datasets import DATASETS
from hpo.trainers.classifier.networks import build_network
from hpo.trainers.classifier.packed import shape
from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import BuildOptions

SHARE = 0.8
"""Part of the free memory that slots may take."""

TEXTS = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the host had no memory left; libraries say so as a plain RuntimeError too."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, RuntimeError) and any(text in str(error).lower() for text in TEXTS):
        return True
    # While a graph is captured, the error that ends the capture hides the one that caused it.
    cause = error.__cause__ or error.__context__
    return "during capture" in str(error) and cause is not None and is_out_of_memory(cause)


def available_bytes(options: BuildOptions) -> int:
    """Memory of the device that this worker may use."""
    if torch.device(options.device).type == "cuda":
        free, total = torch.cuda.mem_get_info(options.device)
        # The others may not have taken their part yet.
        return int(min(free, total // options.device_workers))
    free = int(psutil.virtual_memory().available)
    if options.memory_bytes is None:
        return free
    # torch itself takes some 300 MB, which are held by now and were free when the share was measured.
    return max(0, min(free, options.memory_bytes - _held_bytes()))


def _held_bytes() -> int:
    """Memory of its own that this process holds, without mapped files."""
    memory = psutil.Process().memory_info()
    return max(0, int(memory.rss) - int(getattr(memory, "shared", 0)))


def slot_bytes(config: ClassifierConfig) -> int:
    """Memory of a slot of the size that the configuration needs, about: weights, optimizer, gradients, batch."""
    template = shape.padded(config)
    itemsize = 8 if template.precision == "fp64" else 4
    data = DATASETS[template.dataset]
    network = build_network(template)
    weights = sum(parameter.numel() for parameter in network.parameters())
    copies = 4 if template.optimizer == "sgd" else 6
    pixels = data.shape[1] * data.shape[2] if any(p.ndim == 4 for p in network.parameters()) else 1
    units = sum(parameter.shape[0] for parameter in network.parameters())
    # Each unit's output and its gradient are there before and after its activation.
    activations = 4 * template.batch_size * units * pixels
    crops = 0
    if template.augment:
        # The images as they are, padded and cropped; what is done to each.
        activations += 3 * template.batch_size * math.prod(data.shape)
        crops = 3 * template.num_train
    return copies * itemsize * weights + itemsize * activations + template.num_train * (8 + itemsize) + crops


def most_slots(options: BuildOptions) -> int | None:
    """How many slots the memory holds, for the largest of the given configurations; None where there are none."""
    packable = [config for config in options.configs if shape.why_not(config) is None]
    if not packable:
        return None
    return max(1, int(SHARE * available_bytes(options)) // max(map(slot_bytes, packable)))


def check_slots(options: BuildOptions, slots: int) -> None:
    """Refuses a number of slots that cannot work.

    Raises:
        TrainerError: below 1, or above what the memory holds.
    """
    if slots < 1:
        raise TrainerError(f"slots must be at least 1, not {slots}")
    most = most_slots(options)
    if most is not None and slots > most:
        free = available_bytes(options) / 2**30
        raise TrainerError(
            f"slots = {slots} is more than memory holds: {options.device} has {free:.1f} GiB free, which is room for "
            f"{most} of the study's largest trials; take at most {most}, or leave slots out to have them measured"
        )
