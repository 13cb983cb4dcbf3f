"""Dropout masks of a pack: each trial's own, the same ones that it draws when it trains alone.

:class:`CounterMasks` computes them within a step, for all slots and layers in one pass. :class:`DrawnMasks` is for
trials of experiments whose numbers come from PyTorch's generator (`dropout_generator = "torch"`).
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from hpo.trainers.classifier import philox
from hpo.trainers.classifier.packed.network import dropout_widths
from hpo.trainers.classifier.packed.slot import Slot
from hpo.trainers.classifier.randomness import derived_seed, generator

CPU_COUNTERS = 1 << 14
"""On a CPU the masks of so many counters are computed at a time: a round's words then stay in the cache."""


class CounterMasks:
    """Masks from the counters of `regularizers.MaskStream`; a step computes its own, by the slots' step numbers.

    ``stacks``: what a step reads and writes, the slot first. A slot without dropout has masks of 1.
    """

    def __init__(
        self, widths: Sequence[int], capacity: int, batch: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._widths, self._is_cpu = list(widths), device.type == "cpu"
        blocks = [-(-width // philox.UNITS) for width in widths]
        self._starts = [philox.UNITS * sum(blocks[:layer]) for layer in range(len(blocks))]

        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device).view(1, -1, 1)

        self._block = column([block for count in blocks for block in range(count)])
        self._layer = column([layer for layer, count in enumerate(blocks) for _ in range(count)])
        self._row = torch.arange(batch, device=device).view(1, 1, -1)
        self._keys = torch.zeros(capacity, 2 * philox.NUM_ROUNDS, dtype=torch.int64, device=device)
        self._limit = torch.full((capacity,), philox.LEVELS, dtype=torch.int64, device=device)
        self._scale = torch.ones(capacity, device=device, dtype=dtype)
        self._masks = torch.ones(capacity, philox.UNITS * sum(blocks), batch, device=device, dtype=dtype)
        self.stacks = [self._keys, self._limit, self._scale, self._masks]

    def begin(self, slot: Slot) -> None:
        """At the start of each epoch of a slot."""
        at, dropout = slot.position, slot.config.dropout
        words = [word for pair in philox.round_keys(_seed(slot)) for word in pair]
        self._keys[at] = torch.tensor(words)
        self._limit[at], self._scale[at] = philox.threshold(dropout), philox.scale(dropout)

    def draw(self, slot: Slot, ahead: int) -> None:
        """Nothing: a step computes its masks."""

    def first(self, slots: int, batch: int, step: Tensor) -> list[Tensor]:
        """The masks of the first slots for so many rows; ``step`` int64 (slots,) is each slot's in its epoch."""
        counters = self._block.shape[1] * batch
        at_once = max(1, CPU_COUNTERS // max(1, counters)) if self._is_cpu else slots
        for start in range(0, slots, at_once):
            part = slice(start, min(slots, start + at_once))
            self._compute(part, batch, step[part])
        masks = self._masks[:slots, :, :batch]
        return [masks[:, at : at + width] for at, width in zip(self._starts, self._widths, strict=True)]

    def _compute(self, part: slice, batch: int, step: Tensor) -> None:
        def of_slots(values: Tensor) -> Tensor:
            return values.view(-1, 1, 1)

        words = self._keys[part].unbind(1)
        keys = [(of_slots(words[at]), of_slots(words[at + 1])) for at in range(0, len(words), 2)]
        limit, row = self._limit[part].view(-1, 1, 1), self._row[:, :, :batch]
        kept = philox.kept(self._block, row, of_slots(step), self._layer, keys, limit, units_last=False)
        torch.mul(kept.flatten(1, 2), of_slots(self._scale[part]), out=self._masks[part, :, :batch])

    def adopt(self, other: "DropoutMasks") -> None:
        """Nothing: everything is in ``stacks``."""

    def forget(self, slot: Slot) -> None:
        """Nothing is kept for a slot."""


def _seed(slot: Slot) -> int:
    return derived_seed(slot.run.seed, "dropout", slot.epochs_done)


class DrawnMasks:
    """Masks from PyTorch's generators, made before a step: a draw for each trial, layer and step.

    That is what a trial alone does too, call by call, so the numbers are the same. ``stacks`` as in CounterMasks.
    """

    def __init__(
        self, widths: Sequence[int], capacity: int, batch: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.device, self.dtype = device, dtype
        self.stacks = [torch.ones(capacity, width, batch, device=device, dtype=dtype) for width in widths]
        self._generators: dict[Hashable, torch.Generator] = {}
        self._widths: dict[Hashable, list[int]] = {}

    def begin(self, slot: Slot) -> None:
        """At the start of each epoch of a slot."""
        if not slot.config.dropout:
            for mask in self.stacks:
                mask[slot.position].fill_(1)
        self._generators[slot.key] = generator(slot.run.seed, "dropout", slot.epochs_done, self.device)
        self._widths[slot.key] = dropout_widths(slot.network)

    def draw(self, slot: Slot, ahead: int) -> None:
        """The masks of the update that is ``ahead`` of the slot's next one."""
        keep, batch, source = 1 - slot.config.dropout, slot.batch(ahead), self._generators[slot.key]
        for mask, width in zip(self.stacks, self._widths[slot.key], strict=True):
            drawn = torch.empty(batch, width, device=self.device, dtype=self.dtype)
            mask[slot.position, :width, :batch] = drawn.bernoulli_(keep, generator=source).div_(keep).t()

    def first(self, slots: int, batch: int, step: Tensor) -> list[Tensor]:
        """The masks of the first slots for so many rows, as :meth:`draw` made them."""
        return [mask[:slots, :, :batch] for mask in self.stacks]

    def adopt(self, other: "DropoutMasks") -> None:
        """Takes over the generators of a smaller pack's masks."""
        if isinstance(other, DrawnMasks):
            self._generators, self._widths = other._generators, other._widths

    def forget(self, slot: Slot) -> None:
        self._generators.pop(slot.key, None)
        self._widths.pop(slot.key, None)


DropoutMasks = CounterMasks | DrawnMasks

MASKS: dict[str, type[CounterMasks] | type[DrawnMasks]] = {"philox": CounterMasks, "torch": DrawnMasks}
"""The masks by the name that a configuration gives their generator."""
