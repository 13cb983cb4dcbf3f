"""The trainer protocol over packs: as many trials as ``capacity``, each in the pack that wastes least for it.

Trials that cannot share a pack (another optimizer, another network) are in another one; the packs take turns, each
with a share of the time that its number of trials asks for, so none starves. Trials that cannot be packed at all are
trained one after the other, as another part of the round. On a CPU a pack in single precision uses one thread, so as
many packs as there are threads have their turn side by side.
"""

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.packed import placing, shape
from hpo.trainers.classifier.packed.ahead import Ahead, initial_network
from hpo.trainers.classifier.packed.memory import check_slots, is_out_of_memory
from hpo.trainers.classifier.packed.pack import Pack
from hpo.trainers.classifier.training import ClassifierTrainer
from hpo.trainers.protocol import BuildOptions, EpochEnd, Event, Evicted, Failed, Run

log = logging.getLogger("hpo")

TURN_STEPS = 64
"""Most steps of a pack before another one has its turn."""

IDLE_PACKS = 4
"""Static packs without a trial that are kept for the next trial of their kind: a capture takes longer than an epoch."""


@dataclass
class PackOrSingle:
    """A pack, or the one-at-a-time trainer (``pack`` is None), and the device time of each of its trials."""

    pack: Pack | None
    spent: float
    trials: int = 0


Waiting = tuple[Hashable, ClassifierConfig, Run]


