"""Augmentation as one gather over the whole batch, on the device."""

import torch
from torch import Tensor
from torch.nn import functional


def augmented(x: Tensor, generator: torch.Generator, *, pad: int, flip: bool) -> Tensor:
    """Each image shifted by up to ``pad`` pixels each way and, where ``flip``, mirrored with probability 1/2.

    As a random crop after padding with zeros, which is the mean of standardized images. The numbers are drawn from
    ``generator``, which is on the CPU, so they do not depend on the device.

    Args:
        x: (batch, channels, height, width).

    Returns:
        The same shape, in channels-last order.
    """
    count, _, height, width = x.shape
    offsets = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator).to(x.device)
    rows = offsets[0] + torch.arange(height, device=x.device)
    cols = torch.arange(width, device=x.device).expand(count, width)
    if flip:
        mirrored = torch.randint(0, 2, (count, 1), generator=generator).bool().to(x.device)
        cols = torch.where(mirrored, width - 1 - cols, cols)
    cols = offsets[1] + cols
    padded = functional.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    image = torch.arange(count, device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
