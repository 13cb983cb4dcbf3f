"""Several experiments at once: how the samplers rank over tasks (Demšar 2006)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpo.compare import significance
from hpo.compare.comparison import Comparison
from hpo.errors import ExperimentError

FEWEST_TASKS = 5


@dataclass(frozen=True)
class TaskComparison:
    """Ranks of the samplers that all tasks have.

    Attributes:
        tasks: names of the experiments.
        scores: mean final best value by sampler, one for each task.
        ranks: average rank by sampler, best first; 1 is best.
        friedman: p value that all samplers are alike; None below 2 tasks or 3 samplers.
        critical_difference: Nemenyi's, of average ranks; None for fewer than five tasks, which cannot decide.
        groups: the largest sets of samplers whose ranks lie within the critical difference.
    """

    tasks: tuple[str, ...]
    scores: dict[str, tuple[float, ...]]
    ranks: dict[str, float]
    friedman: float | None
    critical_difference: float | None
    groups: tuple[tuple[str, ...], ...]


def compare_tasks(comparisons: Sequence[Comparison]) -> TaskComparison:
    """Raises ExperimentError if fewer than two samplers have final values in all of the experiments."""
    shared = [
        name
        for name in comparisons[0].samplers
        if all(name in c.samplers and c.samplers[name].summary is not None for c in comparisons)
    ]
    if len(shared) < 2:
        known = "; ".join(f"{c.experiment}: {', '.join(c.samplers)}" for c in comparisons)
        raise ExperimentError(
            f"ranks need two samplers with finished trials in every experiment; here there are {len(shared)} ({known})"
        )
    table = np.array([[_mean(comparison, name) for name in shared] for comparison in comparisons])
    ranks = significance.average_ranks(table, [comparison.maximize for comparison in comparisons])
    order = sorted(range(len(shared)), key=lambda i: (ranks[i], shared[i]))
    ranked = {shared[i]: float(ranks[i]) for i in order}
    difference = None
    if len(comparisons) >= FEWEST_TASKS:
        difference = significance.critical_difference(len(shared), len(comparisons))
    return TaskComparison(
        tuple(comparison.experiment for comparison in comparisons),
        {shared[i]: tuple(map(float, table[:, i])) for i in order},
        ranked,
        significance.friedman(table, [comparison.maximize for comparison in comparisons]),
        difference,
        groups_within(ranked, difference) if difference is not None else (),
    )


def groups_within(ranks: dict[str, float], difference: float) -> tuple[tuple[str, ...], ...]:
    """The largest runs of two or more samplers, by rank, whose first and last are at most ``difference`` apart."""
    names = sorted(ranks, key=lambda name: ranks[name])
    found: list[tuple[str, ...]] = []
    last_end = 0
    for start in range(len(names)):
        end = start + 1
        while end < len(names) and ranks[names[end]] - ranks[names[start]] <= difference:
            end += 1
        if end - start > 1 and end > last_end:
            found.append(tuple(names[start:end]))
            last_end = end
    return tuple(found)


def _mean(comparison: Comparison, name: str) -> float:
    summary = comparison.samplers[name].summary
    return math.nan if summary is None else summary.mean
