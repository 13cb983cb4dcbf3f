"""The trainer protocol over packs: as many trials as ``capacity``, each in the pack that wastes least for it.

Trials that cannot share a pack (another optimizer, another network) are in another one; the packs take turns, each
with a share of the time that its number of trials asks for, so none starves. Trials that cannot be packed at all are
trained one after the other, as another part of the round.
"""

import logging
import math
import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.packed import shape
from hpo.trainers.classifier.packed.memory import check_slots, is_out_of_memory
from hpo.trainers.classifier.packed.pack import Pack
from hpo.trainers.classifier.training import ClassifierTrainer
from hpo.trainers.protocol import BuildOptions, EpochEnd, Event, Evicted, Failed, Run

log = logging.getLogger("hpo")

TURN_STEPS = 64
"""Most steps of a pack before another one has its turn."""

WASTE = {"cpu": 2.0}
"""How many times a trial's own arithmetic its pack's padding may make of it. Unlimited elsewhere: a GPU that waits for
launches computes the padding for nothing."""

ALLOWANCE = 500_000
"""Padding, in `packed.shape.cost`, that costs a CPU less than one more pack does. Measured on small MLPs of
mixed sizes, 64 slots: 139 trial-epochs a second at 0, 174 at 250,000, 315 at 500,000."""


@dataclass
class PackOrSingle:
    """A pack, or the one-at-a-time trainer (``pack`` is None), and the device time that it has had for each trial."""

    pack: Pack | None
    spent: float


