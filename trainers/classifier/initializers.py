"""Initial weights of linear and convolution layers, drawn from the trial's generator on the CPU.

Normalization layers start at weight 1 and bias 0 whatever the initializer.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpo.trainers.errors import TrainerError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Initializer:
    """One row of the table: fills a weight and its bias (or None), given the weight's fan-in and fan-out."""

    fill: Callable[["Tensor", "Tensor | None", int, int, "torch.Generator"], object]
    description: str


def _default(weight: "Tensor", bias: "Tensor | None", fan_in: int, fan_out: int, generator: "torch.Generator") -> None:
    bound = 1 / math.sqrt(fan_in)
    weight.uniform_(-bound, bound, generator=generator)
    if bias is not None:
        bias.uniform_(-bound, bound, generator=generator)


def _kaiming(weight: "Tensor", bias: "Tensor | None", fan_in: int, fan_out: int, generator: "torch.Generator") -> None:
    weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
    if bias is not None:
        bias.zero_()


def _xavier(weight: "Tensor", bias: "Tensor | None", fan_in: int, fan_out: int, generator: "torch.Generator") -> None:
    bound = math.sqrt(6 / (fan_in + fan_out))
    weight.uniform_(-bound, bound, generator=generator)
    if bias is not None:
        bias.zero_()


INITIALIZERS: dict[str, Initializer] = {
    "default": Initializer(_default, "PyTorch's own: uniform within 1/sqrt(fan_in), biases too"),
    "kaiming": Initializer(_kaiming, "normal with variance 2/fan_in (He et al. 2015), biases 0"),
    "xavier": Initializer(_xavier, "uniform with variance 2/(fan_in + fan_out) (Glorot and Bengio 2010), biases 0"),
}


def initialize(network: "nn.Module", name: str, generator: "torch.Generator") -> None:
    """Fills all parameters and buffers of a network on the CPU, layer by layer in the network's order.

    Linear and convolution layers as the initializer ``name`` says. Other layers with parameters or buffers reset
    themselves, with PyTorch's random numbers seeded from ``generator``.

    Raises:
        TrainerError: if a module with parameters of its own has no ``reset_parameters``.
    """
    import torch
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    fill = INITIALIZERS[name].fill
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                receptive = module.weight[0, 0].numel()
                fan_in, fan_out = module.weight.shape[1] * receptive, module.weight.shape[0] * receptive
                fill(module.weight, module.bias, fan_in, fan_out, generator)
            elif isinstance(module, _BatchNorm):
                module.reset_parameters()
            elif any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
                reset = getattr(module, "reset_parameters", None)
                if reset is None:
                    raise TrainerError(
                        f"{type(module).__name__} has parameters or buffers and no method reset_parameters(), which "
                        "gives them their first values"
                    )
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
                    reset()
