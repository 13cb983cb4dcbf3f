"""SGD, Adam and AdamW by the functions that torch.optim's classes call, to the same bits.

torch.optim's classes import torch._dynamo, torch._inductor and sympy at their first use: a second of processor time and
150 MB in each worker, for a compiler that nothing here uses.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

EPS = 1e-8
"""torch.optim's default for Adam and AdamW."""


class FusedOptimizer:
    """What the training uses of torch.optim.Optimizer, with the same meaning.

    Attributes:
        param_groups: one group with ``params`` and ``lr``; the learning rate can be set before each step.
        state: what is remembered of each parameter, by the names that torch.optim uses; empty before its first step.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": parameters, "lr": lr}]
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.weight_decay = weight_decay

    def step(self) -> None:
        """Updates each parameter that has a gradient."""
        group = self.param_groups[0]
        pairs = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
        with torch.no_grad():
            # The functions expect that either all parameters or none of them have been updated before.
            for begun in (True, False):
                chosen = [(parameter, gradient) for parameter, gradient in pairs if (parameter in self.state) is begun]
                if chosen:
                    parameters, gradients = (list(each) for each in zip(*chosen, strict=True))
                    self._update(parameters, gradients, group["lr"])

    def zero_grad(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], lr: float) -> None:
        raise NotImplementedError


class FusedSGD(FusedOptimizer):
    """torch.optim.SGD(fused=True)."""

    def __init__(
        self, parameters: list[nn.Parameter], *, lr: float, momentum: float, nesterov: bool, weight_decay: float
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.momentum, self.nesterov = momentum, nesterov

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], lr: float) -> None:
        buffers: list[Any] = [self.state.get(parameter, {}).get("momentum_buffer") for parameter in parameters]
        sgd(
            parameters,
            gradients,
            buffers,
            foreach=False,
            fused=True,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=lr,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
        )
        if self.momentum:
            for parameter, buffer in zip(parameters, buffers, strict=True):
                self.state[parameter] = {"momentum_buffer": buffer}


class FusedAdam(FusedOptimizer):
    """torch.optim.Adam(fused=True), and AdamW if ``decoupled``."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        decoupled: bool,
    ) -> None:
        super().__init__(parameters, lr, weight_decay)
        self.betas, self.decoupled = betas, decoupled

    def _update(self, parameters: list[Tensor], gradients: list[Tensor], lr: float) -> None:
        memory = [self._memory(parameter) for parameter in parameters]
        adam(
            parameters,
            gradients,
            [each["exp_avg"] for each in memory],
            [each["exp_avg_sq"] for each in memory],
            [],
            [each["step"] for each in memory],
            foreach=False,
            fused=True,
            decoupled_weight_decay=self.decoupled,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr,
            weight_decay=self.weight_decay,
            eps=EPS,
            maximize=False,
        )

    def _memory(self, parameter: Tensor) -> dict[str, Any]:
        if parameter not in self.state:
            self.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        return self.state[parameter]
