"""Regularizers that PyTorch's optimizers do not bring: L1, and dropout drawn from the trial's own generator.

L2 is ``weight_decay`` of the optimizer; label smoothing is an argument of the loss.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014): zero with probability ``p``, else scaled by 1 / (1 - p).

    The masks come from ``generator``, one draw of the input's shape for each call while training, so that they are the
    trial's own. Set it with :func:`set_dropout_generator` at the start of each epoch.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = 1 - self.p
        return x * torch.empty_like(x).bernoulli_(keep, generator=self.generator).div_(keep)

    def extra_repr(self) -> str:
        return f"p={self.p}"


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
