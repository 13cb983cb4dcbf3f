"""Batch normalization of features in packs, with the same bits however many rows of padding follow."""

from typing import Any

import torch
from torch import Tensor


class NormalizedFeatures(torch.autograd.Function):
    """:func:`normalize` for autograd: the normalized features, and their mean and biased variance without gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, valid: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, var, saved = normalize(x, weight, bias, valid, eps)
        ctx.save_for_backward(*saved)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """``gradients[0]`` is 0 in rows of padding, whose loss does not count."""
        return *normalize_backward(gradients[0], *ctx.saved_tensors), None, None


Saved = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def normalize(
    x: Tensor, weight: Tensor, bias: Tensor, valid: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Saved]:
    """Statistics over the valid rows of each slot, and the features normalized by them (Ioffe & Szegedy 2015).

    Sums over rows are taken in float64 and rounded, forward and backward, since the order of a sum depends on the
    number of rows; a gradient from autograd would sum in single precision.

    Args:
        x: (slots, features, batch).
        weight, bias: (slots, features).
        valid: (slots, batch), 1 for a row that counts and 0 for one of padding, at least one 1 in each slot.

    Returns:
        The normalized features like ``x``, their mean and biased variance, (slots, features) each, and what
        :func:`normalize_backward` needs.
    """
    count, valid = valid.sum(1)[:, None], valid[:, None, :]
    mean = _total(x * valid) / count
    x = x - mean[:, :, None]
    var = _total(x * x * valid) / count
    rate = torch.rsqrt(var + eps)[:, :, None]
    x = x * rate
    return torch.addcmul(bias[:, :, None], x, weight[:, :, None]), mean, var, (x, rate, weight, valid, count)


def normalize_backward(
    gradient: Tensor, x: Tensor, rate: Tensor, weight: Tensor, valid: Tensor, count: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of ``x``, ``weight`` and ``bias``; ``gradient`` is 0 in rows of padding."""
    of_bias, of_weight = _total(gradient), _total(gradient * x)
    shared = (of_bias / count)[:, :, None] + x * (of_weight / count)[:, :, None]
    return (gradient - valid * shared) * (rate * weight[:, :, None]), of_weight, of_bias


def _total(x: Tensor) -> Tensor:
    return x.sum(2, dtype=torch.float64).to(x.dtype)
