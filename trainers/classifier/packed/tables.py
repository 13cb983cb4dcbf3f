"""What a step reads of each slot, on the device, so that nothing is sent there between two ends of an epoch."""

import torch
from torch import Tensor

from hpo.trainers.classifier.augment import draw_crops
from hpo.trainers.classifier.packed.optimizers import Hyper
from hpo.trainers.classifier.packed.shape import ROWS
from hpo.trainers.classifier.packed.slot import Slot
from hpo.trainers.classifier.randomness import epoch_order, generator
from hpo.trainers.classifier.schedules import learning_rates

HYPER = ("beta", "beta2", "weight_decay", "l1", "label_smoothing")


class Tables:
    """Tensors with a leading dimension of ``capacity``.

    Attributes:
        order: int64 (capacity, num_images), the order in which the slot's epoch visits the images.
        crops: uint8 (capacity, 3, num_images), `augment.draw_crops` of the slot's epoch; None without.
        lrs: (capacity, num_images), the learning rate of each update of the slot's epoch.
        hyper: (len(HYPER), capacity).
        step, batch_size, stride: int64 (capacity,).
        loss_sum: float64 (capacity,), of the epoch so far, weighted by images; norm_sum: of gradient norms.
    """

    def __init__(
        self, capacity: int, num_images: int, device: torch.device, dtype: torch.dtype, *, augment: bool, static: bool
    ) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        # A static pack computes the slots that hold no trial too: their indices must be valid.
        fresh = torch.zeros if static else torch.empty
        self.num_images = num_images
        self.order = fresh(capacity, num_images, dtype=torch.int64, device=device)
        self.crops = fresh(capacity, 3, num_images, dtype=torch.uint8, device=device) if augment else None
        self.lrs = fresh(capacity, num_images, dtype=dtype, device=device)
        self.hyper = zeros(len(HYPER), capacity, dtype=dtype)
        self.step, self.batch_size, self.stride = zeros(capacity), zeros(capacity) + 1, zeros(capacity) + 1
        self._row = torch.arange(2 * num_images + ROWS, device=device)
        self._hypers: dict[int, dict[str, Tensor]] = {}
        self.loss_sum, self.norm_sum = zeros(capacity, dtype=torch.float64), zeros(capacity, dtype=torch.float64)

    def fill(self, slot: Slot) -> None:
        """What stays the same for a trial's life."""
        at, config = slot.position, slot.config
        self.hyper[:, at] = torch.tensor([getattr(config, name) for name in HYPER], dtype=self.hyper.dtype)
        self.batch_size[at] = config.batch_size
        self.stride[at] = slot.stride

    def begin(self, slot: Slot) -> None:
        """What a new epoch needs."""
        at = slot.position
        self.order[at] = epoch_order(slot.run.seed, slot.epochs_done, self.num_images)
        if self.crops is not None:
            source = generator(slot.run.seed, "augment", slot.epochs_done)
            self.crops[at] = draw_crops(self.num_images, source, pad=slot.config.pad, flip=slot.config.flip)
        lrs = learning_rates(slot.epochs_done, slot.config, slot.num_steps)
        slot.last_lr = lrs[-1]
        self.lrs[at, : slot.num_steps] = torch.tensor(lrs, dtype=self.lrs.dtype)
        for value in (self.step, self.loss_sum, self.norm_sum):
            value[at] = 0

    def stacked(self) -> list[Tensor]:
        """All tensors, the slot first."""
        return [
            *(self.order, *([] if self.crops is None else [self.crops])),
            *(self.lrs, self.hyper.t()),
            *(self.step, self.batch_size, self.stride, self.loss_sum, self.norm_sum),
        ]

    def for_update(self, slots: int, *, weight_decay: bool, l1: bool) -> Hyper:
        """The numbers of the first slots' next update; decay and L1 only where any slot has them."""
        if slots not in self._hypers:
            self._hypers[slots] = dict(zip(HYPER, self.hyper[:, :slots].unbind(), strict=True))
        values = self._hypers[slots]
        column = self.step[:slots].clamp(max=self.num_images - 1).unsqueeze(1)
        return Hyper(
            lr=self.lrs[:slots].gather(1, column).squeeze(1),
            beta=values["beta"],
            beta2=values["beta2"],
            weight_decay=values["weight_decay"] if weight_decay else None,
            l1=values["l1"] if l1 else None,
        )

    def rows(self, slots: int, batch: int, *, masked: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Each slot's next batch: its images, int64 (slots, batch); which rows are not padding (None: all); its crops.

        The crops are uint8 (slots, 3, batch), None where images are not augmented. Padding repeats the batch's first
        image, so that it is finite wherever the batch is.
        """
        row = self._row[:batch]
        valid = None
        if masked:
            size = self.batch_size[:slots].unsqueeze(1)
            start = (self.step[:slots].unsqueeze(1) * size).clamp_(max=self.num_images - 1)
            position = start + row
            valid = (row < size) & (position < self.num_images)
            position = torch.where(valid, position, start)
        else:
            position = torch.add(row, self.step[:slots].unsqueeze(1), alpha=batch)
        crops = self.crops
        if crops is not None:
            crops = crops[:slots].gather(2, position.unsqueeze(1).expand(-1, 3, -1))
        return self.order[:slots].gather(1, position), valid, crops
