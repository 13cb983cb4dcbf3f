"""Regularizers that PyTorch's optimizers do not bring: L1, and dropout drawn from the trial's own generator.

L2 is ``weight_decay`` of the optimizer; label smoothing is an argument of the loss.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hpo.trainers.classifier import philox

DRAWN_AHEAD = 1 << 16
"""Numbers that are drawn in one call, for several steps of a small layer."""


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014): zero with probability ``p``, else scaled by 1 / (1 - p).

    The masks are the trial's own: of ``stream``, numbers of counters, or without it of ``generator``, one draw of the
    input's shape for each call while training. Set them at the start of each epoch with :func:`set_dropout_streams` or
    :func:`set_dropout_generator`.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None
        self.stream: MaskStream | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if self.stream is not None:
            return x * self.stream.next(x, self.p)
        keep = 1 - self.p
        return x * torch.empty_like(x).bernoulli_(keep, generator=self.generator).div_(keep)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class MaskStream:
    """The masks of one dropout layer in one epoch, in the order of its calls.

    A unit's number is that of the counter (unit / `philox.UNITS`, row of the batch, call, layer), whatever the sizes.
    """

    def __init__(self, seed: int, layer: int) -> None:
        self._keys = philox.round_keys(seed)
        self._layer = layer
        self._next = 0
        self._drawn: Tensor | None = None  # (calls, rows, units)
        self._first = 0  # the call of the first of them

    def next(self, x: Tensor, p: float) -> Tensor:
        """What to multiply ``x`` (batch, ...) with, in its shape and dtype."""
        call, rows, units = self._next, len(x), math.prod(x.shape[1:])
        self._next += 1
        drawn = self._drawn
        if drawn is None or call >= self._first + len(drawn) or rows > drawn.shape[1] or units != drawn.shape[2]:
            drawn = self._drawn = self._draw(call, rows, units, p, x.device)
            self._first = call
        mask = drawn[call - self._first, :rows].to(x.dtype).mul_(philox.scale(p))
        return mask.view(x.shape)

    def _draw(self, call: int, rows: int, units: int, p: float, device: torch.device) -> Tensor:
        blocks = -(-units // philox.UNITS)
        calls = max(1, DRAWN_AHEAD // max(1, rows * units))

        def counted(count: int, *shape: int) -> Tensor:
            return torch.arange(count, device=device).view(shape)

        counters = counted(blocks, 1, 1, -1), counted(rows, 1, -1, 1), call + counted(calls, -1, 1, 1)
        layer = torch.full((1, 1, 1), self._layer, device=device)
        kept = philox.kept(*counters, layer, self._keys, philox.threshold(p), units_last=True)
        return kept.flatten(2)[:, :, :units]


def set_dropout_streams(network: nn.Module, seed: int) -> None:
    """Gives each dropout layer of the network its masks of one epoch; ``seed`` is that epoch's."""
    for number, layer in enumerate(module for module in network.modules() if isinstance(module, Dropout)):
        layer.stream = MaskStream(seed, number)


def set_dropout_generator(network: nn.Module, generator: torch.Generator) -> bool:
    """Gives all dropout layers of the network one generator; returns whether there was any layer."""
    layers = [module for module in network.modules() if isinstance(module, Dropout)]
    for layer in layers:
        layer.generator = generator
    return bool(layers)


@torch.no_grad()
def add_l1_gradients(parameters: Iterable[nn.Parameter], l1: float) -> None:
    """Adds the gradient of ``l1 * sum |w|`` over all parameters, l1 * sign(w) with sign(0) = 0, to their gradients."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.add_(parameter.sign(), alpha=l1)
