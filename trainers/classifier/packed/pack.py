"""A pack: trials that one batched computation trains together, each with its own data order, position and epoch end.

The trials occupy the first slots. A dynamic pack, the default on a CPU, computes just those in each step. A static
pack, the default on a GPU, computes all slots in a step that was captured when the pack was made (`graph`), so that a
refill changes numbers and never shapes.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.data import Split, load_split
from hpo.trainers.classifier.datasets import Part
from hpo.trainers.classifier.packed.dropout import DropoutMasks
from hpo.trainers.classifier.packed.host_copies import HostCopies
from hpo.trainers.classifier.packed.slot import Slot
from hpo.trainers.classifier.packed.step import PackedStep, StepFeatures
from hpo.trainers.classifier.precision import choose_precision, set_determinism
from hpo.trainers.classifier.training import new_network, num_parameters
from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import EpochEnd, Run, State


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
        self.host_seconds = 0.0  # spent on what epochs begin with
        self.step = self._new_step(capacity)

    @property
    def capacity(self) -> int:
        """The number of slots."""
        return self.step.capacity

    @property
    def unsafe(self) -> bool:
        """Whether a step broke off half way: the weights are in doubt."""
        return self.step.unsafe

    # Slots.

    @property
    def active(self) -> list[Slot]:
        """The slots whose trials go on."""
        return [slot for slot in self.slots if not slot.ended]

    def add(self, key: Hashable, config: ClassifierConfig, run: Run, network: nn.Module | None = None) -> None:
        """Puts a trial into a free slot, growing where there is none; ``network``: with its initial weights, if made.

        Raises:
            TrainerError: where the checkpoint is missing or of another configuration.
        """
        if network is None:
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
        self.step.network.load(position, network)
        self.step.optimizer.clear(position)
        if run.start_epoch and run.checkpoint is not None:
            self.step.optimizer.load(position, run.checkpoint["optimizer"])
        self.step.tables.fill(slot)
        if ended is None:
            self.slots.append(slot)
        else:
            self.slots[position] = slot
            self.step.masks.forget(ended)
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
                self.step.masks.forget(last)
                continue
            hole = next(slot for slot in self.slots if slot.ended)
            self.step.masks.forget(hole)
            for stack in self.step.stacks():
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
                self.step.tables.begin(slot)
                self.step.masks.begin(slot)
        self.host_seconds += time.perf_counter() - began
        self.step.run(self.slots, min(most_steps, *(slot.remaining for slot in self.slots)))
        ended = [slot for slot in self.slots if slot.remaining == 0]
        return self._end_epochs(ended) if ended else []

    # Epochs.

    def _end_epochs(self, ended: Sequence[Slot]) -> list[EpochEnd]:
        losses, grad_norms = self.step.tables.loss_sum.tolist(), self.step.tables.norm_sum.tolist()
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
                results = self.step.evaluate(part, self._split(part), [ended[i].position for i in chosen])
                for i, (loss, accuracy) in zip(chosen, results, strict=True):
                    metrics[i] |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
        events = []
        copies = HostCopies(self.step.network, self.step.optimizer, [slot.position for slot in ended])
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
                    model=partial(self.weights, slot),
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
            "network": self.step.network.state_dict(slot.position, network, steps),
            "optimizer": self.step.optimizer.export(slot.position, shapes, steps, slot.config.beta),
        }

    def weights(self, slot: Slot) -> State:
        """A copy of the slot's ``state_dict`` on the CPU, as `training.Training.weights` gives it."""
        named = self.step.network.state_dict(slot.position, slot.network, slot.epochs_done * slot.num_steps)
        return {name: value.detach().to("cpu", copy=True) for name, value in named.items()}

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

    def _new_step(self, capacity: int) -> PackedStep:
        return PackedStep(self.template, capacity, self.train, self.run.device, self.precision, static=self.static)

    def _grow(self, capacity: int) -> None:
        step, before = self._new_step(capacity), self.step
        self.step = step
        self._refill([stack[: len(self.slots)] for stack in before.stacks()], before.masks)

    def shrink(self) -> None:
        """Gives back the memory of slots that hold no trial, by way of the host: there may be none left here."""
        self._compact()
        if len(self.slots) == self.capacity or not self.slots:
            return
        kept, masks = [stack[: len(self.slots)].detach().cpu() for stack in self.step.stacks()], self.step.masks
        del self.step
        self.step = self._new_step(len(self.slots))
        self._refill(kept, masks)

    def _refill(self, kept: Sequence[Tensor], masks: DropoutMasks) -> None:
        for new, stack in zip(self.step.stacks(), kept, strict=True):
            new[: len(self.slots)] = stack
        self.step.masks.adopt(masks)
        self._changed()

    def _changed(self) -> None:
        """After a change of the trials: what a step has to compute."""
        if not self.static:
            self.step.features = StepFeatures.of([slot.config for slot in self.slots])
