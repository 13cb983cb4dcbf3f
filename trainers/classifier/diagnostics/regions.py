"""The linear regions of a ReLU network whose input is one number, with exact breakpoints.

Such a network is affine between the points at which a unit switches. They are solved for, layer by layer in fp64, not
searched on a grid, so a region is found however narrow it is. Counting regions: Montufar et al. 2014; the method, to
carry the affine map of each region forward and cut it where a unit crosses 0, is the one-dimensional case of Serra
et al. 2018.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpo.trainers.classifier.diagnostics.activations import RECTIFIERS
from hpo.trainers.classifier.regularizers import Dropout
from hpo.trainers.errors import TrainerError

# Closer than this share of the interval, two breakpoints are one: two units of equal weights differ in the last bits.
CLOSE = 1e-12


@dataclass(frozen=True)
class Region:
    """An interval in which no unit switches.

    Attributes:
        low, high: its ends.
        pattern: one character a unit, "1" where it is on.
        slopes, values: of each output: its slope in the region, and its value at ``low``.
    """

    low: float
    high: float
    pattern: str
    slopes: list[float]
    values: list[float]


@dataclass(frozen=True)
class Regions:
    """The activation regions of an interval, from left to right; neighbours differ in pattern.

    ``num_linear`` counts neighbours as one in which the outputs are the same affine function: a unit that switches but
    goes nowhere (outgoing weights 0) makes an activation region and no linear one.
    """

    regions: list[Region]
    num_units: int
    num_linear: int

    @property
    def breakpoints(self) -> list[float]:
        """Where a unit switches, rising; the ends of the interval are none."""
        return [region.low for region in self.regions[1:]]


@torch.no_grad()
def linear_regions(model: nn.Module, low: float, high: float) -> Regions:
    """The regions of the network (1,) -> (outputs,) on [low, high].

    Args:
        model: a Sequential (of Sequentials) of Linear, batch normalization, ReLU, leaky ReLU, Dropout, Flatten and
            Identity; taken in evaluation mode.

    Raises:
        TrainerError: for a layer of another kind, or an input of more than one number.
        ValueError: for an interval without length.
    """
    if not low < high:
        raise ValueError(f"the interval [{low}, {high}] has no length")
    edges = torch.tensor([low, high], dtype=torch.float64)
    # The layer before is slope * t + offset, a row for each region.
    slope, offset = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    patterns = torch.zeros(1, 0, dtype=torch.bool)
    for layer in _layers(model):
        if not isinstance(layer, RECTIFIERS):
            slope, offset = _affine(layer, slope, offset)
            continue
        parts, edges = _cut(slope, offset, edges)
        slope, offset, patterns = slope[parts], offset[parts], patterns[parts]
        middle = (edges[:-1] + edges[1:]) / 2
        on = slope * middle[:, None] + offset > 0
        factor = torch.where(on, 1.0, getattr(layer, "negative_slope", 0.0)).double()
        slope, offset = slope * factor, offset * factor
        patterns = torch.cat([patterns, on], dim=1)
    return _regions(edges, slope, offset, patterns)


def _layers(model: nn.Module) -> list[nn.Module]:
    if isinstance(model, nn.Sequential):
        return [layer for child in model for layer in _layers(child)]
    return [model]


def _affine(layer: nn.Module, slope: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """The affine map of each region after the layer."""
    if isinstance(layer, nn.Linear):
        if layer.in_features != slope.shape[1]:
            raise TrainerError(
                f"linear regions need a network that reads one number; its first layer reads {layer.in_features}"
            )
        weight = _exact(layer.weight)
        return slope @ weight.T, offset @ weight.T + (0.0 if layer.bias is None else _exact(layer.bias))
    if isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.running_var is not None:
        factor = (_exact(layer.running_var) + layer.eps).rsqrt()
        shift: float | Tensor = 0.0
        if layer.affine:
            factor, shift = factor * _exact(layer.weight), _exact(layer.bias)
        return slope * factor, (offset - _exact(layer.running_mean)) * factor + shift
    if isinstance(layer, nn.Identity | nn.Flatten | nn.Dropout | Dropout):
        return slope, offset
    raise TrainerError(f"linear regions are not known for a layer of the kind {type(layer).__name__}")


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()


def _cut(slope: Tensor, offset: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts each region where a unit crosses 0: the region that each new one was part of, and the new edges."""
    zeros = -offset / slope
    inside = (slope != 0) & (zeros > edges[:-1, None]) & (zeros < edges[1:, None])
    found = torch.cat([edges, zeros[inside]]).sort().values
    close = CLOSE * (edges[-1] - edges[0])
    keep = torch.ones(len(found), dtype=torch.bool)
    keep[1:] = found.diff() > close
    keep[-1] = True
    found = found[keep]
    if len(found) > 2 and found[-1] - found[-2] <= close:
        found = torch.cat([found[:-2], found[-1:]])
    middle = (found[:-1] + found[1:]) / 2
    return torch.searchsorted(edges, middle) - 1, found


def _regions(edges: Tensor, slope: Tensor, offset: Tensor, patterns: Tensor) -> Regions:
    regions: list[Region] = []
    num_linear = 0
    scale = max(slope.abs().max().item(), offset.abs().max().item(), 1e-300)
    for k in range(len(slope)):
        pattern = "".join("1" if bit else "0" for bit in patterns[k].tolist())
        low, high = edges[k].item(), edges[k + 1].item()
        values = (slope[k] * edges[k] + offset[k]).tolist()
        before = regions[-1] if regions else None
        if before is not None and before.pattern == pattern:
            regions[-1] = Region(before.low, high, pattern, before.slopes, before.values)
            continue
        if before is None or any(
            abs(a - b) > 1e-9 * scale for a, b in zip(slope[k].tolist(), before.slopes, strict=True)
        ):
            num_linear += 1
        regions.append(Region(low, high, pattern, slope[k].tolist(), values))
    return Regions(regions, patterns.shape[1], num_linear)
