"""A sampler's best value so far by number of trials, small enough for a cell of a table: an SVG without a script."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hpo.compare.stats import Array
from hpo.compare.trial_figures import robust_range
from hpo.experiment.results import Outcome

POINTS = 40
WIDTH, HEIGHT = 120, 30


@dataclass(frozen=True)
class Sparkline:
    """``path``: of an SVG of 120 x 30; "" if no trial has completed. ``label``: the same in words."""

    path: str
    label: str


def sparklines(outcomes: Mapping[str, Sequence[Sequence[Outcome]]], maximize: bool) -> dict[str, Sparkline]:
    """One for each sampler, from the outcomes of each of its repeats; all on the same axes.

    A line is the median over the repeats of the best value so far; repeats without a value yet count as worst.
    """
    last = max((o.number for repeats in outcomes.values() for repeat in repeats for o in repeat), default=0)
    grid = np.unique(np.linspace(0, last, POINTS).astype(int))
    lines = {name: _median([_best_so_far(r, grid, maximize) for r in repeats]) for name, repeats in outcomes.items()}
    ends = np.concatenate([line[len(line) // 4 :] for line in lines.values()])
    scale = robust_range([float(value) for value in ends], maximize)
    return {name: _drawn(line, grid, scale, len(outcomes[name])) for name, line in lines.items()}


def _best_so_far(outcomes: Sequence[Outcome], grid: Array, maximize: bool) -> Array:
    worst = -math.inf if maximize else math.inf
    ordered = sorted(outcomes, key=lambda o: o.number)
    values = np.array([worst, *(o.value for o in ordered)])
    best = (np.maximum if maximize else np.minimum).accumulate(values)
    return np.asarray(best[np.searchsorted([o.number for o in ordered], grid, side="right")])


def _median(lines: Sequence[Array]) -> Array:
    ordered = np.sort(np.array(lines), axis=0)
    low, high = ordered[(len(lines) - 1) // 2], ordered[len(lines) // 2]
    return np.asarray(np.where(low == high, low, (low + high) / 2))


def _drawn(line: Array, grid: Array, scale: list[float] | None, num_repeats: int) -> Sparkline:
    known = np.isfinite(line)
    if scale is None or not known.any():
        return Sparkline("", "no complete trial yet")
    x = WIDTH * grid / max(1, int(grid[-1]))
    y = HEIGHT - 2 - (HEIGHT - 4) * np.clip((line - scale[0]) / (scale[1] - scale[0]), 0, 1)
    places = [(float(a), float(b)) for a, b, is_known in zip(x, y, known, strict=True) if is_known]
    path = f"M{places[0][0]:.1f} {places[0][1]:.1f}" + "".join(f"H{a:.1f}V{b:.1f}" for a, b in places[1:])
    if len(places) == 1:
        path += f"H{WIDTH}"
    first, end = (float(value) for value in (line[known][0], line[known][-1]))
    over = "best so far" if num_repeats == 1 else f"best so far, median of {num_repeats} repeats"
    return Sparkline(path, f"{over}: from {first:.4g} to {end:.4g}")
