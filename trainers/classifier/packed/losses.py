"""Cross-entropy of packs, with the same bits however many rows of padding follow."""

from typing import Any

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, y: Tensor, smoothing: Tensor | None = None) -> Tensor:
    """Cross-entropy of each image, (slots, batch), with a label smoothing for each slot (slots,) or none.

    As torch.nn.functional.cross_entropy, which takes one number for all, and whose kernels round the last images of a
    row otherwise than those before them.

    Args:
        logits: (slots, classes, batch).
        y: int64 (slots, batch).
    """
    losses: Tensor = _CrossEntropy.apply(logits, y, smoothing)
    return losses


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, y: Tensor, smoothing: Tensor | None) -> Tensor:
        loss, saved = forward(logits, y, smoothing)
        ctx.save_for_backward(*saved)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return backward(gradients[0], *ctx.saved_tensors), None, None


Saved = tuple[Tensor, Tensor, Tensor | None]


def forward(logits: Tensor, y: Tensor, smoothing: Tensor | None) -> tuple[Tensor, Saved]:
    """The loss of each image, as :func:`cross_entropy`, and what :func:`backward` needs."""
    y = y.unsqueeze(1)
    shifted = logits - logits.amax(1, keepdim=True)
    exponentials = shifted.exp()
    total = _total(exponentials)
    log_total = total.log()
    loss = (log_total - shifted.gather(1, y)).squeeze(1)
    if smoothing is not None:
        smoothing = smoothing.unsqueeze(1)
        even = (log_total - _total(shifted) / shifted.shape[1]).squeeze(1)
        loss = torch.where(smoothing > 0, (1 - smoothing) * loss + smoothing * even, loss)
    return loss, (exponentials.div_(total), y, smoothing)


def backward(gradient: Tensor, p: Tensor, y: Tensor, smoothing: Tensor | None) -> Tensor:
    """The logits' gradient from each loss's, (slots, batch): of image i and class c it is g_i (p_ic - t_ic).

    t is the target, smoothed or not.
    """
    gradient = gradient.unsqueeze(1)
    expected = -gradient if smoothing is None else (smoothing.unsqueeze(1) - 1) * gradient
    result = (p * gradient).scatter_add_(1, y, expected)
    if smoothing is not None:
        result -= smoothing.unsqueeze(1) / p.shape[1] * gradient
    return result


def _total(x: Tensor) -> Tensor:
    return x.sum(1, keepdim=True, dtype=torch.float64).to(x.dtype)
