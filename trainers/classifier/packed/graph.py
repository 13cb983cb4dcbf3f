"""A step of fixed shapes as a CUDA graph: one launch instead of a hundred."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NUM_WARM_UPS = 3
"""Libraries choose their kernels and workspaces in the first runs, which must not be captured."""


class GraphedStep:
    """Captures ``step``, which must read and write only tensors that stay where they are.

    Args:
        step: no arguments, no result, no wait for the device.
        tensors: everything that ``step`` changes; back to what it was once the graph is there.
    """

    def __init__(self, step: Callable[[], None], tensors: Sequence[Tensor]) -> None:
        before = [tensor.clone() for tensor in tensors]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(NUM_WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            step()
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)

    def replay(self) -> None:
        """Runs the captured step on what the tensors hold now."""
        self._graph.replay()
