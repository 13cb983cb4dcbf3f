"""A pack: trials that one batched computation trains together, each with its own data order, position and epoch end.

The trials occupy the first slots. A dynamic pack, the default on a CPU, computes just those in each step. A static
pack, the default on a GPU, computes all slots in a step that was captured when the pack was made (`graph`), so that a
refill changes numbers and never shapes.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.data import Split, load_split
from hpo.trainers.classifier.datasets import Part
from hpo.trainers.classifier.packed.direct import DirectStep
from hpo.trainers.classifier.packed.dropout import DropoutMasks
from hpo.trainers.classifier.packed.evaluate import evaluate_slots
from hpo.trainers.classifier.packed.graph import CapturedStep, capture
from hpo.trainers.classifier.packed.host_copies import HostCopies
from hpo.trainers.classifier.packed.layers import ForwardState
from hpo.trainers.classifier.packed.losses import cross_entropy
from hpo.trainers.classifier.packed.network import PackedNetwork
from hpo.trainers.classifier.packed.optimizers import PACKED_OPTIMIZERS, add_l1, norms
from hpo.trainers.classifier.packed.shape import ROWS
from hpo.trainers.classifier.packed.slot import Slot
from hpo.trainers.classifier.packed.tables import HYPER, Tables
from hpo.trainers.classifier.precision import choose_precision, set_determinism
from hpo.trainers.classifier.training import new_network, num_parameters
from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import EpochEnd, Run, State


@dataclass(frozen=True)
class StepFeatures:
    """Which parts of a step any of its slots needs; a CPU leaves out the others."""

    dropout: bool = True
    smoothing: bool = True
    weight_decay: bool = True
    l1: bool = True


class Pack:
    """Up to ``capacity`` trials of one template (`packed.shape`); it grows, to at most ``limit``, when more come.

    On a CPU an MLP gives the same bits in any company (convolutions do not): an exported configuration relies on it.
    Therefore products in single and double precision use one of ``threads`` (MKL cuts a batch of them among threads by
    its size, 1.1 to 1.6 times as fast with two; as many workers as cores are faster than both); those in bfloat16 do
    not depend on it.

    Raises:
        TrainerError: where the data does not fit.
    """

    def __init__(
        self,
        template: ClassifierConfig,
        capacity: int,
        run: Run,
        *,
        threads: int,
        limit: int | None = None,
        static: bool | None = None,
    ) -> None:
        self.template, self.run, self.limit = template, run, limit
        self.device = torch.device(run.device)
        self.static = self.device.type == "cuda" if static is None else static
        set_determinism(template.deterministic, run.device)
        self.precision = choose_precision(template, run.device)
        self.threads = 1 if self.precision.autocast is None and self.device.type == "cpu" else max(1, threads)
        self.train = self._split("train")
        self.slots: list[Slot] = []
        self.unsafe = False
        self.host_seconds = 0.0  # spent on what epochs begin with
        self._allocate(capacity)

    # Slots.

    @property
    def active(self) -> list[Slot]:
        """The slots whose trials go on."""
        return [slot for slot in self.slots if not slot.ended]

    def add(self, key: Hashable, config: ClassifierConfig, run: Run) -> None:
        """Puts a trial into a free slot, growing where there is none.

        Raises:
            TrainerError: where the checkpoint is missing or of another configuration.
        """
        network = new_network(config, run.seed, "cpu", self.precision)
        if run.start_epoch:
            if run.checkpoint is None:
                raise TrainerError(f"cannot start at epoch {run.start_epoch}: there is no checkpoint")
            network.load_state_dict(run.checkpoint["network"])
        ended = next((slot for slot in self.slots if slot.ended), None)
        position = len(self.slots) if ended is None else ended.position
        if position == self.capacity:
            self._grow(2 * self.capacity if self.limit is None else min(2 * self.capacity, self.limit))
        slot = Slot(key, config, run, position, len(self.train))
        self.network.load(position, network)
        self.optimizer.clear(position)
        if run.start_epoch and run.checkpoint is not None:
            self.optimizer.load(position, run.checkpoint["optimizer"])
        self.tables.fill(slot)
        if ended is None:
            self.slots.append(slot)
        else:
            self.slots[position] = slot
            self.masks.forget(ended)
        self._changed()

    def remove(self, key: Hashable) -> None:
        """Frees a trial's slot; its weights stay until the next :meth:`add` or :meth:`advance`."""
        for slot in self.slots:
            slot.ended |= slot.key == key

    def _compact(self) -> None:
        """Moves the last trials into vacated slots, so that the trials occupy the first ones."""
        if not any(slot.ended for slot in self.slots):
            return
        while any(slot.ended for slot in self.slots):
            last = self.slots.pop()
            if last.ended:
                self.masks.forget(last)
                continue
            hole = next(slot for slot in self.slots if slot.ended)
            self.masks.forget(hole)
            for stack in self._stacks():
                stack[hole.position] = stack[last.position]
            last.position = hole.position
            self.slots[hole.position] = last
        self._changed()

    # Training.

    def advance(self, most_steps: int) -> list[EpochEnd]:
        """Up to ``most_steps`` updates of every trial, fewer where one ends its epoch; the epochs that ended."""
        self._compact()
        if not self.slots:
            return []
        torch.set_num_threads(self.threads)
        began = time.perf_counter()
        for slot in self.slots:
            if not slot.begun:
                slot.begun, slot.step, slot.started = True, 0, time.perf_counter()
                self.tables.begin(slot)
                self.masks.begin(slot)
        self.host_seconds += time.perf_counter() - began
        self._steps(min(most_steps, *(slot.remaining for slot in self.slots)))
        ended = [slot for slot in self.slots if slot.remaining == 0]
        return self._end_epochs(ended) if ended else []

    def _steps(self, count: int) -> None:
        largest = max(slot.config.batch_size for slot in self.slots)
        num_slots, batch = len(self.slots), -(-largest // ROWS) * ROWS
        same_size = all(slot.config.batch_size == batch for slot in self.slots)
        num_full = min(slot.num_full for slot in self.slots) if same_size else 0
        strides = {(slot.step, slot.stride) for slot in self.slots}
        dropping = [slot for slot in self.slots if slot.config.dropout]
        for ahead in range(count):
            for slot in dropping:
                self.masks.draw(slot, ahead)
            if self._captured is not None:
                # An error of the device shows at the next wait for it; until then the weights are in doubt.
                self.unsafe = True
                self._captured.replay()
                self.unsafe = False
            else:
                with_norms = any((step + ahead) % stride == 0 for step, stride in strides)
                self._step(num_slots, batch, masked=ahead >= num_full, with_norms=with_norms)
        for slot in self.slots:
            slot.step += count

    def _step(self, num_slots: int, batch: int, *, masked: bool, with_norms: bool) -> None:
        """One update of the first slots: gather, forward, loss, backward, update; nothing comes back to the host."""
        features, tables = self._features, self.tables
        parameters, buffers = self._views(num_slots)
        index, valid, crops = tables.rows(num_slots, batch, masked=masked)
        state = ForwardState(parameters, buffers, training=True)
        if valid is not None:
            state.valid = valid.to(self.precision.weights)
            state.counts = state.valid.sum(1).clamp_(min=1)
        if features.dropout:
            state.masks = self.masks.first(num_slots, batch)
        x = self.network.gather(self.x, index, crops)
        y = self.train.y.index_select(0, index.view(-1)).view(index.shape)
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

    # Epochs.

    def _end_epochs(self, ended: Sequence[Slot]) -> list[EpochEnd]:
        losses, grad_norms = self.tables.loss_sum.tolist(), self.tables.norm_sum.tolist()
        metrics: list[dict[str, float]] = []
        for slot in ended:
            at, images = slot.position, min(slot.num_images, slot.num_steps * slot.config.batch_size)
            metrics.append(
                {"train_loss": losses[at] / images, "lr": slot.last_lr, "grad_norm": grad_norms[at] / slot.num_norms}
            )
            slot.epochs_done += 1
            slot.begun = False
        parts: dict[Part, tuple[str, list[int]]] = {
            "train": ("train_set", [i for i, slot in enumerate(ended) if slot.config.evaluate_train]),
            "val": ("val", list(range(len(ended)))),
            "test": ("test", [i for i, slot in enumerate(ended) if self._is_tested(slot)]),
        }
        for part, (name, chosen) in parts.items():
            if chosen:
                results = evaluate_slots(self.network, [ended[i].position for i in chosen], self._split(part))
                for i, (loss, accuracy) in zip(chosen, results, strict=True):
                    metrics[i] |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
        events = []
        copies = HostCopies(self.network, self.optimizer, [slot.position for slot in ended])
        for slot, values in zip(ended, metrics, strict=True):
            values["seconds"] = time.perf_counter() - slot.started
            values["seconds_per_epoch"] = values["seconds"] / max(1, len(self.slots))
            values["num_parameters"] = float(num_parameters(slot.network))
            slot.ended = slot.finished
            events.append(
                EpochEnd(
                    slot.key,
                    slot.epochs_done,
                    values,
                    slot.finished,
                    snapshot=partial(self.snapshot, slot),
                    capture=partial(self._capture, slot, copies),
                )
            )
        return events

    @staticmethod
    def _is_tested(slot: Slot) -> bool:
        return slot.run.test == "each" or (slot.run.test == "last" and slot.finished)

    def snapshot(self, slot: Slot) -> State:
        """What `training.Training.snapshot` gives for the same trial; either resumes the other's."""
        network, steps = slot.network, slot.epochs_done * slot.num_steps
        shapes = [parameter.shape for parameter in network.parameters()]
        return {
            "epoch": slot.epochs_done,
            "network": self.network.state_dict(slot.position, network, steps),
            "optimizer": self.optimizer.export(slot.position, shapes, steps, slot.config.beta),
        }

    @staticmethod
    def _capture(slot: Slot, copies: HostCopies) -> Callable[[], State]:
        """:meth:`snapshot` of copies that all trials of this epoch's end share."""
        steps = slot.epochs_done * slot.num_steps
        copies.make()
        return partial(copies.state, slot.position, slot.network, slot.epochs_done, steps, slot.config.beta)

    # Memory.

    def _split(self, part: Part) -> Split:
        run = self.run
        return load_split(
            self.template,
            part,
            device=run.device,
            dtype=self.precision.data,
            data_dir=run.data_dir,
            download=run.download,
        )

    def _allocate(self, capacity: int) -> None:
        self.capacity = capacity
        self.network = PackedNetwork(self.template, capacity, self.run.device, self.precision)
        config, dtype = self.template, self.precision.weights
        layers, parameters = self.network.direct_layers, self.network.parameters
        self._direct = None if layers is None else DirectStep(layers, parameters, self.precision)
        self.optimizer = PACKED_OPTIMIZERS[config.optimizer](self.network.parameters, config)
        self.tables = Tables(capacity, len(self.train), self.device, dtype, augment=config.augment, static=self.static)
        widths, active = self.network.dropout_widths, self.precision.autocast or dtype
        self.masks = DropoutMasks(widths, capacity, config.batch_size, self.device, active)
        self.x = self.train.x.flatten(1) if self.network.is_features and not config.augment else self.train.x
        self._features = StepFeatures()
        self._viewed: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self._captured: CapturedStep | None = None
        if self.static:
            step = partial(self._step, capacity, config.batch_size, masked=True, with_norms=True)
            self._captured = capture(step, self._stacks(), self.device)

    def _grow(self, capacity: int) -> None:
        before = self.__dict__.copy()
        old, slots, masks = self._stacks(), len(self.slots), self.masks
        try:
            self._allocate(capacity)
        except BaseException:
            self.__dict__.update(before)
            raise
        self._refill([stack[:slots] for stack in old], masks)

    def shrink(self) -> None:
        """Gives back the memory of slots that hold no trial, by way of the host: there may be none left here."""
        self._compact()
        if len(self.slots) == self.capacity or not self.slots:
            return
        kept, masks = [stack[: len(self.slots)].detach().cpu() for stack in self._stacks()], self.masks
        del self.network, self.optimizer, self.tables, self.masks, self._viewed, self._captured, self._direct
        self._allocate(len(self.slots))
        self._refill(kept, masks)

    def _refill(self, kept: Sequence[Tensor], masks: DropoutMasks) -> None:
        for new, stack in zip(self._stacks(), kept, strict=True):
            new[: len(self.slots)] = stack
        self.masks.adopt(masks)
        self._changed()

    def _stacks(self) -> list[Tensor]:
        """Every tensor with a leading dimension for the slot."""
        steps = [] if self.optimizer.steps is None else [self.optimizer.steps]
        memory = [value for values in self.optimizer.memory for value in values.values()]
        return [
            *(*self.network.parameters, *self.network.buffers, *memory, *steps),
            *(*self.tables.stacked(), *self.masks.tensors),
        ]

    def _views(self, num_slots: int) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters, as leaves that a gradient is asked for, and buffers of the first slots."""
        if num_slots not in self._viewed:
            parameters = [stack[:num_slots].requires_grad_() for stack in self.network.parameters]
            self._viewed[num_slots] = (parameters, [stack[:num_slots] for stack in self.network.buffers])
        return self._viewed[num_slots]

    def _changed(self) -> None:
        """After a change of the trials: what a step has to compute."""
        if self.static:
            return
        configs = [slot.config for slot in self.slots]
        self._features = StepFeatures(
            dropout=any(config.dropout for config in configs),
            smoothing=any(config.label_smoothing for config in configs),
            weight_decay=any(config.weight_decay for config in configs),
            l1=any(config.l1 for config in configs),
        )
