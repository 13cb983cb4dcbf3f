"""Anytime performance: the best value so far against what was spent, over repeats, and what follows from it.

A repeat is a step function: at each trial's end the cost grows and the best complete value may improve. Costs are
everything spent by then, failed attempts included. Before its first complete trial a repeat counts as infinitely bad,
so medians are defined once half of the repeats have a value. A repeat that ended early keeps its last value, as a
person who stopped there would (Eggensperger et al. 2021, "HPOBench", compare incumbents over resources this way).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpo.compare.pareto import Pareto, values_of
from hpo.compare.records import AXES, Axis, StudyRecord, TrialRecord
from hpo.compare.stats import (
    RESAMPLES,
    Array,
    Interval,
    bootstrap_bands,
    expanded_levels,
    quantiles,
    resample_indices,
    sorted_median,
)

MOST_POINTS = 200


@dataclass(frozen=True)
class Steps:
    """One repeat: after event i, ``spent[axis][i]`` has been spent and ``best[i]`` is the best value so far.

    All arrays (events,), in order of time; ``best`` is infinitely bad before the first complete trial.
    """

    spent: dict[Axis, Array]
    best: Array

    def total(self, axis: Axis) -> float:
        return float(self.spent[axis][-1]) if self.best.size else 0.0


def steps(study: StudyRecord, pareto: Pareto | None = None) -> Steps:
    """The step function of one study, over the attempts that have ended; of two objectives that of the hypervolume."""
    counting = {trial.number for trial in study.last_attempts()}
    ended = [trial for trial in study.trials if trial.state in ("complete", "pruned", "failed")]
    ended.sort(key=lambda trial: (math.inf if trial.end is None else trial.end, trial.number))
    if pareto is None:
        worst = -math.inf if study.maximize else math.inf
        candidates = {outcome.number: outcome.value for outcome in study.outcomes()}
        values = [candidates.get(trial.number, worst) for trial in ended]
        best = (np.maximum if study.maximize else np.minimum).accumulate(np.array(values, dtype=float))
    else:
        points = [values_of(trial) if trial.number in counting else None for trial in ended]
        volumes = iter(pareto.scale.volumes([point for point in points if point is not None]))
        best = np.maximum.accumulate([-math.inf if point is None else next(volumes) for point in points] or [0.0])
        best = np.asarray(best, dtype=float)[: len(points)]
    spent: dict[Axis, Array] = {
        "trials": np.cumsum([trial.number in counting for trial in ended], dtype=float),
        "epochs": np.cumsum([trial.trained_epochs for trial in ended], dtype=float),
        "seconds": np.cumsum([trial.seconds for trial in ended], dtype=float),
        "wall": _wall_clock(ended),
    }
    return Steps(spent, best)


def _wall_clock(ended: Sequence[TrialRecord]) -> Array:
    """Seconds from the first start of a study to the end of each of its trials; 0 where no time was recorded."""
    starts = [trial.start for trial in ended if trial.start is not None]
    if not starts:
        return np.zeros(len(ended))
    first = min(starts)
    times = [0.0 if trial.end is None else max(0.0, trial.end - first) for trial in ended]
    return np.maximum.accumulate(np.array(times, dtype=float))


def grid(largest: float, whole: bool) -> Array:
    """Points at which curves are compared: up to 200, from the first to ``largest``; whole numbers if ``whole``."""
    if largest <= 0:
        return np.empty(0)
    if whole and largest <= MOST_POINTS:
        return np.arange(1.0, largest + 1)
    points = np.linspace(largest / MOST_POINTS, largest, MOST_POINTS)
    return np.unique(np.rint(points)) if whole else points


def on_grid(repeats: Sequence[Steps], axis: Axis, points: Array, maximize: bool) -> Array:
    """Best so far (repeats, points), carried forward; infinitely bad before a repeat has a value."""
    worst = -math.inf if maximize else math.inf
    rows = []
    for repeat in repeats:
        # A relative hair, because sums of seconds and the grid's last point differ by rounding.
        position = np.searchsorted(repeat.spent[axis], points * (1 + 1e-9), side="right")
        rows.append(np.concatenate([[worst], repeat.best])[position])
    return np.array(rows)


@dataclass(frozen=True)
class Curve:
    """Best so far of one sampler: arrays (points,); bands None with one repeat; ``ended_at``: then carried forward."""

    x: Array
    median: Array
    median_low: Array | None
    median_high: Array | None
    iqm: Array
    iqm_low: Array | None
    iqm_high: Array | None
    ended_at: float


def curve(repeats: Sequence[Steps], axis: Axis, points: Array, maximize: bool, confidence: float) -> Curve:
    """The curve of one sampler with its bands on the given points."""
    bands = bootstrap_bands(on_grid(repeats, axis, points, maximize), confidence=confidence)
    return Curve(
        points,
        bands["median"].center,
        bands["median"].low,
        bands["median"].high,
        bands["iqm"].center,
        bands["iqm"].low,
        bands["iqm"].high,
        max(repeat.total(axis) for repeat in repeats),
    )


@dataclass(frozen=True)
class Estimate:
    """``value`` may be infinite: never reached."""

    value: float
    interval: Interval | None


def share_of_budget(
    baseline: Sequence[Steps], other: Sequence[Steps], axis: Axis, maximize: bool, confidence: float
) -> Estimate | None:
    """What share of the baseline's budget ``other`` needs until its median is as good as the baseline's final median.

    Both lists hold the same repeats in the same order and are resampled together. Infinite if ``other`` never gets
    there; an interval that ends in infinity says that some resamples never did. None without a finished value.
    """
    total = max((repeat.total(axis) for repeat in baseline), default=0.0)
    largest = max(total, max((repeat.total(axis) for repeat in other), default=0.0))
    if total <= 0 or largest <= 0:
        return None
    points = grid(largest, axis == "trials")
    sign = -1.0 if maximize else 1.0
    goals = sign * on_grid(baseline, axis, np.array([total]), maximize)
    values = sign * on_grid(other, axis, points, maximize)
    if not np.isfinite(sorted_median(np.sort(goals, axis=0))).all():
        return None

    def reached(goal: Array, path: Array) -> Array:
        """First point of each row of ``path`` (rows, points) that is at most ``goal`` (rows,), as a share."""
        there = path <= goal[:, None]
        first = np.where(there.any(axis=1), points[there.argmax(axis=1)], math.inf)
        return np.asarray(first / total)

    value = reached(sorted_median(np.sort(goals, axis=0)), sorted_median(np.sort(values, axis=0))[None, :])
    if len(other) < 2:
        return Estimate(float(value[0]), None)
    chosen = resample_indices([0] * len(other), RESAMPLES)
    resampled = reached(
        sorted_median(np.sort(goals[chosen], axis=1), 1)[:, 0], sorted_median(np.sort(values[chosen], axis=1), 1)
    )
    low, high = quantiles(resampled, *expanded_levels(len(other), 1, confidence))
    return Estimate(float(value[0]), Interval(float(low), float(high)))


@dataclass(frozen=True)
class TargetCost:
    """What it takes to reach a target value: ``reached`` of ``repeats`` got there; the expected cost on each axis."""

    target: float
    reached: int
    repeats: int
    expected: dict[Axis, Estimate]


def cost_to_target(repeats: Sequence[Steps], target: float, maximize: bool, confidence: float) -> TargetCost:
    """Expected cost to the target: everything spent until it, divided by the number of repeats that reached it.

    A repeat that never did counts with all that it spent, as if it were started again until one succeeds: the expected
    running time of Auger and Hansen (2005). Infinite if none did.
    """
    hits = [repeat.best >= target if maximize else repeat.best <= target for repeat in repeats]
    reached = np.array([bool(hit.any()) for hit in hits])
    expected: dict[Axis, Estimate] = {}
    for axis in AXES:
        costs = np.array(
            [
                repeat.spent[axis][hit.argmax()] if hit.any() else repeat.total(axis)
                for repeat, hit in zip(repeats, hits, strict=True)
            ]
        )
        interval = None
        if len(repeats) > 1:
            chosen = resample_indices([0] * len(repeats), RESAMPLES)
            low, high = quantiles(
                _ratio(costs[chosen].sum(axis=1), reached[chosen].sum(axis=1)),
                *expanded_levels(len(repeats), 1, confidence),
            )
            interval = Interval(float(low), float(high))
        expected[axis] = Estimate(float(_ratio(costs.sum(keepdims=True), reached.sum(keepdims=True))[0]), interval)
    return TargetCost(target, int(reached.sum()), len(repeats), expected)


def _ratio(costs: Array, successes: Array) -> Array:
    return np.asarray(np.where(successes > 0, costs / np.maximum(successes, 1), math.inf))
