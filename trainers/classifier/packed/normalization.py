"""Batch normalization of features in packs, with the same bits however many rows of padding follow."""

from typing import Any

import torch
from torch import Tensor


class NormalizedFeatures(torch.autograd.Function):
    """Statistics over the valid rows of each slot, and the features normalized by them (Ioffe & Szegedy 2015).

    Sums over rows are taken in float64 and rounded, forward and backward, since the order of a sum depends on the
    number of rows; a gradient from autograd would sum in single precision.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, valid: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is made of ``x``, and the statistics for the running ones, without gradient.

        Args:
            x: (slots, features, batch).
            weight, bias: (slots, features).
            valid: (slots, batch), 1 for a row that counts and 0 for one of padding, at least one 1 in each slot.

        Returns:
            The normalized features like ``x``, and their mean and biased variance, (slots, features) each.
        """
        count, valid = valid.sum(1)[:, None], valid[:, None, :]
        mean = _total(x * valid) / count
        x = x - mean[:, :, None]
        var = _total(x * x * valid) / count
        rate = torch.rsqrt(var + eps)[:, :, None]
        x = x * rate
        ctx.save_for_backward(x, rate, weight, valid, count)
        ctx.mark_non_differentiable(mean, var)
        return torch.addcmul(bias[:, :, None], x, weight[:, :, None]), mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """``gradients[0]`` is 0 in rows of padding, whose loss does not count."""
        (gradient, *_), (x, rate, weight, valid, count) = gradients, ctx.saved_tensors
        of_bias, of_weight = _total(gradient), _total(gradient * x)
        shared = (of_bias / count)[:, :, None] + x * (of_weight / count)[:, :, None]
        return (gradient - valid * shared) * (rate * weight[:, :, None]), of_weight, of_bias, None, None


def _total(x: Tensor) -> Tensor:
    return x.sum(2, dtype=torch.float64).to(x.dtype)
