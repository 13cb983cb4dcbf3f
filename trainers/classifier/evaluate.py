"""Loss and accuracy on a resident set."""

import torch
from torch import nn
from torch.nn import functional

from hpo.trainers.classifier.data import Split

BATCH_BYTES = 64 << 20
"""Activations of one evaluation batch: large enough to be fast, small enough for several workers on one machine."""


@torch.no_grad()
def evaluate(network: nn.Module, split: Split, *, autocast: torch.dtype | None = None) -> tuple[float, float]:
    """Mean cross-entropy, without label smoothing, and accuracy in [0, 1].

    The network is left in evaluation mode. ``autocast`` is the dtype to compute in, None for the tensors' own.
    """
    network.eval()
    device = split.x.device.type
    loss = torch.zeros((), device=split.x.device, dtype=torch.float64)
    correct = torch.zeros((), device=split.x.device, dtype=torch.int64)
    size = max(64, BATCH_BYTES // (split.x[0].numel() * 64))
    for start in range(0, len(split), size):
        x, y = split.x[start : start + size], split.y[start : start + size]
        with torch.autocast(device, autocast or torch.bfloat16, enabled=autocast is not None):
            logits = network(x)
        logits = logits.double() if logits.dtype == torch.float64 else logits.float()
        loss += functional.cross_entropy(logits, y, reduction="sum").double()
        correct += (logits.argmax(1) == y).sum()
    return loss.item() / len(split), correct.item() / len(split)
