"""Optimizers: PyTorch's own, in the fused form that passes over the memory once (CPU and CUDA).

Weight decay is coupled (added to the gradient, L2 in the loss) for sgd and adam and decoupled for adamw, as in
torch.optim. Every parameter decays, biases and normalization too, also as there. L1 is in ``regularizers``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Optimizer:
    """One row of the table: makes the optimizer of these parameters; its learning rate is set at every step."""

    build: Callable[["list[torch.nn.Parameter]", Any], "torch.optim.Optimizer"]
    description: str
    parameters: tuple[str, ...]


def _sgd(parameters: "list[torch.nn.Parameter]", config: Any) -> "torch.optim.Optimizer":
    import torch

    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.beta,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _adam(parameters: "list[torch.nn.Parameter]", config: Any) -> "torch.optim.Optimizer":
    import torch

    return torch.optim.Adam(
        parameters, lr=config.lr, betas=(config.beta, config.beta2), weight_decay=config.weight_decay, fused=True
    )


def _adamw(parameters: "list[torch.nn.Parameter]", config: Any) -> "torch.optim.Optimizer":
    import torch

    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=(config.beta, config.beta2), weight_decay=config.weight_decay, fused=True
    )


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(_sgd, "stochastic gradient descent with momentum beta, coupled decay", ("beta", "nesterov")),
    "adam": Optimizer(_adam, "Adam (Kingma and Ba 2015), beta is beta1, coupled decay", ("beta", "beta2")),
    "adamw": Optimizer(_adamw, "AdamW (Loshchilov and Hutter 2019), beta is beta1, decoupled decay", ("beta", "beta2")),
}


def build_optimizer(parameters: "Iterable[torch.nn.Parameter]", config: Any) -> "torch.optim.Optimizer":
    """The optimizer that the configuration names."""
    return OPTIMIZERS[config.optimizer].build(list(parameters), config)


def optimizer_state(optimizer: "torch.optim.Optimizer") -> list[dict[str, Any]]:
    """Copies, on the CPU, of what the optimizer remembers of each parameter, in their order."""
    group = optimizer.param_groups[0]["params"]
    return [{name: _copied(value) for name, value in optimizer.state.get(parameter, {}).items()} for parameter in group]


def load_optimizer_state(optimizer: "torch.optim.Optimizer", state: list[dict[str, Any]]) -> None:
    """The inverse of :func:`optimizer_state`; the optimizer must be of the same parameters.

    Raises:
        ValueError: where the numbers of parameters differ.
    """
    import torch

    group = optimizer.param_groups[0]["params"]
    for parameter, values in zip(group, state, strict=True):
        optimizer.state[parameter] = {
            name: torch.empty_like(parameter).copy_(value) if _fits(value, parameter) else _copied(value, parameter)
            for name, value in values.items()
        }


def _fits(value: Any, parameter: "torch.Tensor") -> bool:
    return hasattr(value, "shape") and value.shape == parameter.shape and value.ndim > 0


def _copied(value: Any, like: "torch.Tensor | None" = None) -> Any:
    if not hasattr(value, "detach"):
        return value
    return value.detach().to("cpu" if like is None else like.device, copy=True)
