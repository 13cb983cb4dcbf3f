"""Copies of the slots whose epochs end together, for checkpoints: one copy of each tensor for all of them.

On a GPU they are copied on the device, which takes a millisecond, and from there to pinned memory on a stream of their
own while the next step runs; whoever makes a state of them waits for that, and not the thread that trains.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpo.trainers.classifier.packed.network import PackedNetwork
from hpo.trainers.classifier.packed.optimizers import PackedOptimizer
from hpo.trainers.protocol import State


class HostCopies:
    """The weights and the optimizer's memory of the slots at ``positions``, copied by the first :meth:`make`."""

    def __init__(self, network: PackedNetwork, optimizer: PackedOptimizer, positions: Sequence[int]) -> None:
        self._network, self._optimizer, self._positions = network, optimizer, list(positions)
        self._weights: list[Tensor] | None = None
        self._memory: list[Mapping[str, Tensor]] = []
        self._ready: torch.cuda.Event | None = None

    @torch.no_grad()
    def make(self) -> None:
        """Copies; to be called before the next step. Does not wait for a GPU."""
        if self._weights is not None:
            return
        weights = [*self._network.parameters, *self._network.buffers]
        memory = [dict(values) for values in self._optimizer.memory]
        device = weights[0].device
        first, count = self._positions[0], len(self._positions)
        if self._positions == list(range(first, first + count)):

            def taken(stack: Tensor) -> Tensor:
                return stack[first : first + count].clone()
        else:
            index = torch.tensor(self._positions, device=device)

            def taken(stack: Tensor) -> Tensor:
                return stack.index_select(0, index)

        stacks = [taken(stack.detach()) for stack in weights]
        states = [{name: taken(value) for name, value in values.items()} for values in memory]
        if device.type == "cuda":
            stacks, states = self._to_host(device, stacks, states)
        self._weights, self._memory = stacks, list(states)

    def _to_host(
        self, device: torch.device, stacks: list[Tensor], states: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        side, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)

        def sent(tensor: Tensor) -> Tensor:
            tensor.record_stream(side)
            return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)

        with torch.cuda.stream(side):
            stacks = [sent(stack) for stack in stacks]
            states = [{name: sent(value) for name, value in values.items()} for values in states]
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record(side)
        return stacks, states

    def state(self, position: int, network: nn.Module, epoch: int, steps: int, beta: float) -> State:
        """The checkpoint of the slot that was at ``position``, whose own network is ``network`` (on ``meta``)."""
        assert self._weights is not None
        if self._ready is not None:
            self._ready.synchronize()
        at = self._positions.index(position)
        shapes = [parameter.shape for parameter in network.parameters()]
        optimizer: list[dict[str, Any]] = self._optimizer.exported(self._memory, at, shapes, steps, beta)
        return {
            "epoch": epoch,
            "network": self._network.named(self._weights, at, network, steps),
            "optimizer": optimizer,
        }
