"""The trainer protocol over packs: as many trials as ``capacity``, each in the pack that wastes least for it.

Trials that cannot share a pack (another optimizer, another network) are in another one; the packs take turns, each
with a share of the time that its number of trials asks for, so none starves. Trials that cannot be packed at all are
trained one after the other, as another member of the round.
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
class Member:
    """A pack, or the one-at-a-time trainer (``pack`` is None), and the device time that it has had for each trial."""

    pack: Pack | None
    spent: float


class PackedTrainer:
    """Up to ``slots`` configurations at a time.

    Raises:
        TrainerError: where ``slots`` is below 1 or above what the memory holds.
    """

    def __init__(self, options: BuildOptions, slots: int) -> None:
        check_slots(options, slots)
        self.capacity = slots
        self.options = options
        self._device_type = torch.device(options.device).type
        self._most_waste = WASTE.get(self._device_type, math.inf)
        self._waiting: list[tuple[Hashable, ClassifierConfig, Run]] = []
        self._alone: list[tuple[Hashable, ClassifierConfig, Run]] = []
        self._alone_key: Hashable = None
        self._members: list[Member] = []
        self._where: dict[Hashable, Member | None] = {}
        self._single = ClassifierTrainer(options)
        self._reasons: set[str] = set()

    # The protocol.

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        if len(self._where) >= self.capacity:
            raise RuntimeError("all slots are taken")
        self._where[key] = None
        self._waiting.append((key, config, run))

    def advance(self) -> list[Event]:
        events: list[Event] = []
        while self._where and not events:
            events += self.place()
            self._members = [member for member in self._members if self._num_trials(member)]
            if not self._members:
                break
            member = min(self._members, key=lambda member: member.spent)
            started = time.perf_counter()
            trials = self._num_trials(member)
            events += self._turn(member)
            member.spent += (time.perf_counter() - started) / trials
        for event in events:
            if not isinstance(event, EpochEnd) or event.finished:
                self._where.pop(event.key, None)
        return events

    def stop(self, key: Hashable) -> None:
        self._waiting = [trial for trial in self._waiting if trial[0] != key]
        self._alone = [trial for trial in self._alone if trial[0] != key]
        if key in self._where and key == self._alone_key:
            self._single.stop(key)
            self._alone_key = None
        member = self._where.pop(key, None)
        if member is not None and member.pack is not None:
            member.pack.remove(key)

    # Where trials are.

    @property
    def packs(self) -> list[Pack]:
        """The packs that hold trials."""
        return [member.pack for member in self._members if member.pack is not None]

    def _num_trials(self, member: Member) -> int:
        return sum(place is member for place in self._where.values())

    def place(self) -> list[Event]:
        """Gives every waiting trial its member; the trials that cannot be placed have failed or leave."""
        events: list[Event] = []
        waiting, self._waiting = self._waiting, []
        for number, (key, config, run) in enumerate(waiting):
            try:
                self._where[key] = self._member_for(key, config, run)
            except Exception as error:
                if is_out_of_memory(error):
                    self._waiting = waiting[number + 1 :]
                    return [*events, *self._make_room(None, key, error)]
                events.append(Failed(key, error))
        return events

    def _member_for(self, key: Hashable, config: ClassifierConfig, run: Run) -> Member:
        reason = shape.why_not(config)
        if reason is not None:
            self._say_once(f"{reason}: such trials train one at a time")
            self._alone.append((key, config, run))
            return next((m for m in self._members if m.pack is None), None) or self._new_member(None)
        fitting = [m for m in self._members if m.pack is not None and shape.holds(m.pack.template, config)]
        fitting = [m for m in fitting if m.pack is not None and self._is_cheap(m.pack.template, config)]
        if fitting:
            member = min(fitting, key=lambda m: shape.cost(m.pack.template) if m.pack is not None else 0)
        else:
            member = self._new_member(self._new_pack(config, run))
        assert member.pack is not None
        member.pack.add(key, config, run)
        return member

    def _new_pack(self, config: ClassifierConfig, run: Run) -> Pack:
        """A pack for all that the study may bring, or, where that would cost too much, for trials of this size."""
        alike = tuple(other for other in self.options.configs if shape.agreed(other) == shape.agreed(config))
        template = shape.padded(config, alike)
        if not self._is_cheap(template, config):
            template = shape.padded(config)
        if self._device_type == "cpu":
            return Pack(template, min(self.capacity, 4), run, threads=self.options.threads)
        # Growing would capture the step again.
        kinds = {shape.agreed(other) for other in self.options.configs if shape.why_not(other) is None}
        capacity = max(1, self.capacity // max(1, len(kinds)))
        return Pack(template, capacity, run, threads=self.options.threads)

    def _is_cheap(self, template: ClassifierConfig, config: ClassifierConfig) -> bool:
        """Whether a pack of this template wastes little on a configuration."""
        own = shape.cost(config)
        return shape.cost(template) <= max(self._most_waste * own, own + ALLOWANCE)

    def _new_member(self, pack: Pack | None) -> Member:
        member = Member(pack, min((m.spent for m in self._members), default=0.0))
        self._members.append(member)
        if len(self._members) > 4 and len(self._members) > len(self._where) // 4:
            self._say_once(
                "the search space splits the trials into many small packs (trials of one pack share network, optimizer "
                "and normalization, and are of similar size), so packing gains less"
            )
        return member

    # One turn.

    def _turn(self, member: Member) -> list[Event]:
        if member.pack is None:
            return self._turn_alone()
        try:
            return list(member.pack.advance(TURN_STEPS if len(self._members) > 1 else 1 << 30))
        except Exception as error:
            if is_out_of_memory(error):
                return self._make_room(member, None, error)
            failed: list[Event] = [Failed(key, error) for key, place in self._where.items() if place is member]
            self._members.remove(member)
            return failed

    def _turn_alone(self) -> list[Event]:
        if self._alone_key is None:
            self._alone_key, config, run = self._alone.pop(0)
            self._single.start(self._alone_key, config, run)
        torch.set_num_threads(max(1, self.options.threads))
        events = self._single.advance()
        for event in events:
            if not isinstance(event, EpochEnd) or event.finished:
                self._alone_key = None
        return events

    # Memory.

    def _make_room(self, member: Member | None, key: Hashable, error: Exception) -> list[Event]:
        """Halves the capacity and gives up the trials that are too many, those that have trained least first.

        ``member`` ran out of memory while training, or the trial ``key`` while it was placed. A trial that is alone
        and still too large has failed.
        """
        error.__traceback__ = None
        held = list(self._where)
        if len(held) == 1:
            self._members = []
            return [Failed(held[0], error)]
        self.capacity = max(1, min(self.capacity // 2, len(held) - 1))
        leaving: list[Hashable] = [] if member is None else self._lost(member)
        if member is None:
            leaving.append(key)
        leaving += [trial[0] for trial in self._waiting if trial[0] not in leaving]
        trained = [k for k in reversed(held) if k not in leaving]
        leaving += trained[: max(0, len(held) - self.capacity - len(leaving))]
        log.warning("out of memory: from now on %d trials at a time; %d go back", self.capacity, len(leaving))
        for other in leaving:
            self.stop(other)
        for kept in [m for m in self._members if self._num_trials(m)]:
            if kept.pack is not None:
                kept.pack.shrink()
        if self._device_type == "cuda":
            torch.cuda.empty_cache()
        reason = f"out of memory with {len(held)} trials at a time"
        return [Evicted(other, reason) for other in leaving]

    def _lost(self, member: Member) -> list[Hashable]:
        """The trials whose weights are in doubt: all of a pack that broke off within an update."""
        if member.pack is None or not member.pack.unsafe:
            return []
        self._members.remove(member)
        return [key for key, place in self._where.items() if place is member]

    def _say_once(self, text: str) -> None:
        if text not in self._reasons:
            self._reasons.add(text)
            log.info("%s", text)
