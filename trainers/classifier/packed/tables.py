"""What a step reads of each slot, on the device, so that nothing is sent there between two ends of an epoch."""

from collections.abc import Callable, Hashable
from functools import partial

import torch
from torch import Tensor

from hpo.trainers.classifier.packed.ahead import FEW_IMAGES, Ahead, EpochPlan, epoch_plan
from hpo.trainers.classifier.packed.optimizers import Hyper
from hpo.trainers.classifier.packed.shape import ROWS
from hpo.trainers.classifier.packed.slot import Slot

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
        self._on_gpu = device.type == "cuda"
        self._ahead = Ahead[EpochPlan](2 * capacity) if self._on_gpu or num_images >= FEW_IMAGES else None
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
        at, epoch = slot.position, slot.epochs_done
        plan = self._plan_of(slot, epoch)() if self._ahead is None else self._ahead.get(*self._planned(slot, epoch))
        self.order[at].copy_(plan.order, non_blocking=True)
        if self.crops is not None and plan.crops is not None:
            self.crops[at].copy_(plan.crops, non_blocking=True)
        slot.last_lr = plan.lrs[-1]
        self.lrs[at, : slot.num_steps].copy_(plan.lrs_tensor, non_blocking=True)
        if self._ahead is not None and epoch + 1 < slot.config.epochs:
            self._ahead.prepare(*self._planned(slot, epoch + 1))
        for value in (self.step, self.loss_sum, self.norm_sum):
            value[at] = 0

    def _planned(self, slot: Slot, epoch: int) -> tuple[Hashable, Callable[[], EpochPlan]]:
        return (slot.key, slot.run.seed, epoch), self._plan_of(slot, epoch)

    def _plan_of(self, slot: Slot, epoch: int) -> Callable[[], EpochPlan]:
        given = (slot.config, slot.run.seed, epoch, self.num_images, self.lrs.dtype)
        return partial(epoch_plan, *given, pinned=self._on_gpu)

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
