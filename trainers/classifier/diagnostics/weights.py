"""How many weights of each layer are near zero: what L1 does and L2 does not (report 5)."""

from dataclasses import dataclass

import torch
from torch import nn

THRESHOLDS = (1e-4, 1e-3, 1e-2)


@dataclass(frozen=True)
class LayerWeights:
    """One layer's weights; biases and normalization parameters are not counted.

    Attributes:
        name: kind and name of the module, or "all".
        num_weights: their number.
        near_zero: share of weights w with |w| <= threshold, for each threshold (as text, for JSON).
        mean_absolute: mean of |w|.
        root_mean_square: root of the mean of w^2.
    """

    name: str
    num_weights: int
    near_zero: dict[str, float]
    mean_absolute: float
    root_mean_square: float


@torch.no_grad()
def near_zero(model: nn.Module, thresholds: tuple[float, ...] = THRESHOLDS) -> list[LayerWeights]:
    """A row for each layer in the network's order, and last one for all layers together."""
    layers: dict[str, torch.Tensor] = {
        f"{type(module).__name__} {name}".strip(): parameter.detach().reshape(-1)
        for name, module in model.named_modules()
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2
    }
    rows = [_row(name, [values], thresholds) for name, values in layers.items()]
    return [*rows, _row("all", list(layers.values()), thresholds)] if layers else []


def _row(name: str, parts: list[torch.Tensor], thresholds: tuple[float, ...]) -> LayerWeights:
    count = sum(len(part) for part in parts)
    below = {f"{t:g}": sum(int((part.abs() <= t).sum()) for part in parts) / count for t in thresholds}
    absolute = sum(part.abs().sum(dtype=torch.float64).item() for part in parts) / count
    square = sum(part.double().square().sum().item() for part in parts) / count
    return LayerWeights(name, count, below, absolute, square**0.5)
