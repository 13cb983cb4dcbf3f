"""One update of the trials of a pack: the tensors that were allocated for its slots, and what a step computes on them.

A dynamic step computes the slots that hold trials. A static one computes all slots, and was captured when it was made
(`graph`), so that a refill changes numbers and never shapes. If few trials are left for long, a second step is captured
that computes a part of the slots.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.data import Split
from hpo.trainers.classifier.datasets import Part
from hpo.trainers.classifier.packed.direct import DirectStep
from hpo.trainers.classifier.packed.dropout import MASKS, DropoutMasks
from hpo.trainers.classifier.packed.evaluate import CapturedEvaluation, evaluate_slots
from hpo.trainers.classifier.packed.graph import CapturedStep, capture
from hpo.trainers.classifier.packed.layers import ForwardState
from hpo.trainers.classifier.packed.losses import cross_entropy
from hpo.trainers.classifier.packed.memory import is_out_of_memory
from hpo.trainers.classifier.packed.network import PackedNetwork
from hpo.trainers.classifier.packed.optimizers import PACKED_OPTIMIZERS, add_l1, norms
from hpo.trainers.classifier.packed.shape import ROWS
from hpo.trainers.classifier.packed.slot import Slot
from hpo.trainers.classifier.packed.tables import HYPER, Tables
from hpo.trainers.classifier.precision import Precision

log = logging.getLogger("hpo")

FEW = 4
"""A static step for a FEWth of the slots is captured once that is enough for their trials."""
FEW_STEPS = 256
"""How many steps in a row it must have been enough: a capture costs some, and trials may still be coming."""


@dataclass(frozen=True)
class StepFeatures:
    """Which parts of a step any of its slots needs; a CPU leaves out the others."""

    dropout: bool = True
    smoothing: bool = True
    weight_decay: bool = True
    l1: bool = True

    @classmethod
    def of(cls, configs: Sequence[ClassifierConfig]) -> "StepFeatures":
        """The parts that these configurations need."""
        return cls(
            dropout=any(config.dropout for config in configs),
            smoothing=any(config.label_smoothing for config in configs),
            weight_decay=any(config.weight_decay for config in configs),
            l1=any(config.l1 for config in configs),
        )


class PackedStep:
    """Networks, optimizer, tables and dropout masks of ``capacity`` slots, and the step that trains them.

    Attributes:
        features: which parts of a dynamic step the trials need; a static step computes all.
        unsafe: a step broke off half way or is still computed on the device: the weights are in doubt.
    """

    def __init__(
        self,
        template: ClassifierConfig,
        capacity: int,
        train: Split,
        device_name: str,
        precision: Precision,
        *,
        static: bool,
    ) -> None:
        self.capacity, self.precision, device = capacity, precision, torch.device(device_name)
        self.features = StepFeatures()
        self.unsafe = False
        self.network = PackedNetwork(template, capacity, device_name, precision)
        layers, parameters, dtype = self.network.direct_layers, self.network.parameters, precision.weights
        self._direct = None if layers is None else DirectStep(layers, parameters, precision)
        self.optimizer = PACKED_OPTIMIZERS[template.optimizer](parameters, template)
        self.tables = Tables(capacity, len(train), device, dtype, augment=template.augment, static=static)
        widths, active = self.network.dropout_widths, precision.autocast or dtype
        masks = MASKS[template.dropout_generator]
        self.masks: DropoutMasks = masks(widths, capacity, template.batch_size, device, active)
        self._x = train.x.flatten(1) if self.network.is_features and not template.augment else train.x
        self._y = train.y
        self._viewed: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self.evaluations: dict[Part, CapturedEvaluation] = {}
        self._device, self._batch = device, template.batch_size
        self._captured: CapturedStep | None = self._capture(capacity) if static else None
        # Another number of slots may take other kernels, and so have other bits.
        self._few = 0 if template.deterministic or not static else capacity // FEW
        self._captured_few: CapturedStep | None = None
        self._steps_of_few = 0

    def _capture(self, num_slots: int) -> CapturedStep:
        step = partial(self._step, num_slots, self._batch, masked=True, with_norms=True)
        return capture(step, self.stacks(), self._device)

    def _captured_for(self, num_slots: int, count: int) -> CapturedStep | None:
        """The captured step for the first slots, of which ``count`` updates are wanted; None for a dynamic step."""
        if num_slots > self._few:
            self._steps_of_few = 0
            return self._captured
        if self._captured_few is None and self._steps_of_few >= FEW_STEPS:
            try:
                self._captured_few = self._capture(self._few)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._few = 0
                log.info("no memory for a second graph: all slots are computed for the last trials")
        self._steps_of_few += count
        return self._captured_few or self._captured

    def evaluate(self, part: Part, split: Split, positions: list[int]) -> list[tuple[float, float]]:
        """Mean loss and accuracy of the slots at ``positions``; in a static pack in a graph for each ``part``."""
        if self._captured is None:
            return evaluate_slots(self.network, positions, split)
        if part not in self.evaluations:
            self.evaluations[part] = CapturedEvaluation(self.network, split, self._device)
        return self.evaluations[part].run(positions)

    def run(self, slots: Sequence[Slot], count: int) -> None:
        """``count`` updates of ``slots``, which are the first ones."""
        largest = max(slot.config.batch_size for slot in slots)
        num_slots, batch = len(slots), -(-largest // ROWS) * ROWS
        same_size = all(slot.config.batch_size == batch for slot in slots)
        num_full = min(slot.num_full for slot in slots) if same_size else 0
        strides = {(slot.step, slot.stride) for slot in slots}
        dropping = [slot for slot in slots if slot.config.dropout]
        captured = self._captured_for(num_slots, count)
        for ahead in range(count):
            for slot in dropping:
                self.masks.draw(slot, ahead)
            if captured is not None:
                # An error of the device shows at the next wait for it; until then the weights are in doubt.
                self.unsafe = True
                captured.replay()
                self.unsafe = False
            else:
                with_norms = any((step + ahead) % stride == 0 for step, stride in strides)
                self._step(num_slots, batch, masked=ahead >= num_full, with_norms=with_norms)
        for slot in slots:
            slot.step += count

    def _step(self, num_slots: int, batch: int, *, masked: bool, with_norms: bool) -> None:
        """One update of the first slots: gather, forward, loss, backward, update; nothing comes back to the host."""
        features, tables = self.features, self.tables
        parameters, buffers = self._views(num_slots)
        index, valid, crops = tables.rows(num_slots, batch, masked=masked)
        state = ForwardState(parameters, buffers, training=True)
        if valid is not None:
            state.valid = valid.to(self.precision.weights)
            state.counts = state.valid.sum(1).clamp_(min=1)
        if features.dropout:
            state.masks = self.masks.first(num_slots, batch, tables.step[:num_slots])
        x = self.network.gather(self._x, index, crops)
        y = self._y.index_select(0, index.view(-1)).view(index.shape)
        smoothing = tables.hyper[HYPER.index("label_smoothing"), :num_slots] if features.smoothing else None
        if self._direct is not None:
            with torch.no_grad():
                loss, gradients = self._direct(x, y, state, smoothing, valid)
        else:
            losses = cross_entropy(self.network.logits(x, state), y, smoothing)
            if valid is not None:
                losses = losses.masked_fill(~valid, 0)
            # In float64, since the order of a sum depends on the number of rows.
            loss = losses.sum(1, dtype=torch.float64)
            mean = loss / (batch if state.counts is None else state.counts)
            gradients = list(torch.autograd.grad(mean.sum(), parameters))
        with torch.no_grad():
            # From here on a step that breaks off leaves the pack half updated.
            self.unsafe = True
            step = tables.step[:num_slots]
            tables.loss_sum[:num_slots] += loss
            if with_norms:
                taken = step % tables.stride[:num_slots] == 0
                tables.norm_sum[:num_slots] += torch.where(taken, norms(gradients), 0)
            hyper = tables.for_update(num_slots, weight_decay=features.weight_decay, l1=features.l1)
            if hyper.l1 is not None:
                add_l1(parameters, gradients, hyper.l1)
            self.optimizer.update(parameters, gradients, hyper)
            step += 1
            self.unsafe = False

    def stacks(self) -> list[Tensor]:
        """Every tensor with a leading dimension for the slot."""
        steps = [] if self.optimizer.steps is None else [self.optimizer.steps]
        memory = [value for values in self.optimizer.memory for value in values.values()]
        return [
            *(*self.network.parameters, *self.network.buffers, *memory, *steps),
            *(*self.tables.stacked(), *self.masks.stacks),
        ]

    def _views(self, num_slots: int) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters, as leaves that a gradient is asked for, and buffers of the first slots."""
        if num_slots not in self._viewed:
            parameters = [stack[:num_slots].requires_grad_() for stack in self.network.parameters]
            self._viewed[num_slots] = (parameters, [stack[:num_slots] for stack in self.network.buffers])
        return self._viewed[num_slots]