class PackedTrainer:
    """Up to ``slots`` configurations at a time. ``static`` packs compute all their slots in captured steps (`pack`).

    Raises:
        TrainerError: where ``slots`` is below 1 or above what the memory holds.
    """

    def __init__(self, options: BuildOptions, slots: int, *, static: bool | None = None) -> None:
        check_slots(options, slots)
        self.capacity = slots
        self.options = options
        self._static = static
        self._device_type = torch.device(options.device).type
        self._most_waste = WASTE.get(self._device_type, math.inf)
        self._waiting: list[tuple[Hashable, ClassifierConfig, Run]] = []
        self._unpackable: list[tuple[Hashable, ClassifierConfig, Run]] = []
        self._single_key: Hashable = None
        self._parts: list[PackOrSingle] = []
        self._placed: dict[Hashable, PackOrSingle | None] = {}
        self._single = ClassifierTrainer(options)
        self._reasons: set[str] = set()

    # The protocol.

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        if len(self._placed) >= self.capacity:
            raise RuntimeError("all slots are taken")
        self._placed[key] = None
        self._waiting.append((key, config, run))

    def advance(self) -> list[Event]:
        events: list[Event] = []
        while self._placed and not events:
            events += self.place()
            self._parts = [part for part in self._parts if self._num_trials(part)]
            if not self._parts:
                break
            part = min(self._parts, key=lambda part: part.spent)
            started = time.perf_counter()
            trials = self._num_trials(part)
            events += self._turn(part)
            part.spent += (time.perf_counter() - started) / trials
        for event in events:
            if not isinstance(event, EpochEnd) or event.finished:
                self._placed.pop(event.key, None)
        return events

    def stop(self, key: Hashable) -> None:
        self._waiting = [trial for trial in self._waiting if trial[0] != key]
        self._unpackable = [trial for trial in self._unpackable if trial[0] != key]
        if key in self._placed and key == self._single_key:
            self._single.stop(key)
            self._single_key = None
        part = self._placed.pop(key, None)
        if part is not None and part.pack is not None:
            part.pack.remove(key)

    # Where trials are.

    @property
    def packs(self) -> list[Pack]:
        """The packs that hold trials."""
        return [part.pack for part in self._parts if part.pack is not None]

    def _num_trials(self, part: PackOrSingle) -> int:
        return sum(place is part for place in self._placed.values())

    def place(self) -> list[Event]:
        """Gives every waiting trial its part; the trials that cannot be placed have failed or leave."""
        events: list[Event] = []
        waiting, self._waiting = self._waiting, []
        for number, (key, config, run) in enumerate(waiting):
            try:
                self._placed[key] = self._part_for(key, config, run)
            except Exception as error:
                if is_out_of_memory(error):
                    self._waiting = waiting[number + 1 :]
                    return [*events, *self._make_room(None, key, error)]
                events.append(Failed(key, error))
        return events

    def _part_for(self, key: Hashable, config: ClassifierConfig, run: Run) -> PackOrSingle:
        reason = shape.why_not(config)
        if reason is not None:
            self._say_once(f"{reason}: such trials train one at a time")
            self._unpackable.append((key, config, run))
            return next((m for m in self._parts if m.pack is None), None) or self._new_part(None)
        fitting = [m for m in self._parts if m.pack is not None and shape.holds(m.pack.template, config)]
        fitting = [m for m in fitting if m.pack is not None and self._is_cheap(m.pack.template, config)]
        if fitting:
            part = min(fitting, key=lambda m: shape.cost(m.pack.template) if m.pack is not None else 0)
        else:
            part = self._new_part(self._new_pack(config, run))
        assert part.pack is not None
        part.pack.add(key, config, run)
        return part

    def _new_pack(self, config: ClassifierConfig, run: Run) -> Pack:
        """A pack for all that the study may bring, or, where that would cost too much, for trials of this size."""
        alike = tuple(other for other in self.options.configs if shape.agreed(other) == shape.agreed(config))
        template = shape.padded(config, alike)
        if not self._is_cheap(template, config):
            template = shape.padded(config)
        threads, static = self.options.threads, self._static
        if not (self._device_type == "cuda" if static is None else static):
            capacity = min(self.capacity, 4)
            return Pack(template, capacity, run, threads=threads, limit=self.capacity, static=static)
        # Growing would capture the step again.
        kinds = {shape.agreed(other) for other in self.options.configs if shape.why_not(other) is None}
        capacity = max(1, self.capacity // max(1, len(kinds)))
        return Pack(template, capacity, run, threads=threads, limit=self.capacity, static=static)

    def _is_cheap(self, template: ClassifierConfig, config: ClassifierConfig) -> bool:
        """Whether a pack of this template wastes little on a configuration."""
        own = shape.cost(config)
        return shape.cost(template) <= max(self._most_waste * own, own + ALLOWANCE)

    def _new_part(self, pack: Pack | None) -> PackOrSingle:
        part = PackOrSingle(pack, min((m.spent for m in self._parts), default=0.0))
        self._parts.append(part)
        if len(self._parts) > 4 and len(self._parts) > len(self._placed) // 4:
            self._say_once(
                "the search space splits the trials into many small packs (trials of one pack share network, optimizer "
                "and normalization, and are of similar size), so packing gains less"
            )
        return part

    # One turn.

    def _turn(self, part: PackOrSingle) -> list[Event]:
        if part.pack is None:
            return self._turn_single()
        try:
            return list(part.pack.advance(TURN_STEPS if len(self._parts) > 1 else 1 << 30))
        except Exception as error:
            if is_out_of_memory(error):
                return self._make_room(part, None, error)
            failed: list[Event] = [Failed(key, error) for key, place in self._placed.items() if place is part]
            self._parts.remove(part)
            return failed

    def _turn_single(self) -> list[Event]:
        if self._single_key is None:
            self._single_key, config, run = self._unpackable.pop(0)
            self._single.start(self._single_key, config, run)
        torch.set_num_threads(max(1, self.options.threads))
        events = self._single.advance()
        for event in events:
            if not isinstance(event, EpochEnd) or event.finished:
                self._single_key = None
        return events

    # Memory.

    def _make_room(self, part: PackOrSingle | None, key: Hashable, error: Exception) -> list[Event]:
        """Halves the capacity and gives up the trials that are too many, those that have trained least first.

        ``part`` ran out of memory while training, or the trial ``key`` while it was placed. A trial that is alone
        and still too large has failed.
        """
        error.__traceback__ = None
        held = list(self._placed)
        if len(held) == 1:
            self._parts = []
            return [Failed(held[0], error)]
        self.capacity = max(1, min(self.capacity // 2, len(held) - 1))
        given_up: list[Hashable] = [] if part is None else self._lost(part)
        if part is None:
            given_up.append(key)
        given_up += [trial[0] for trial in self._waiting if trial[0] not in given_up]
        trained = [k for k in reversed(held) if k not in given_up]
        given_up += trained[: max(0, len(held) - self.capacity - len(given_up))]
        log.warning("out of memory: from now on %d trials at a time; %d go back", self.capacity, len(given_up))
        for other in given_up:
            self.stop(other)
        for kept in [m for m in self._parts if self._num_trials(m)]:
            if kept.pack is not None:
                kept.pack.shrink()
        if self._device_type == "cuda":
            torch.cuda.empty_cache()
        reason = f"out of memory with {len(held)} trials at a time"
        return [Evicted(other, reason) for other in given_up]

    def _lost(self, part: PackOrSingle) -> list[Hashable]:
        """The trials whose weights are in doubt: all of a pack that broke off within an update."""
        if part.pack is None or not part.pack.unsafe:
            return []
        self._parts.remove(part)
        return [key for key, place in self._placed.items() if place is part]

    def _say_once(self, text: str) -> None:
        if text not in self._reasons:
            self._reasons.add(text)
            log.info("%s", text)
