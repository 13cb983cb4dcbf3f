"""Which ReLU units are on: for inputs, over a set, and from one training step to the next.

A unit is on where its input is above 0; the pattern of an input is one bit for each unit. Units are ordered as the
network computes them. Leaky ReLU counts as ReLU; smooth activations have no patterns.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.trainers.classifier.diagnostics.loss import BATCH_SIZE, evaluation_mode

RECTIFIERS = (nn.ReLU, nn.LeakyReLU)


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """A list that the forward passes inside fill, in order.

    Each entry is the kind and name of a module, and which of its units are on: bool (batch, units).
    """
    record: list[tuple[str, Tensor]] = []
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, RECTIFIERS):
            # Before the forward pass: a ReLU in place leaves its input nowhere.
            label = f"{type(module).__name__} {name}".strip()

            def hook(module: nn.Module, args: tuple[Tensor, ...], name: str = label) -> None:
                record.append((name, (args[0] > 0).flatten(1)))

            handles.append(module.register_forward_pre_hook(hook))
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def activation_patterns(model: nn.Module, x: Tensor) -> Tensor:
    """The pattern of each input x (n, ...): bool (n, units); no columns for a network without ReLU units.

    All of them at once: for few inputs or small networks. :func:`activity` summarizes a large set in batches.
    """
    with evaluation_mode(model), _recorded(model) as record:
        model(x)
    return torch.cat([on for _, on in record], dim=1) if record else x.new_zeros((len(x), 0), dtype=torch.bool)


@dataclass(frozen=True)
class LayerActivity:
    """One pass through a ReLU module, over a set of inputs.

    Attributes:
        name: kind and name of the module; one that is used again has a number behind it: "ReLU layer1.0.relu #2".
        num_units: its units; each position of a feature map is one.
        share_active: mean share of inputs for which a unit is on.
        share_dead: share of units that are on for no input.
        share_always: share of units that are on for every input.
    """

    name: str
    num_units: int
    share_active: float
    share_dead: float
    share_always: float


@dataclass(frozen=True)
class Activity:
    """``num_patterns`` is the number of different patterns among the ``num_inputs`` inputs."""

    num_inputs: int
    num_patterns: int
    layers: list[LayerActivity]


@torch.no_grad()
def activity(model: nn.Module, x: Tensor) -> Activity:
    """How the ReLU units respond to the inputs x (n, ...), in batches."""
    names: list[str] = []
    counts: list[Tensor] = []
    patterns: set[bytes] = set()
    with evaluation_mode(model):
        for batch in torch.split(x, BATCH_SIZE):
            with _recorded(model) as record:
                model(batch)
            if not names:
                names = _distinct([name for name, _ in record])
                counts = [on.new_zeros(on.shape[1], dtype=torch.int64) for _, on in record]
            for count, (_, on) in zip(counts, record, strict=True):
                count += on.sum(0)
            if record:
                patterns |= _packed(torch.cat([on for _, on in record], dim=1))
    layers = [
        LayerActivity(
            name=name,
            num_units=len(count),
            share_active=count.double().mean().item() / len(x),
            share_dead=(count == 0).double().mean().item(),
            share_always=(count == len(x)).double().mean().item(),
        )
        for name, count in zip(names, counts, strict=True)
    ]
    return Activity(len(x), len(patterns), layers)


def _distinct(names: list[str]) -> list[str]:
    uses: dict[str, int] = {}
    found = []
    for name in names:
        uses[name] = uses.get(name, 0) + 1
        found.append(name if uses[name] == 1 else f"{name} #{uses[name]}")
    return found


def _packed(on: Tensor) -> set[bytes]:
    """A digest of each row, so that a large network's patterns can be counted without keeping them."""

    import numpy as np

    rows = np.packbits(on.cpu().numpy(), axis=1)
    return {hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows}


def hamming_distances(before: Tensor, after: Tensor) -> Tensor:
    """Number of units that differ between two patterns of the same input: bool (n, units) twice -> int64 (n,)."""
    return (before != after).sum(1)


class PatternObserver:
    """Watches how patterns change while a network trains: ``run.observe = PatternObserver(probe)``.

    The trainer calls it with the network at the start and after each step; it keeps only the pattern before. Neither
    the training nor its random numbers notice.

    Attributes:
        distances: for each step (from the first): the Hamming distance between the patterns before and after it, in
            units, averaged over the inputs of the probe.
        largest: the largest over the inputs of the probe.
    """

    def __init__(self, probe: Tensor) -> None:
        """``probe`` (n, ...) are the inputs whose patterns are watched, on the network's device."""
        self.probe = probe
        self.num_units = 0
        self.distances: list[float] = []
        self.largest: list[int] = []
        self._before: Tensor | None = None

    def __call__(self, network: nn.Module) -> None:
        after = activation_patterns(network, self.probe)
        if self._before is not None:
            distances = hamming_distances(self._before, after)
            self.distances.append(distances.double().mean().item())
            self.largest.append(int(distances.max()))
        self._before = after
        self.num_units = after.shape[1]
