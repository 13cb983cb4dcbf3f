"""Loss and accuracy of many slots on a resident set.

:func:`evaluate_slots` computes those that are asked for; :class:`CapturedEvaluation` always as many, in a graph.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.trainers.classifier.data import Split
from hpo.trainers.classifier.packed.graph import capture
from hpo.trainers.classifier.packed.layers import ForwardState
from hpo.trainers.classifier.packed.losses import cross_entropy
from hpo.trainers.classifier.packed.network import PackedNetwork

BATCH_BYTES = {"cpu": 8 << 20, "cuda": 1 << 30}
"""Activations of one batch of all slots; what fits in the cache is twice as fast on a CPU."""
BATCH_IMAGES = {"features": 512, "images": 64}
"""Images of such a batch. Always as many: which kernel multiplies, and so the last bits, may depend on it."""
GPU_IMAGES = {"features": 1024, "images": 256}
"""The same on a GPU, where a batch has to be large to be worth its launches."""


def _most_slots(network: PackedNetwork, split: Split, size: int) -> int:
    """How many slots are evaluated together on batches of ``size`` images."""
    pixels = 1 if network.is_features else split.x.shape[2] * split.x.shape[3]
    image_bytes = 4 * network.values_per_image * pixels
    return max(1, BATCH_BYTES.get(split.x.device.type, BATCH_BYTES["cpu"]) // (size * image_bytes))


class CapturedEvaluation:
    """Evaluates slots of a static pack on ``split`` in groups of one size, on batches of one size, in one graph.

    The weights of a group are copied to where the graph reads them; a group that is not full repeats its last slot, and
    the last batch its last image, which does not count.
    """

    def __init__(self, network: PackedNetwork, split: Split, device: torch.device) -> None:
        sizes = GPU_IMAGES if device.type == "cuda" else BATCH_IMAGES
        self._size = min(sizes["features" if network.is_features else "images"], len(split))
        self._network, self._y = network, split.y
        self._x = split.x.flatten(1) if network.is_features else split.x
        self._slots = min(len(network.parameters[0]), _most_slots(network, split, self._size))
        self._from = [stack.detach() for stack in (*network.parameters, *network.buffers)]
        self._weights = [
            torch.zeros((self._slots, *stack.shape[1:]), dtype=stack.dtype, device=device) for stack in self._from
        ]
        self._row = torch.arange(self._size, device=device)
        self._start = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros(self._slots, dtype=torch.float64, device=device)
        self._correct = torch.zeros(self._slots, dtype=torch.int64, device=device)
        self._captured = capture(self._batch, [self._start, self._loss, self._correct], device)

    @torch.no_grad()
    def _batch(self) -> None:
        """Adds the next batch's losses and correct answers."""
        network, slots, last = self._network, self._slots, len(self._y) - 1
        row = self._start + self._row
        counts, index = row <= last, row.clamp(max=last)
        split_at = len(network.parameters)
        state = ForwardState(self._weights[:split_at], self._weights[split_at:], training=False)
        logits = network.logits(network.shared(self._x.index_select(0, index), slots), state)
        y = self._y.index_select(0, index).expand(slots, -1)
        self._loss += cross_entropy(logits, y).masked_fill(~counts, 0).sum(1, dtype=torch.float64)
        self._correct += ((logits.argmax(1) == y) & counts).sum(1)
        self._start += self._size

    @torch.no_grad()
    def run(self, positions: Sequence[int]) -> list[tuple[float, float]]:
        """As :func:`evaluate_slots`."""
        count, results = len(self._y), list[tuple[float, float]]()
        for first in range(0, len(positions), self._slots):
            group = list(positions[first : first + self._slots])
            index = torch.tensor(group + group[-1:] * (self._slots - len(group)), device=self._start.device)
            for own, stack in zip(self._weights, self._from, strict=True):
                torch.index_select(stack, 0, index, out=own)
            for value in (self._start, self._loss, self._correct):
                value.zero_()
            for _ in range(-(-count // self._size)):
                self._captured.replay()
            results += _means(self._loss, self._correct, count)[: len(group)]
        return results


def _means(loss: Tensor, correct: Tensor, count: int) -> list[tuple[float, float]]:
    return list(zip((loss / count).tolist(), (correct.double() / count).tolist(), strict=True))


@torch.no_grad()
def evaluate_slots(network: PackedNetwork, positions: list[int], split: Split) -> list[tuple[float, float]]:
    """Mean loss and accuracy of each slot, as `evaluate.evaluate`, with the same bits in any company."""
    size = BATCH_IMAGES["features" if network.is_features else "images"]
    count = _most_slots(network, split, size)
    parts = [positions[start : start + count] for start in range(0, len(positions), count)]
    tunes = torch.backends.cudnn.benchmark
    # The number of slots varies, and cuDNN would tune every convolution for each.
    torch.backends.cudnn.benchmark = False
    try:
        return [result for part in parts for result in _evaluate_together(network, part, split, size)]
    finally:
        torch.backends.cudnn.benchmark = tunes


def _evaluate_together(
    network: PackedNetwork, positions: list[int], split: Split, size: int
) -> list[tuple[float, float]]:
    count, first, device = len(positions), positions[0], split.x.device
    weights = (network.parameters, network.buffers)
    if positions == list(range(first, first + count)):
        parameters, buffers = ([stack[first : first + count] for stack in stacks] for stacks in weights)
    else:
        index = torch.tensor(positions, device=device)
        parameters, buffers = ([stack.index_select(0, index) for stack in stacks] for stacks in weights)
    state = ForwardState(parameters, buffers, training=False)
    x = split.x.flatten(1) if network.is_features else split.x
    losses = torch.empty(count, len(split), dtype=network.precision.weights, device=device)
    correct = torch.zeros(count, dtype=torch.int64, device=device)
    for start in range(0, len(split), size):
        y = split.y[start : start + size].expand(count, -1)
        logits = network.logits(network.shared(x[start : start + size], count), state)
        losses[:, start : start + size] = cross_entropy(logits, y)
        correct += (logits.argmax(1) == y).sum(1)
    return _means(losses.sum(1, dtype=torch.float64), correct, len(split))
