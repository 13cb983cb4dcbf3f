"""Loss and accuracy of many slots on a resident set."""

import torch

from hpo.trainers.classifier.data import Split
from hpo.trainers.classifier.packed.layers import ForwardState
from hpo.trainers.classifier.packed.losses import cross_entropy
from hpo.trainers.classifier.packed.network import PackedNetwork

BATCH_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
"""Activations of one batch of all slots; what fits in the cache is twice as fast on a CPU."""
BATCH_IMAGES = {"features": 512, "images": 64}
"""Images of such a batch. Always as many: which kernel multiplies, and so the last bits, may depend on it."""


@torch.no_grad()
def evaluate_slots(network: PackedNetwork, positions: list[int], split: Split) -> list[tuple[float, float]]:
    """Mean loss and accuracy of each slot, as `evaluate.evaluate`, with the same bits in any company."""
    pixels = 1 if network.is_features else split.x.shape[2] * split.x.shape[3]
    size = BATCH_IMAGES["features" if network.is_features else "images"]
    image_bytes = 4 * network.values_per_image * pixels
    count = max(1, BATCH_BYTES[split.x.device.type] // (size * image_bytes))
    parts = [positions[start : start + count] for start in range(0, len(positions), count)]
    return [result for part in parts for result in _evaluate_together(network, part, split, size)]


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
    loss = losses.sum(1, dtype=torch.float64) / len(split)
    return list(zip(loss.tolist(), (correct.double() / len(split)).tolist(), strict=True))
