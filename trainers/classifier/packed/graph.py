"""A step of fixed shapes that is captured once and replayed: as a CUDA graph, one launch instead of a hundred.

On other devices :class:`RecordedStep` stands in for the graph, so that what a GPU computes can be tested without one:
it runs the same function again and raises an error for everything that a graph would get wrong in silence.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NUM_WARM_UPS = 3
"""Libraries choose their kernels and workspaces in the first runs, which must not be captured."""


class CaptureError(RuntimeError):
    """A step does what a captured graph cannot follow."""


class CapturedStep(Protocol):
    """A step that was captured when it was made."""

    def replay(self) -> None:
        """Runs the captured step on what the tensors hold now."""
        ...


def capture(step: Callable[[], None], tensors: Sequence[Tensor], device: torch.device) -> CapturedStep:
    """Captures ``step``, which must read and write only tensors that stay where they are.

    Args:
        step: no arguments, no result, no wait for the device.
        tensors: everything that ``step`` changes; back to what it was once the step is captured.
    """
    before = [tensor.clone() for tensor in tensors]
    captured: CapturedStep = GraphedStep(step, device) if device.type == "cuda" else RecordedStep(step)
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(value)
    return captured


class GraphedStep:
    """A step as a CUDA graph on ``device``."""

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        with torch.cuda.device(device):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(NUM_WARM_UPS):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                step()

    def replay(self) -> None:
        self._graph.replay()


class RecordedStep:
    """The stand-in for a graph on other devices.

    Raises:
        CaptureError: if the step draws from a global generator of random numbers; on a replay if it reads or writes
            a tensor that it did not when it was captured, or computes something else.
    """

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step
        step()
        states = _global_states()
        self._captured = _Record()
        with self._captured:
            step()
        if _global_states() != states:
            raise CaptureError("the step draws random numbers from a global generator: a graph would repeat them")

    def replay(self) -> None:
        record = _Record()
        with record:
            self._step()
        if record.operations != self._captured.operations:
            pairs = zip(self._captured.operations, record.operations, strict=False)
            first = next((pair for pair in pairs if pair[0] != pair[1]), ("the end", "the end of one of them"))
            raise CaptureError(f"the step is not the one that was captured: {first[0]} is now {first[1]}")
        if strange := [text for key, text in record.outside.items() if key not in self._captured.outside]:
            raise CaptureError(
                f"the step reads or writes tensors that were replaced since it was captured: {', '.join(strange[:4])}"
            )


class _Record(TorchDispatchMode):
    """The operations of a step with their shapes, and the memory that was there before it.

    Attributes:
        operations: (name, shapes of the arguments) in order.
        outside: the memory that it reads or writes and did not make, by identity; kept alive, so that no other tensor
            gets the same identity.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[str, tuple[Any, ...]]] = []
        self.outside: dict[int, str] = {}
        self._made: set[int] = set()
        self._alive: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        for tensor in taken:
            key = self._key(tensor)
            if key not in self._made:
                self.outside.setdefault(key, f"{tuple(tensor.shape)} {tensor.dtype} in {func}")
        self.operations.append((str(func), tuple(tuple(tensor.shape) for tensor in taken)))
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (key := self._key(tensor)) not in self.outside:
                self._made.add(key)
        return result

    def _key(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        self._alive.append(storage)
        return int(storage._cdata)


def _global_states() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().numpy().tobytes()
