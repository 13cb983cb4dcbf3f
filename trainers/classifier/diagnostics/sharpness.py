"""How curved the loss is at the trained weights: the Hessian's largest eigenvalue, and the loss along directions.

The Hessian is never built: a product with a vector costs two passes backward, in batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.trainers.classifier.diagnostics.loss import (
    BATCH_SIZE,
    LossFunction,
    batches,
    evaluation_mode,
    mean_loss,
    trainable,
)

Product = Callable[[Tensor], Tensor]

ROUNDING = 1e-6
"""Beside a shift, an eigenvalue is known to this share of it at best."""


@dataclass(frozen=True)
class Eigenvalue:
    """The largest (most positive) eigenvalue of the Hessian.

    Attributes:
        value: the eigenvalue.
        residual: |H v - value v| for the unit vector v that was found; the eigenvalue is within that of a true one.
        num_products: Hessian-vector products that it took.
        converged: whether the residual fell to ``tolerance`` of the value before the iterations ran out.
        estimates: the Rayleigh quotient v . H v after each product of the last iteration; the last one is ``value``.
    """

    value: float
    residual: float
    num_products: int
    converged: bool
    estimates: list[float]


def hessian_product(model: nn.Module, x: Tensor, y: Tensor, loss: LossFunction, vector: Tensor) -> Tensor:
    """H v, with H the Hessian of the mean loss over x (n, ...) and y (n, ...) and v ``vector`` (num_parameters,).

    H v is the gradient of (gradient . v) with v held fixed (Pearlmutter 1994). ReLU counts as twice differentiable.
    """
    parameters = list(trainable(model).values())
    parts = [
        part.view_as(parameter)
        for part, parameter in zip(torch.split(vector, [p.numel() for p in parameters]), parameters, strict=True)
    ]
    total = torch.zeros_like(vector)
    with evaluation_mode(model):
        for inputs, targets, share in batches(x, y, BATCH_SIZE // 2):
            value = loss(model(inputs), targets)
            gradients = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
            # A gradient that no parameter enters (a loss linear in it) is constant: its row of H is 0.
            curved = [(g, v) for g, v in zip(gradients, parts, strict=True) if g.requires_grad]
            if not curved:
                continue
            products = torch.autograd.grad(
                [g for g, _ in curved], parameters, [v for _, v in curved], materialize_grads=True
            )
            total += share * torch.cat([product.reshape(-1) for product in products])
    return total


def largest_eigenvalue(
    product: Product, start: Tensor, *, max_iterations: int = 50, tolerance: float = 0.01
) -> Eigenvalue:
    """The most positive eigenvalue of a symmetric matrix by power iteration (von Mises and Pollaczek-Geiringer 1929).

    Power iteration finds the eigenvalue of largest magnitude. Where that is a negative one, s, the iteration runs again
    on H - s I, whose eigenvalue of largest magnitude is the most positive one of H, less s.

    Args:
        product: v -> H v, for v (n,).
        start: a random vector (n,), not 0.
        max_iterations: products of either iteration.
        tolerance: stops once |H v - value v| is less than this fraction of the value. The value's own error is of
            the order of the square of it (Rayleigh).
    """
    found = _power_iteration(product, start, 0.0, max_iterations, tolerance)
    if found.value >= 0:
        return found
    shift = found.value
    shifted = _power_iteration(product, start, shift, max_iterations, tolerance)
    return Eigenvalue(
        shifted.value,
        shifted.residual,
        found.num_products + shifted.num_products,
        shifted.converged and found.converged,
        shifted.estimates,
    )


def _power_iteration(
    product: Product, start: Tensor, shift: float, max_iterations: int, tolerance: float
) -> Eigenvalue:
    """The eigenvalue of H for which that of H - shift I is largest in magnitude."""
    vector = start / start.norm()
    residual = float("nan")
    estimates: list[float] = []
    converged = False
    while not converged and len(estimates) < max_iterations:
        moved = product(vector) - shift * vector
        value = torch.dot(vector, moved).item()
        residual = (moved - value * vector).norm().item()
        estimates.append(value + shift)
        # Measured by H's own eigenvalue: by the shifted one, any vector that H hardly moves would pass.
        converged = residual <= max(tolerance * abs(value + shift), ROUNDING * abs(shift))
        vector = moved / moved.norm()
    return Eigenvalue(estimates[-1], residual, len(estimates), converged, estimates)


def sharpness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: LossFunction,
    *,
    generator: torch.Generator,
    max_iterations: int = 50,
    tolerance: float = 0.01,
) -> Eigenvalue:
    """The largest eigenvalue of the Hessian of the mean loss over x (n, ...) and y (n, ...).

    Args:
        generator: a CPU generator that draws the vector to start from.
    """
    parameters = list(trainable(model).values())
    count = sum(parameter.numel() for parameter in parameters)
    start = torch.randn(count, generator=generator, dtype=torch.float64).to(x.device, parameters[0].dtype)
    return largest_eigenvalue(
        lambda vector: hessian_product(model, x, y, loss, vector),
        start,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )


@torch.no_grad()
def filter_normalized_direction(model: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """A random direction in which each filter is as long as the network's own (Li et al. 2018, section 4).

    d_f <- d_f / |d_f| |theta_f| with d Gaussian, for each filter f: one output channel of a convolution, one row of a
    linear layer. Biases and normalization parameters are not moved (0), as in the paper's experiments. So plots of
    networks whose weights differ in scale can be compared.
    """
    direction = {}
    for name, parameter in trainable(model).items():
        if parameter.ndim < 2:
            direction[name] = torch.zeros_like(parameter)
            continue
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
        lengths = drawn.flatten(1).norm(dim=1).clamp_min(torch.finfo(parameter.dtype).tiny)
        factor = parameter.flatten(1).norm(dim=1) / lengths
        direction[name] = drawn * factor.view(-1, *[1] * (parameter.ndim - 1))
    return direction


@dataclass(frozen=True)
class LossPlane:
    """The loss at theta + a d1 + b d2 for two directions.

    Attributes:
        steps: the values of a and of b, rising, 0 among them.
        first: loss along the first direction (b = 0), one for each step.
        second: loss along the second (a = 0).
        plane: rows for b, columns for a; on every ``stride``-th step.
        stride: of the plane's steps.
    """

    steps: list[float]
    first: list[float]
    second: list[float]
    plane: list[list[float]]
    stride: int

    @property
    def plane_steps(self) -> list[float]:
        return self.steps[:: self.stride]


def loss_plane(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: LossFunction,
    *,
    generator: torch.Generator,
    radius: float = 1.0,
    half: int = 10,
    stride: int = 1,
) -> LossPlane:
    """The mean loss over x and y in the plane of two filter-normalized random directions (Li et al. 2018).

    Args:
        generator: a CPU generator that draws the directions.
        radius: largest step to each side; at 1 the move of a filter is as long as the filter.
        half: steps to each side.
        stride: the plane takes every ``stride``-th step; must divide ``half``.
    """
    if half < 1 or stride < 1 or half % stride:
        raise ValueError(f"stride ({stride}) must divide half ({half})")
    directions = filter_normalized_direction(model, generator), filter_normalized_direction(model, generator)
    own = trainable(model)
    steps = [radius * k / half for k in range(-half, half + 1)]

    def at(a: float, b: float) -> float:
        return mean_loss(model, x, y, loss, _moved(own, directions, (a, b)))

    first, second = [at(a, 0.0) for a in steps], [at(0.0, b) for b in steps]
    plane = [[at(a, b) for a in steps[::stride]] for b in steps[::stride]]
    return LossPlane(steps, first, second, plane, stride)


@torch.no_grad()
def _moved(
    own: Mapping[str, Tensor], directions: Sequence[Mapping[str, Tensor]], steps: Sequence[float]
) -> dict[str, Tensor]:
    moved = {}
    for name, value in own.items():
        value = value.detach()
        for direction, step in zip(directions, steps, strict=True):
            if step:
                value = value + step * direction[name]
        moved[name] = value
    return moved
