"""The table of optimizers: PyTorch's own, in the fused form that passes over the memory once (`fused_optimizers`).

Weight decay is coupled (added to the gradient, L2 in the loss) for sgd and adam and decoupled for adamw, as in
torch.optim. Every parameter decays, biases and normalization too, also as there. L1 is in ``regularizers``.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hpo.trainers.classifier.base_config import BaseConfig
from hpo.trainers.protocol import Config

if TYPE_CHECKING:
    import torch

    from hpo.trainers.classifier.fused_optimizers import FusedOptimizer


class SGDFields(Config):
    beta: float = Field(0.9, ge=0, lt=1, description="momentum of sgd, beta1 of adam and adamw")
    nesterov: bool = Field(False, description="Nesterov's momentum, for sgd")


class AdamFields(Config):
    beta: float = Field(0.9, ge=0, lt=1, description="momentum of sgd, beta1 of adam and adamw")
    beta2: float = Field(0.999, ge=0, lt=1, description="beta2 of adam and adamw")


@dataclass(frozen=True)
class Optimizer:
    """One row of the table.

    Attributes:
        build: makes the optimizer of these parameters from (a configuration with) ``fields``, the learning rate and
            the weight decay; the learning rate is set at every step.
        fields: the hyperparameters that it reads besides ``lr`` and ``weight_decay``.
        shared: those of them that all trials of a pack must have in common (`packed.shape`).
        check: what is wrong with a configuration that names this optimizer, as lines.
    """

    build: Callable[["list[torch.nn.Parameter]", Any, float, float], "FusedOptimizer"]
    description: str
    fields: type[Config]
    shared: tuple[str, ...] = ()
    check: Callable[[Any], list[str]] = lambda config: []


def _sgd(parameters: "list[torch.nn.Parameter]", config: SGDFields, lr: float, weight_decay: float) -> "FusedOptimizer":
    from hpo.trainers.classifier.fused_optimizers import FusedSGD

    return FusedSGD(parameters, lr=lr, momentum=config.beta, nesterov=config.nesterov, weight_decay=weight_decay)


def _check_sgd(config: SGDFields) -> list[str]:
    return ["nesterov needs momentum: beta is 0"] if config.nesterov and config.beta == 0 else []


def _adam(
    parameters: "list[torch.nn.Parameter]", config: AdamFields, lr: float, weight_decay: float
) -> "FusedOptimizer":
    from hpo.trainers.classifier.fused_optimizers import FusedAdam

    betas = config.beta, config.beta2
    return FusedAdam(parameters, lr=lr, betas=betas, weight_decay=weight_decay, decoupled=False)


def _adamw(
    parameters: "list[torch.nn.Parameter]", config: AdamFields, lr: float, weight_decay: float
) -> "FusedOptimizer":
    from hpo.trainers.classifier.fused_optimizers import FusedAdam

    betas = config.beta, config.beta2
    return FusedAdam(parameters, lr=lr, betas=betas, weight_decay=weight_decay, decoupled=True)


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(
        _sgd,
        "stochastic gradient descent with momentum beta, coupled decay",
        SGDFields,
        shared=("nesterov",),
        check=_check_sgd,
    ),
    "adam": Optimizer(_adam, "Adam (Kingma and Ba 2015), beta is beta1, coupled decay", AdamFields),
    "adamw": Optimizer(_adamw, "AdamW (Loshchilov and Hutter 2019), beta is beta1, decoupled decay", AdamFields),
}


def build_optimizer(parameters: "Iterable[torch.nn.Parameter]", config: BaseConfig) -> "FusedOptimizer":
    """The optimizer that the configuration names."""
    return OPTIMIZERS[config.optimizer].build(list(parameters), config, config.lr, config.weight_decay)


def optimizer_state(optimizer: "FusedOptimizer") -> list[dict[str, Any]]:
    """Copies, on the CPU, of what the optimizer remembers of each parameter, in their order."""
    group = optimizer.param_groups[0]["params"]
    return [{name: _copied(value) for name, value in optimizer.state.get(parameter, {}).items()} for parameter in group]


def load_optimizer_state(optimizer: "FusedOptimizer", state: list[dict[str, Any]]) -> None:
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
