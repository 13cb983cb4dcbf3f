"""A trainer over trainers: each trial is several trainings, one for each of its seeds, and yields their mean.

A worker has one loop for all trials; what it reports, prunes, saves and retries is the mean. Trainings that a trainer
packs take as many of its slots as there are seeds. Otherwise each has a trainer of its own and they take turns, an
epoch each, so that the mean of an epoch is that of all seeds; of a program, the processes run side by side.
"""

import dataclasses
import logging
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from hpo.trainers.errors import TrainerError
from hpo.trainers.metrics import checked_metrics
from hpo.trainers.process_state import Turns
from hpo.trainers.protocol import BuildOptions, Ended, EpochEnd, Event, Evicted, Failed, Metrics, Run, State, Trainer
from hpo.trainers.registry import TrainerEntry
from hpo.trainers.seed_member import Member, mean_metrics
from hpo.trainers.trial_log import seed_folder

log = logging.getLogger("hpo")


def build_with_seeds(entry: TrainerEntry, options: BuildOptions, num_seeds: int) -> Trainer:
    """The trainer of a worker whose trials have ``num_seeds`` seeds each; ``options.slots`` counts trainings.

    Raises:
        TrainerError: as the trainer's own builder.
    """
    if num_seeds == 1:
        return entry.build(options)
    if options.program:
        options = dataclasses.replace(options, threads=max(1, options.threads // num_seeds))
    first = entry.build(options)
    if first.capacity >= num_seeds:
        return SeedsTrainer([first], num_seeds)
    threads = getattr(first, "threads", options.threads)
    alone = dataclasses.replace(options, slots=1, threads=threads, choose_threads=False)
    trainers = [first] if first.capacity == 1 else []
    while len(trainers) < num_seeds:
        trainers.append(entry.build(alone))
    return SeedsTrainer(trainers, num_seeds)


@dataclass
class _Trial:
    """A trial: its members, one for each seed, and the number of the last epoch that all of them have ended.

    ``is_resumed``: it has ended no epoch since it was resumed. A program goes on from checkpoints of its own, which may
    be of a later epoch than what was read of its output: the next epoch of the trial is then one that all reach.
    """

    key: Hashable
    config: Any
    run: Run
    members: list[Member] = field(default_factory=list)
    epoch: int = 0
    is_resumed: bool = False

    @property
    def waits(self) -> bool:
        """Whether a training has still to end the next epoch."""
        return any(not member.queue and not member.has_ended for member in self.members)

    def align(self) -> None:
        """Leaves out epochs after the resumption that not all trainings repeat."""
        latest = max((member.queue[0][0] for member in self.members if member.queue), default=0)
        for member in self.members:
            while not member.has_ended and member.queue and member.queue[0][0] < latest:
                member.queue.popleft()


class SeedsTrainer:
    """The protocol over trials of ``num_seeds`` trainings each: in slots of one packing trainer, or a trainer each.

    ``capacity`` counts trials. If a packing trainer has run out of memory and has fewer slots than a trial has seeds,
    the trainings of a trial wait for each other's slots, and it yields its epochs late.
    """

    def __init__(self, trainers: Sequence[Trainer], num_seeds: int) -> None:
        self._trainers = list(trainers)
        self._num_seeds = num_seeds
        self._packs = len(self._trainers) == 1
        self._trials: dict[Hashable, _Trial] = {}
        if hasattr(self._trainers[0], "threads"):
            self.threads = self._trainers[0].threads

    @property
    def capacity(self) -> int:
        """Trials at a time."""
        return max(1, self._trainers[0].capacity // self._num_seeds) if self._packs else 1

    @property
    def slots(self) -> int:
        """Trainings at a time in one trainer; 1 if they take turns."""
        return self._trainers[0].capacity

    @property
    def host_seconds(self) -> float:
        """See :class:`hpo.trainers.classifier.packed.trainer.PackedTrainer`."""
        return sum(float(getattr(trainer, "host_seconds", 0.0)) for trainer in self._trainers)

    # The protocol.

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        if len(self._trials) >= self.capacity:
            raise RuntimeError("all slots are taken")
        trial = _Trial(key, config, run, epoch=run.start_epoch)
        kept = (run.checkpoint or {}).get("seeds")
        for index, seed in enumerate(run.seeds):
            member = Member((key, index), _run_of(run, index, seed), Turns(generators=run.seed_libraries))
            if kept is not None:
                member.restore(kept[index], run.start_epoch)
            trial.members.append(member)
        trial.is_resumed = kept is not None
        self._trials[key] = trial

    def advance(self) -> list[Event]:
        events: list[Event] = []
        while self._trials and not events:
            events += self._start_waiting()
            found = self._advance_packed() if self._packs else self._advance_in_turn()
            for event in found:
                events += self._taken(event)
            for trial in list(self._trials.values()):
                events += self._completed(trial)
            if not found:
                break
        return events

    def stop(self, key: Hashable) -> None:
        trial = self._trials.pop(key, None)
        if trial is None:
            return
        running = [(index, member) for index, member in enumerate(trial.members) if member.in_slot]
        if self._has_processes:
            _at_once([partial(self._trainers[index].stop, member.key) for index, member in running])
            return
        for index, member in running:
            with self._turn(member):
                self._trainer_of(index).stop(member.key)

    def close(self) -> None:
        """Ends the programs that run, as :meth:`stop` does; a worker calls it before it gives its trials back."""
        _at_once([close for trainer in self._trainers if (close := getattr(trainer, "close", None)) is not None])

    @property
    def _has_processes(self) -> bool:
        return hasattr(self._trainers[0], "close")

    # The trainings.

    def _trainer_of(self, index: int) -> Trainer:
        return self._trainers[0 if self._packs else index]

    def _start_waiting(self) -> list[Event]:
        """Starts the trainings that wait, as far as there are slots; programs begin at once, side by side."""
        events: list[Event] = []
        free = self._trainers[0].capacity - sum(m.in_slot for t in self._trials.values() for m in t.members)
        for trial in list(self._trials.values()):
            for index, member in enumerate(trial.members):
                if member.is_started or (self._packs and free <= 0):
                    continue
                member.is_started = True
                free -= 1
                trainer = self._trainer_of(index)
                trainer.start(member.key, trial.config, member.run)
                try:
                    if (begin := getattr(trainer, "begin", None)) is not None:
                        begin()
                except Exception as error:
                    events += self._failed(trial, index, error)
                    break
        return events

    def _advance_packed(self) -> list[Event]:
        is_empty = True
        for trial in self._trials.values():
            for member in trial.members:
                if member.in_slot:
                    member.goes_on(trial.epoch)
                    is_empty = False
        return [] if is_empty else self._trainers[0].advance()

    def _advance_in_turn(self) -> list[Event]:
        """One turn of the first training that its trial waits for."""
        for trial in self._trials.values():
            for index, member in enumerate(trial.members):
                if member.in_slot and not member.queue:
                    member.goes_on(trial.epoch)
                    with self._turn(member):
                        return self._trainers[index].advance()
        return []

    def _turn(self, member: Member) -> AbstractContextManager[None]:
        """Within it the process is the training's own, unless they share the slots of one trainer, or are programs."""
        return nullcontext() if self._packs or self._has_processes else member.turns.turn()

    def _taken(self, event: Event) -> list[Event]:
        """Takes an event of a training in; returns what follows from it at once for its trial."""
        key, index = cast(tuple[Hashable, int], event.key)
        trial = self._trials.get(key)
        if trial is None:
            return []
        member = trial.members[index]
        if isinstance(event, EpochEnd):
            try:
                member.take(event, checked_metrics(event.metrics, trial.run.metric))
            except Exception as error:  # a metric that is no number, or a state that cannot be copied
                return self._failed(trial, index, error)
        elif isinstance(event, Ended):
            member.has_ended, member.final = True, event.metrics
        elif isinstance(event, Failed):
            member.has_ended = True
            return self._failed(trial, index, event.error)
        elif isinstance(event, Evicted):
            member.has_ended = True
            self.stop(key)
            return [Evicted(key, event.reason)]
        return []

    def _failed(self, trial: _Trial, index: int, error: BaseException) -> list[Event]:
        if not isinstance(error, TrainerError):
            seed, of = trial.run.seeds[index], len(trial.members)
            log.error("seed %d of %d, counted from 0 (%d), failed, and with it its trial", index, of, seed)
        self.stop(trial.key)
        return [Failed(trial.key, error)]

    # The trial.

    def _completed(self, trial: _Trial) -> list[EpochEnd | Ended]:
        """The epochs that all trainings of a trial have ended, and its end."""
        events: list[EpochEnd | Ended] = []
        while trial.key in self._trials and not trial.waits:
            if trial.is_resumed:
                trial.align()
                if trial.waits:
                    break
                trial.is_resumed = False
            if any(member.queue for member in trial.members):
                events.append(end := self._epoch(trial))
                has_ended = end.finished
            else:
                events.append(Ended(trial.key, self._final(trial)))
                has_ended = True
            if has_ended:
                self.stop(trial.key)
        return events

    def _epoch(self, trial: _Trial) -> EpochEnd:
        """The next epoch of a trial; a training that ended before the others counts with its last one."""
        number = min(member.queue[0][0] for member in trial.members if member.queue)
        of_seeds = []
        for member in trial.members:
            if member.queue and member.queue[0][0] == number:
                _, member.last = member.queue.popleft()
            if member.last is not None:
                of_seeds.append(member.last)
        trial.epoch = number
        objectives = [name for name in (trial.run.metric, trial.run.second_metric) if name is not None]
        is_last = all(m.has_ended and not m.queue and m.final is None for m in trial.members)
        snapshot, capture = (None, None) if is_last else self._offer(trial)
        may_prune = all(member.may_prune for member in trial.members)
        return EpochEnd(trial.key, number, mean_metrics(of_seeds, objectives), is_last, snapshot, capture, may_prune)

    def _offer(self, trial: _Trial) -> tuple[Callable[[], State] | None, Callable[[], Callable[[], State]] | None]:
        """What makes the state of a trial after its last epoch: ``snapshot`` and ``capture`` of its event."""
        members, epoch = trial.members, trial.epoch
        if not any(member.offers for member in members):
            return None, None

        def capture() -> Callable[[], State]:
            for member in members:
                member.capture()
            records = [member.record(epoch) for member in members]
            return lambda: {"seeds": [record() for record in records]}

        copies_at_once = any(member.fresh is not None for member in members)
        return (lambda: capture()()), (capture if copies_at_once else None)

    def _final(self, trial: _Trial) -> Metrics | None:
        finals = [member.final for member in trial.members]
        given = [checked_metrics(final, trial.run.metric) for final in finals if final is not None]
        return mean_metrics(given, [trial.run.metric]) if len(given) == len(finals) else None


def _run_of(run: Run, index: int, seed: int) -> Run:
    """The run of one training: its seed; the first one's folder is the trial's, the others' lie in it."""
    folder = None if run.trial_folder is None else seed_folder(run.trial_folder, index)
    observe = None if index else run.observe
    return dataclasses.replace(
        run, seed=seed, seeds=(seed,), trial_folder=folder, start_epoch=0, checkpoint=None, saved=None, observe=observe
    )


def _at_once(calls: Sequence[Callable[[], object]]) -> None:
    """Calls all of them side by side: each may wait for a program to end."""
    if len(calls) < 2:
        for call in calls:
            call()
        return
    with ThreadPoolExecutor(len(calls)) as threads:
        for done in [threads.submit(call) for call in calls]:
            done.result()
