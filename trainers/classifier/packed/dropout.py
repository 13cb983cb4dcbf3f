"""Dropout masks of a pack: each trial's own, the same ones that it draws when it trains alone."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from hpo.trainers.classifier.packed.network import dropout_widths
from hpo.trainers.classifier.packed.slot import Slot
from hpo.trainers.classifier.randomness import generator


class DropoutMasks:
    """``tensors``: for each dropout layer (capacity, features, batch), what to multiply with; 1 where nothing drops.

    A draw for each trial and layer and step is what a trial alone does too, call by call, so the numbers are the same.
    """

    def __init__(
        self, widths: Sequence[int], capacity: int, batch: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.device, self.dtype = device, dtype
        self.tensors = [torch.ones(capacity, width, batch, device=device, dtype=dtype) for width in widths]
        self._generators: dict[Hashable, torch.Generator] = {}
        self._widths: dict[Hashable, list[int]] = {}

    def begin(self, slot: Slot) -> None:
        """At the start of each epoch of a slot."""
        if not slot.config.dropout:
            for mask in self.tensors:
                mask[slot.position].fill_(1)
        self._generators[slot.key] = generator(slot.run.seed, "dropout", slot.epochs_done, self.device)
        self._widths[slot.key] = dropout_widths(slot.network)

    def draw(self, slot: Slot, ahead: int) -> None:
        """The masks of the update that is ``ahead`` of the slot's next one."""
        keep, batch, source = 1 - slot.config.dropout, slot.batch(ahead), self._generators[slot.key]
        for mask, width in zip(self.tensors, self._widths[slot.key], strict=True):
            drawn = torch.empty(batch, width, device=self.device, dtype=self.dtype)
            mask[slot.position, :width, :batch] = drawn.bernoulli_(keep, generator=source).div_(keep).t()

    def first(self, slots: int, batch: int) -> list[Tensor]:
        """The masks of the first slots for so many rows."""
        return [mask[:slots, :, :batch] for mask in self.tensors]

    def adopt(self, other: "DropoutMasks") -> None:
        """Takes over the generators of a smaller pack's masks."""
        self._generators, self._widths = other._generators, other._widths

    def forget(self, slot: Slot) -> None:
        self._generators.pop(slot.key, None)
        self._widths.pop(slot.key, None)
