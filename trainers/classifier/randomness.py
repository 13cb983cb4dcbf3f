"""Every random number of a training comes from the trial's own generators, never from PyTorch's global one.

A generator derives from the trial's seed, from what it is for and from the epoch. So nothing random has to be kept in
a checkpoint, and a trial trains the same alone, beside others in a pack, or resumed. Data order and initialization
are drawn on the CPU whatever the device, so that they do not depend on it.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import hashlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Purpose = Literal["initialize", "order", "dropout", "augment", "diagnose", "library"]


def derived_seed(seed: int, purpose: Purpose, epoch: int = 0) -> int:
    """A seed in [0, 2**63) that is the same on every machine."""
    digest = hashlib.sha256(f"{seed}\x1f{purpose}\x1f{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: Purpose, epoch: int = 0, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """A fresh generator on ``device``."""
    import torch

    return torch.Generator(device).manual_seed(derived_seed(seed, purpose, epoch))


def epoch_order(seed: int, epoch: int, num_images: int) -> "torch.Tensor":
    """The order in which epoch ``epoch`` (from 0) visits the training set: int64 (num_images,), on the CPU."""
    import torch

    return torch.randperm(num_images, generator=generator(seed, "order", epoch))


def num_steps(num_images: int, batch_size: int) -> int:
    """Batches of an epoch: the last one may be smaller, but one that would hold a single image is left out.

    Batch normalization cannot train on a single image.
    """
    whole, rest = divmod(num_images, batch_size)
    return whole + (1 if rest > 1 or (rest == 1 and batch_size == 1) else 0)
