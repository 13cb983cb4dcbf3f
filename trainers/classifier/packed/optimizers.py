"""The optimizers with a learning rate, momentum and decay for each slot.

The formulas are those of torch.optim's SGD, Adam and AdamW (`optimizers`), the checkpoints too. An update of
zero weights with zero gradients is zero, so that padding stays zero.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.fused_optimizers import EPS
from hpo.trainers.classifier.packed.network import copy_padded, cut


@dataclass(frozen=True)
class Hyper:
    """What an update reads of each slot, (slots,) each; None where it is 0 for all of them."""

    lr: Tensor
    beta: Tensor
    beta2: Tensor
    weight_decay: Tensor | None
    l1: Tensor | None


def spread(values: Tensor, like: Tensor) -> Tensor:
    """(slots,) -> (slots, 1, ...), of the rank and dtype of ``like``."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def spread_all(values: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """:func:`spread` for each of the parameters, which share few ranks."""
    by_rank = {p.ndim: p for p in parameters}
    spreads = {rank: spread(values, p) for rank, p in by_rank.items()}
    return [spreads[p.ndim] for p in parameters]


class PackedSGD:
    """torch.optim.SGD with momentum. The first step's buffer is the gradient, which a buffer of zeros gives too."""

    names = ("momentum_buffer",)

    def __init__(self, parameters: Sequence[Tensor], nesterov: bool) -> None:
        self.nesterov = nesterov
        self.memory = [{name: torch.zeros_like(p) for name in self.names} for p in parameters]
        self.steps: Tensor | None = None
        self._firsts: dict[int, list[Tensor]] = {}

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], hyper: Hyper) -> None:
        """One step of the first slots, as many as ``parameters`` hold; ``gradients`` are used up."""
        # Lists at once: one call from Python in place of one for each tensor.
        slots, parameters, gradients = len(hyper.lr), list(parameters), list(gradients)
        if hyper.weight_decay is not None:
            torch._foreach_addcmul_(gradients, parameters, spread_all(hyper.weight_decay, parameters))
        if slots not in self._firsts:
            self._firsts[slots] = [memory["momentum_buffer"][:slots] for memory in self.memory]
        velocities, betas = self._firsts[slots], spread_all(hyper.beta, parameters)
        for g, velocity, beta in zip(gradients, velocities, betas, strict=True):
            torch.addcmul(g, velocity, beta, out=velocity)
        if self.nesterov:
            torch._foreach_addcmul_(gradients, velocities, betas)
        torch._foreach_addcmul_(
            parameters, gradients if self.nesterov else velocities, spread_all(-hyper.lr, parameters)
        )

    def clear(self, slot: int) -> None:
        for memory in self.memory:
            for value in memory.values():
                value[slot].zero_()

    def load(self, slot: int, state: Sequence[Mapping[str, Any]]) -> None:
        """A checkpoint's optimizer state into a slot that was cleared."""
        for memory, values in zip(self.memory, state, strict=True):
            for name in self.names:
                if values.get(name) is not None:
                    copy_padded(memory[name][slot], values[name])

    def export(self, slot: int, shapes: Sequence[Sequence[int]], steps: int, beta: float) -> list[dict[str, Any]]:
        """The slot's state as `optimizers.optimizer_state` gives it; without momentum there is none."""
        return self.exported(self.memory, slot, shapes, steps, beta)

    @staticmethod
    def exported(
        memory: Sequence[Mapping[str, Tensor]], slot: int, shapes: Sequence[Sequence[int]], steps: int, beta: float
    ) -> list[dict[str, Any]]:
        """:meth:`export` of a copy of :attr:`memory`."""
        if beta == 0:
            return [{} for _ in shapes]
        return [
            {"momentum_buffer": cut(values["momentum_buffer"][slot], shape)}
            for values, shape in zip(memory, shapes, strict=True)
        ]


class PackedAdam:
    """torch.optim.Adam, and AdamW where ``decoupled``. ``steps`` (slots,) counts the updates of each slot."""

    names = ("exp_avg", "exp_avg_sq")

    def __init__(self, parameters: Sequence[Tensor], decoupled: bool) -> None:
        self.decoupled = decoupled
        self.memory = [{name: torch.zeros_like(p) for name in self.names} for p in parameters]
        self.steps = torch.zeros(len(parameters[0]), dtype=torch.float64, device=parameters[0].device)

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], hyper: Hyper) -> None:
        slots = len(hyper.lr)
        steps = self.steps[:slots].add_(1)
        minus_lr = -hyper.lr / (1 - hyper.beta.double() ** steps)
        scale = (1 - hyper.beta2.double() ** steps).sqrt()
        for p, g, memory in zip(parameters, gradients, self.memory, strict=True):
            mean, square = memory["exp_avg"][:slots], memory["exp_avg_sq"][:slots]
            if hyper.weight_decay is not None and self.decoupled:
                p.mul_(spread(1 - hyper.lr * hyper.weight_decay, p))
            elif hyper.weight_decay is not None:
                g.addcmul_(p, spread(hyper.weight_decay, p))
            mean.lerp_(g, spread(1 - hyper.beta, p))
            square.mul_(spread(hyper.beta2, p)).addcmul_(g * spread(1 - hyper.beta2, p), g)
            p.addcmul_(mean / (square.sqrt() / spread(scale, p)).add_(EPS), spread(minus_lr, p))

    def clear(self, slot: int) -> None:
        self.steps[slot] = 0
        for memory in self.memory:
            for value in memory.values():
                value[slot].zero_()

    def load(self, slot: int, state: Sequence[Mapping[str, Any]]) -> None:
        for memory, values in zip(self.memory, state, strict=True):
            for name in self.names:
                copy_padded(memory[name][slot], values[name])
        self.steps[slot] = float(state[0]["step"])

    def export(self, slot: int, shapes: Sequence[Sequence[int]], steps: int, beta: float) -> list[dict[str, Any]]:
        return self.exported(self.memory, slot, shapes, steps, beta)

    @staticmethod
    def exported(
        memory: Sequence[Mapping[str, Tensor]], slot: int, shapes: Sequence[Sequence[int]], steps: int, beta: float
    ) -> list[dict[str, Any]]:
        """:meth:`export` of a copy of :attr:`memory`."""
        return [
            {"step": torch.tensor(float(steps)), **{name: cut(value[slot], shape) for name, value in values.items()}}
            for values, shape in zip(memory, shapes, strict=True)
        ]


PackedOptimizer = PackedSGD | PackedAdam

PACKED_OPTIMIZERS: dict[str, Callable[[Sequence[Tensor], ClassifierConfig], PackedOptimizer]] = {
    "sgd": lambda parameters, config: PackedSGD(parameters, bool(getattr(config, "nesterov", False))),
    "adam": lambda parameters, config: PackedAdam(parameters, decoupled=False),
    "adamw": lambda parameters, config: PackedAdam(parameters, decoupled=True),
}
"""The optimizer for stacked parameters, by the name that a configuration gives it."""


@torch.no_grad()
def add_l1(parameters: Sequence[Tensor], gradients: Sequence[Tensor], l1: Tensor) -> None:
    """`regularizers.add_l1_gradients` with a factor for each slot."""
    for p, g in zip(parameters, gradients, strict=True):
        g.addcmul_(p.sign(), spread(l1, p))


def norms(gradients: Sequence[Tensor]) -> Tensor:
    """L2 norm of all gradients of each slot, (slots,).

    The one metric whose last bits depend on the padding, that is, on the neighbours: a sum in float64 takes three times
    as long.
    """
    parts = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]
    total: Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    return total
