"""Augmentation as one gather over a whole batch, on the device."""

import torch
from torch import Tensor
from torch.nn import functional


def draw_crops(num_images: int, generator: torch.Generator, *, pad: int, flip: bool) -> Tensor:
    """What is done to each image of an epoch, in the order in which the epoch visits them.

    Drawn for the epoch as a whole, so that it does not depend on how the epoch is cut into batches; ``generator`` is on
    the CPU, so that it does not depend on the device.

    Returns:
        uint8 (3, num_images): the window's top and left edge in the padded image, in [0, 2 * pad], and 1 where the
        image is mirrored.
    """
    edges = torch.randint(0, 2 * pad + 1, (2, num_images), generator=generator, dtype=torch.uint8)
    mirrored = torch.randint(0, 2 if flip else 1, (1, num_images), generator=generator, dtype=torch.uint8)
    return torch.cat([edges, mirrored])


def augmented(x: Tensor, crops: Tensor, *, pad: int) -> Tensor:
    """Each image shifted by up to ``pad`` pixels each way, and mirrored where ``crops`` says so.

    As a random crop after padding with zeros, which is the mean of standardized images.

    Args:
        x: (batch, channels, height, width).
        crops: (3, batch), from :func:`draw_crops`.

    Returns:
        The same shape, in channels-last order.
    """
    count, _, height, width = x.shape
    top, left, mirrored = crops.long().unsqueeze(2)
    rows = top + torch.arange(height, device=x.device)
    cols = torch.arange(width, device=x.device)
    cols = left + torch.where(mirrored > 0, width - 1 - cols, cols)
    padded = functional.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    image = torch.arange(count, device=x.device)[:, None, None]
    return padded[image, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
