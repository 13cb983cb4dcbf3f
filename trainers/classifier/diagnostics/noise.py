"""Gradient noise scale: the batch size from which on larger batches bring little (McCandlish et al. 2018).

B_simple = tr(S) / |G|^2, with G the true gradient and S the covariance of one example's gradient. Neither is measured:
the squared norm of a gradient over B examples is |G|^2 + tr(S) / B on average, so two batch sizes tell both.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.trainers.classifier.diagnostics.loss import LossFunction, evaluation_mode, gradient


@dataclass(frozen=True)
class NoiseScale:
    """The estimate and what it is made of.

    Attributes:
        noise_scale: B_simple in examples; None where ``gradient_squared`` is not above 0, which happens when the noise
            drowns the gradient: more batches are needed, or the network is at a minimum.
        noise_scale_error: its standard error, that of a ratio of means over the large batches (the delta method): where
            it is as large as the scale, the scale is not resolved. None as above.
        gradient_squared: the unbiased estimate of |G|^2.
        covariance_trace: the unbiased estimate of tr(S).
        small, big: the two batch sizes.
        small_squared, big_squared: mean squared norm of the gradient over a batch of each size.
        num_batches: number of large batches.
    """

    noise_scale: float | None
    noise_scale_error: float | None
    gradient_squared: float
    covariance_trace: float
    small: int
    big: int
    small_squared: float
    big_squared: float
    num_batches: int


def moments(small_squared: float, big_squared: float, small: int, big: int) -> tuple[float, float]:
    """|G|^2 and tr(S) from the mean squared gradient norms at two batch sizes (McCandlish et al. 2018, A.1).

    |G|^2 = (B_big |G_big|^2 - B_small |G_small|^2) / (B_big - B_small),
    tr(S) = (|G_small|^2 - |G_big|^2) / (1 / B_small - 1 / B_big).
    """
    gradient_squared = (big * big_squared - small * small_squared) / (big - small)
    covariance_trace = (small_squared - big_squared) / (1 / small - 1 / big)
    return gradient_squared, covariance_trace


def noise_scale(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: LossFunction,
    *,
    generator: torch.Generator,
    small: int = 16,
    big: int = 256,
    num_batches: int = 32,
) -> NoiseScale:
    """Estimates the noise scale of the loss on inputs x (n, ...) and targets y (n, ...).

    Each large batch is drawn with replacement, as the formulas suppose, and cut into small ones, whose mean gradient is
    the large batch's. |G|^2 and tr(S) are averaged over all batches before they are divided: a mean of ratios would be
    biased.

    Args:
        generator: a CPU generator that draws the batches.
        big: a multiple of ``small``, and larger.

    Raises:
        ValueError: where the sizes do not fit, or fewer than 2 large batches are asked for.
    """
    if small < 1 or big <= small or big % small:
        raise ValueError(f"the large batch ({big}) must be a multiple of the small one ({small}), and larger")
    if num_batches < 2:
        raise ValueError(f"num_batches must be at least 2, not {num_batches}")
    small_squared, big_squared = [], []
    with evaluation_mode(model):
        for _ in range(num_batches):
            index = torch.randint(len(x), (big,), generator=generator).to(x.device)
            total: Tensor | None = None
            squares = 0.0
            for part in torch.split(index, small):
                part_gradient = gradient(model, x[part], y[part], loss).double()
                squares += part_gradient.square().sum().item()
                total = part_gradient if total is None else total.add_(part_gradient)
            assert total is not None
            small_squared.append(squares * small / big)
            big_squared.append((total * (small / big)).square().sum().item())
    return _estimate(small_squared, big_squared, small, big)


def _estimate(small_squared: Sequence[float], big_squared: Sequence[float], small: int, big: int) -> NoiseScale:
    """From the squared norms of each large batch: the large batch's, and the mean of its small batches'."""
    count = len(big_squared)
    mean_small, mean_big = math.fsum(small_squared) / count, math.fsum(big_squared) / count
    gradient_squared, covariance_trace = moments(mean_small, mean_big, small, big)
    scale, error = None, None
    if gradient_squared > 0:
        scale = covariance_trace / gradient_squared
        single = [moments(a, b, small, big) for a, b in zip(small_squared, big_squared, strict=True)]
        error = statistics.stdev((s - scale * g) / gradient_squared for g, s in single) / math.sqrt(count)
    return NoiseScale(
        noise_scale=scale,
        noise_scale_error=error,
        gradient_squared=gradient_squared,
        covariance_trace=covariance_trace,
        small=small,
        big=big,
        small_squared=mean_small,
        big_squared=mean_big,
        num_batches=count,
    )
