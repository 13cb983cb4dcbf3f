"""One of the trainings of a trial that several seeds train: how far it is, what it saved; and the mean over all.

A training may be ahead of the others, because the packs that hold them take turns, and it may end before them.
"""

import copy
import math
import re
import statistics
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpo.trainers.process_state import Turns
from hpo.trainers.protocol import EpochEnd, Metrics, Run, State

STD = "_std"
SEED = "_seed_"


def std_name(metric: str) -> str:
    """The name under which an epoch has the standard deviation of ``metric`` over its seeds."""
    return f"{metric}{STD}"


def seed_name(metric: str, index: int) -> str:
    """The name under which an epoch has the ``metric`` of one of its seeds, counted from 0."""
    return f"{metric}{SEED}{index}"


def mean_metrics(of_seeds: Sequence[Mapping[str, float]], objectives: Sequence[str]) -> dict[str, float]:
    """The mean of each metric over the seeds that have it.

    Of each of the ``objectives`` also the value of each seed, and their standard deviation if two are finite numbers.
    """
    names = dict.fromkeys(name for metrics in of_seeds for name in metrics)
    means = {name: _mean([metrics[name] for metrics in of_seeds if name in metrics]) for name in names}
    for name in objectives:
        if name not in means:
            continue
        values = [metrics[name] for metrics in of_seeds if name in metrics]
        if len(values) > 1 and all(map(math.isfinite, values)):
            means[std_name(name)] = statistics.stdev(values)
        for index, metrics in enumerate(of_seeds):
            if name in metrics:
                means[seed_name(name, index)] = metrics[name]
    return means


def _mean(values: Sequence[float]) -> float:
    if all(map(math.isfinite, values)):
        return math.fsum(value / len(values) for value in values) if _is_large(values) else statistics.fmean(values)
    return sum(values) / len(values)  # an infinity, or NaN


def _is_large(values: Sequence[float]) -> bool:
    return max(map(abs, values)) > 1e300


def seed_values(metrics: Mapping[str, Any], metric: str) -> list[float]:
    """The values of each seed that :func:`mean_metrics` has put beside a mean; [] if one seed trained."""
    values: list[float] = []
    while isinstance(value := metrics.get(seed_name(metric, len(values))), int | float):
        values.append(float(value))
    return values


def without_seeds(metrics: Mapping[str, float], metric: str) -> tuple[list[float | None], dict[str, float]]:
    """The value of each seed, None if it is not finite, and the metrics without the values of single seeds."""
    values = seed_values(metrics, metric)
    kept = {name: value for name, value in metrics.items() if re.fullmatch(rf".*{SEED}\d+", name) is None}
    return [value if math.isfinite(value) else None for value in values], kept


def not_finite_seeds(metrics: Mapping[str, Any], metric: str) -> str:
    """Which of the seeds make a mean not finite, to be added to a sentence; "" if one seed trained."""
    values = seed_values(metrics, metric)
    bad = [f"{index} ({value})" for index, value in enumerate(values) if not math.isfinite(value)]
    return f": that of seed {', '.join(bad)} of {len(values)}, counted from 0" if bad else ""


@dataclass
class Member:
    """One training of a trial.

    Attributes:
        key: under which its trainer has it.
        run: what its trainer gets.
        is_started: whether its trainer has it, or had it.
        has_ended: nothing more comes of it; ``final`` is what its trainer returned at the end.
        queue: number and metrics of the epochs that it has ended and the trial has not.
        last: the metrics of its last epoch of the trial; a member that has ended counts on with them.
        after: epochs up to this number, which the trial has had, do not count when it repeats them.
        saved_epoch: the epoch that ``saved`` makes the state of; None if it saved nothing.
        fresh: its last epoch, if it offers a state that is not copied yet.
        may_prune: whether it may be pruned after that epoch.
    """

    key: Hashable
    run: Run
    turns: Turns
    is_started: bool = False
    has_ended: bool = False
    final: Metrics | None = None
    queue: deque[tuple[int, dict[str, float]]] = field(default_factory=deque)
    last: dict[str, float] | None = None
    after: int = 0
    saved_epoch: int | None = None
    saved: Callable[[], State] | None = None
    fresh: EpochEnd | None = None
    may_prune: bool = True

    @property
    def in_slot(self) -> bool:
        return self.is_started and not self.has_ended

    def take(self, event: EpochEnd, metrics: dict[str, float]) -> None:
        """An epoch of it has ended. What only ``snapshot`` gives is copied at once: the code may change it."""
        self.may_prune, self.has_ended, self.fresh = event.may_prune, event.finished, None
        if event.finished:
            self.saved = None
        elif event.capture is not None:
            self.fresh = event
        elif event.snapshot is not None:
            state = copy.deepcopy(event.snapshot())
            self.saved_epoch, self.saved = event.epoch, lambda: state
        if event.epoch > self.after:
            self.queue.append((event.epoch, metrics))

    def goes_on(self, epoch: int) -> None:
        """It is about to train on: copies the state that it offers if it is ahead of the trial's ``epoch``."""
        if self.fresh is not None and self.fresh.epoch > epoch:
            self.capture()
        self.fresh = None

    def capture(self) -> None:
        """Copies the state that it offers, if any."""
        if self.fresh is not None and self.fresh.capture is not None:
            self.saved_epoch, self.saved = self.fresh.epoch, self.fresh.capture()
            self.fresh = None

    @property
    def offers(self) -> bool:
        """Whether there is a state that it can go on from."""
        return not self.has_ended and (self.fresh is not None or self.saved is not None)

    def record(self, epoch: int) -> Callable[[], State]:
        """What a resumed trial that has ended ``epoch`` epochs continues this member from; :meth:`capture` before."""
        at = epoch if self.has_ended else self.saved_epoch or 0
        make = None if self.has_ended else self.saved
        kept = {
            "epoch": at,
            "ahead": [[number, metrics] for number, metrics in self.queue if self.has_ended or number <= at],
            "ended": self.has_ended,
            "last": self.last,
            "final": _plain(self.final),
        }
        return lambda: {**kept, "state": None if make is None else make()}

    def restore(self, kept: Mapping[str, Any], epoch: int) -> None:
        """Continues from what :meth:`record` made, in a trial that has ended ``epoch`` epochs."""
        self.queue = deque((int(number), dict(metrics)) for number, metrics in kept["ahead"])
        self.last, self.final, self.after = kept["last"], kept["final"], epoch
        self.has_ended = self.is_started = bool(kept["ended"])
        self.run.start_epoch, self.run.checkpoint = int(kept["epoch"]), kept["state"]


def _plain(metrics: Metrics | None) -> dict[str, float | None] | None:
    if metrics is None:
        return None
    return {name: None if value is None else float(value) for name, value in metrics.items()}