class PackedTrainer:
    """Up to ``slots`` configurations at a time. ``static`` packs compute all their slots in captured steps (`pack`).

    ``host_seconds``: how long trials and epochs have been prepared, and nothing computed.

    Raises:
        TrainerError: where ``slots`` is below 1 or above what the memory holds.
    """

    def __init__(self, options: BuildOptions, slots: int, *, static: bool | None = None) -> None:
        check_slots(options, slots)
        self.capacity = slots
        self.options = options
        self._static = static
        self._device_type = torch.device(options.device).type
        self._is_static = self._device_type == "cuda" if static is None else static
        self._waiting: list[Waiting] = []
        self._unpackable: list[Waiting] = []
        self._single_key: Hashable = None
        self._parts: list[PackOrSingle] = []
        self._placed: dict[Hashable, PackOrSingle | None] = {}
        self._single = ClassifierTrainer(options)
        self._reasons: set[str] = set()
        self._threads: ThreadPoolExecutor | None = None
        self.host_seconds = 0.0
        self.is_wanted: Callable[[], bool] = lambda: False
        self._networks = Ahead[nn.Module](2 * slots)

    # Ahead of need: `protocol.WorksAhead`.

    def prepare(self, config: Any, seed: int) -> None:
        """Has the initial weights of a trial made that will start soon."""
        if shape.why_not(config) is None:
            self._networks.prepare((config, seed), partial(initial_network, config, seed, self.options.device))

    # The protocol.

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        if len(self._placed) >= self.capacity:
            raise RuntimeError("all slots are taken")
        self._placed[key] = None
        self._waiting.append((key, config, run))

    def advance(self) -> list[Event]:
        events: list[Event] = []
        while self._placed and not events:
            began = time.perf_counter()
            events += self.place()
            self.host_seconds += time.perf_counter() - began
            self._drop_empty()
            if not self._busy_parts():
                break
            events += self._turns(self._next_parts())
            if self.is_wanted():
                break
        for event in events:
            if not isinstance(event, EpochEnd) or event.finished:
                self._take_out(event.key)
        return events

    def stop(self, key: Hashable) -> None:
        self._waiting = [trial for trial in self._waiting if trial[0] != key]
        self._unpackable = [trial for trial in self._unpackable if trial[0] != key]
        if key in self._placed and key == self._single_key:
            self._single.stop(key)
            self._single_key = None
        part = self._take_out(key)
        if part is not None and part.pack is not None:
            part.pack.remove(key)

    def _take_out(self, key: Hashable) -> PackOrSingle | None:
        part = self._placed.pop(key, None)
        if part is not None:
            part.trials -= 1
        return part

    def _busy_parts(self) -> list[PackOrSingle]:
        return [part for part in self._parts if part.trials]

    def _drop_empty(self) -> None:
        """Drops the parts without trials; of static packs all but the newest ones."""
        idle = [part for part in self._parts if not part.trials and part.pack is not None and self._is_static]
        kept = idle[-IDLE_PACKS:]
        self._parts = [part for part in self._parts if part.trials or part in kept]

    # Where trials are.

    @property
    def packs(self) -> list[Pack]:
        """The packs that hold trials."""
        return [part.pack for part in self._busy_parts() if part.pack is not None]

    def place(self) -> list[Event]:
        """Gives every waiting trial its part; the trials that cannot be placed have failed or leave."""
        events: list[Event] = []
        waiting, self._waiting = self._waiting, []
        templates = {} if self._is_static else self._templates(waiting)
        for number, (key, config, run) in enumerate(waiting):
            try:
                part = self._part_for(key, config, run, templates.get(key))
                if not part.trials:  # what it has not used while it was empty is no claim to turns
                    part.spent = max(part.spent, min((m.spent for m in self._busy_parts()), default=0.0))
                self._placed[key] = part
                part.trials += 1
            except Exception as error:
                if is_out_of_memory(error):
                    self._waiting = waiting[number + 1 :]
                    return [*events, *self._make_room(None, key, error)]
                events.append(Failed(key, error))
        return events

    def _templates(self, waiting: Sequence[Waiting]) -> dict[Hashable, ClassifierConfig]:
        """The template of a new pack for each trial that no pack is good enough for."""
        new = [
            (key, config)
            for key, config, run in waiting
            if shape.why_not(config) is None and run.observe is None and not self._fitting(config, least=config)
        ]
        groups = placing.groups([config for _, config in new])
        return {new[index][0]: group.template for group in groups for index in group.members}

    def _fitting(self, config: ClassifierConfig, least: ClassifierConfig | None) -> list[PackOrSingle]:
        """The parts whose packs hold a configuration, without those that are much larger than ``least``."""
        fitting = [m for m in self._parts if m.pack is not None and shape.holds(m.pack.template, config)]
        if least is None:
            return fitting
        neighbours = len(self._placed) / max(1, len(self._busy_parts()))
        return [m for m in fitting if m.pack is not None and placing.pays(m.pack.template, least, neighbours)]

    def _part_for(
        self, key: Hashable, config: ClassifierConfig, run: Run, template: ClassifierConfig | None
    ) -> PackOrSingle:
        """``template``: of the pack that the trial is to get if it is not there yet."""
        reason = shape.why_not(config)
        if reason is not None:
            self._say_once(f"{reason}: such trials train one at a time")
        if reason is not None or run.observe is not None:  # a network of its own can be observed only
            self._unpackable.append((key, config, run))
            return next((m for m in self._parts if m.pack is None), None) or self._new_part(None)
        if template is None:
            fitting = self._fitting(config, least=None if self._is_static else config)
        else:
            fitting = [m for m in self._parts if m.pack is not None and m.pack.template == template]
        if fitting:
            part = min(fitting, key=lambda m: shape.cost(m.pack.template) if m.pack is not None else 0)
        else:
            part = self._new_part(self._new_pack(config, run, template))
        assert part.pack is not None
        make = partial(initial_network, config, run.seed, self.options.device)
        part.pack.add(key, config, run, self._networks.get((config, run.seed), make))
        return part

    def _new_pack(self, config: ClassifierConfig, run: Run, template: ClassifierConfig | None) -> Pack:
        """A pack for ``template``; a static one for all that the study may bring, since it is not made again soon."""
        threads, static = self.options.threads, self._static
        if template is not None:
            capacity = min(self.capacity, 4)
            return Pack(template, capacity, run, threads=threads, limit=self.capacity, static=static)
        alike = tuple(other for other in self.options.configs if shape.agreed(other) == shape.agreed(config))
        template = shape.padded(config, alike)
        # Growing would capture the step again.
        kinds = {shape.agreed(other) for other in self.options.configs if shape.why_not(other) is None}
        capacity = max(1, self.capacity // max(1, len(kinds)))
        return Pack(template, capacity, run, threads=threads, limit=self.capacity, static=static)

    def _new_part(self, pack: Pack | None) -> PackOrSingle:
        part = PackOrSingle(pack, min((m.spent for m in self._parts), default=0.0))
        self._parts.append(part)
        if len(self._busy_parts()) > 3 and len(self._busy_parts()) >= len(self._placed) // 4:
            self._say_once(
                "the search space splits the trials into many small packs (trials of one pack share network, optimizer "
                "and normalization, and are of similar size), so packing gains less"
            )
        return part

    # One turn.

    def _next_parts(self) -> list[PackOrSingle]:
        """Whose turn it is: those that have had the least time, one for each thread of which a pack uses one."""
        parts = sorted(self._busy_parts(), key=lambda part: part.spent)
        if self._device_type != "cpu" or parts[0].pack is None or parts[0].pack.threads > 1:
            return parts[:1]
        return [part for part in parts if part.pack is not None and part.pack.threads == 1][: self.options.threads]

    def _turns(self, parts: Sequence[PackOrSingle]) -> list[Event]:
        if len(parts) == 1:
            return self._ended(parts[0], *self._timed_turn(parts[0]))
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.options.threads, "pack")
        turns = [self._threads.submit(self._timed_turn, part) for part in parts]
        try:
            results = [turn.result() for turn in turns]
        finally:
            # Also after an interrupt: no pack is touched by anything else before all have had their turn.
            wait(turns)
        return [event for part, result in zip(parts, results, strict=True) for event in self._ended(part, *result)]

    def _timed_turn(self, part: PackOrSingle) -> tuple[list[Event], Exception | None]:
        started, trials, pack = time.perf_counter(), part.trials, part.pack
        host = 0.0 if pack is None else pack.host_seconds
        try:
            if part.pack is None:
                return self._turn_single(), None
            if len(self._busy_parts()) == 1 and len(self._placed) == self.capacity:
                return list(part.pack.advance(1 << 30)), None
            events: list[Event] = list(part.pack.advance(TURN_STEPS))
            if self._device_type == "cuda":
                torch.cuda.synchronize(self.options.device)  # else the next pack's time would be this one's
            return events, None
        except Exception as error:
            return [], error
        finally:
            part.spent += (time.perf_counter() - started) / trials
            if pack is not None:
                self.host_seconds += pack.host_seconds - host

    def _ended(self, part: PackOrSingle, events: list[Event], error: Exception | None) -> list[Event]:
        """The events of a turn, after an error those that follow from it."""
        if error is None or part not in self._parts:
            return events
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
        self._parts = self._busy_parts()
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
        for kept in [m for m in self._parts if m.trials]:
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
