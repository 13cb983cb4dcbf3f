"""The procedures that `python -m benchmarks.verdict` judges: each decides for many pairs of samplers at once.

A procedure takes the searches of both samplers, of which the smaller value is the better one, and gives for each
simulated experiment -1 if the first sampler is better, 1 if the second one is, 0 if it does not decide, at a level of
5 %.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats  # type: ignore[import-untyped]
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Decisions = NDArray[np.int64]

ALPHA = 0.05
RESAMPLES = 2000
MOST_ASSIGNMENTS = 4000
ROUNDING = 1e-9


@dataclass(frozen=True)
class Sample:
    """The searches of one sampler in many simulated experiments.

    Attributes:
        final: the best value of each search, shape (experiments, repeats).
        area: the mean of the best value so far over the trials of each search, of the same shape.
        trials: the value of each trial, shape (experiments, repeats, trials).
    """

    final: Floats
    area: Floats
    trials: Floats


Procedure = Callable[[Sample, Sample], Decisions]


def _decide(p_values: Floats, differences: Floats) -> Decisions:
    return np.where(p_values <= ALPHA, np.sign(differences), 0).astype(np.int64)


def _signs(n: int) -> Floats:
    return np.array(list(itertools.product((-1.0, 1.0), repeat=n)))


def _two_sided(observed: Floats, everything: Floats) -> Floats:
    """Share of ``everything`` (experiments, arrangements) that lies at least as far from zero as ``observed``."""
    far = np.abs(observed)[:, None] * (1 - ROUNDING) - ROUNDING * np.abs(everything).max(axis=1, keepdims=True)
    return np.asarray((np.abs(everything) >= far).mean(axis=1))


def signed_rank(first: Sample, second: Sample) -> Decisions:
    """Wilcoxon's signed-rank test, exact (Wilcoxon 1945)."""
    d = first.final - second.final
    ranks = np.where(d == 0, 0.0, scipy.stats.rankdata(np.where(d == 0, -np.inf, np.abs(d)), axis=1))
    ranks -= np.where(d == 0, 0, (d == 0).sum(axis=1, keepdims=True))
    observed = (ranks * np.sign(d)).sum(axis=1)
    return _decide(_two_sided(observed, ranks @ _signs(d.shape[1]).T), observed)


def sign_changes(first: Sample, second: Sample) -> Decisions:
    """Permutation test of the mean difference over all changes of sign (Fisher 1935)."""
    d = first.final - second.final
    return _decide(_two_sided(d.sum(axis=1), d @ _signs(d.shape[1]).T), d.mean(axis=1))


def paired_t(first: Sample, second: Sample) -> Decisions:
    """Student's paired t test."""
    d = first.final - second.final
    with np.errstate(divide="ignore", invalid="ignore"):
        t = d.mean(axis=1) / (d.std(axis=1, ddof=1) / np.sqrt(d.shape[1]))
    return _decide(2 * scipy.stats.t.sf(np.abs(np.nan_to_num(t, nan=0.0)), d.shape[1] - 1), d.mean(axis=1))


def checked_t(first: Sample, second: Sample) -> Decisions:
    """The paired t test if Shapiro and Wilk's test does not reject normal differences at 5 %, else no decision."""
    d = first.final - second.final
    decided = paired_t(first, second)
    for i in np.flatnonzero(decided):
        if np.ptp(d[i]) == 0 or scipy.stats.shapiro(d[i]).pvalue <= ALPHA:
            decided[i] = 0
    return decided


def welch(first: Sample, second: Sample) -> Decisions:
    """Welch's t test of independent searches (Welch 1947)."""
    a, b = first.final, second.final
    n = a.shape[1]
    va, vb = a.var(axis=1, ddof=1) / n, b.var(axis=1, ddof=1) / n
    difference = a.mean(axis=1) - b.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = difference / np.sqrt(va + vb)
        freedom = (va + vb) ** 2 / ((va**2 + vb**2) / (n - 1))
    p_values = 2 * scipy.stats.t.sf(np.abs(np.nan_to_num(t, nan=0.0)), np.nan_to_num(freedom, nan=1.0))
    return _decide(p_values, difference)


@functools.cache
def assignments(n: int) -> Floats:
    """1 where a search counts as the first sampler's, for all (or 4,000 random) ways to choose n of 2n; (ways, 2n)."""
    total = 2 * n
    if scipy.special.comb(total, n) <= MOST_ASSIGNMENTS:
        chosen = np.array(list(itertools.combinations(range(total), n)))
    else:
        rng = np.random.default_rng(0)
        chosen = np.array([rng.permutation(total)[:n] for _ in range(MOST_ASSIGNMENTS - 1)] + [np.arange(n)])
    made = np.zeros((len(chosen), total))
    np.put_along_axis(made, chosen, 1.0, axis=1)
    return made


def all_assignments(first: Sample, second: Sample) -> Decisions:
    """Permutation test of the difference of means over all assignments of the searches (Pitman 1937)."""
    both = np.concatenate([first.final, second.final], axis=1)
    both = both - both.mean(axis=1, keepdims=True)
    sums = both @ assignments(first.final.shape[1]).T
    observed = both[:, : first.final.shape[1]].sum(axis=1)
    return _decide(_two_sided(observed, sums), observed)


def studentized(first: Sample, second: Sample) -> Decisions:
    """The same with Welch's statistic in place of the difference of means (Janssen 1997)."""
    n = first.final.shape[1]
    both = np.concatenate([first.final, second.final], axis=1)
    both = both - both.mean(axis=1, keepdims=True)
    scale = np.abs(both).max(axis=1, keepdims=True)
    both = both / np.where(scale == 0, 1.0, scale)
    chosen = assignments(n)

    def statistic(values: Floats, member: Floats) -> Floats:
        sa, qa = values @ member.T, values**2 @ member.T
        sb, qb = values.sum(axis=1, keepdims=True) - sa, (values**2).sum(axis=1, keepdims=True) - qa
        spread = np.maximum(qa - sa**2 / n + qb - sb**2 / n, 1e-12)
        return np.asarray((sa - sb) / np.sqrt(spread))

    observed = statistic(both, np.repeat([1.0, 0.0], n)[None])[:, 0]
    return _decide(_two_sided(observed, statistic(both, chosen)), observed)


def mann_whitney(first: Sample, second: Sample) -> Decisions:
    """Mann and Whitney's rank-sum test of independent searches, exact with ties (Mann and Whitney 1947)."""
    n = first.final.shape[1]
    ranks = scipy.stats.rankdata(np.concatenate([first.final, second.final], axis=1), axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    observed = ranks[:, :n].sum(axis=1)
    return _decide(_two_sided(observed, ranks @ assignments(n).T), observed)


def pooled_trials(first: Sample, second: Sample) -> Decisions:
    """The rank-sum test over the trials of all searches pooled, as if trials of a search were independent."""
    a, b = (sample.trials.reshape(len(sample.trials), -1) for sample in (first, second))
    found = scipy.stats.mannwhitneyu(a, b, axis=1, method="asymptotic")
    return _decide(found.pvalue, found.statistic - a.shape[1] * b.shape[1] / 2)


def bayesian_signed_rank(first: Sample, second: Sample) -> Decisions:
    """Bayesian signed-rank test (Benavoli et al. 2014): decides at a posterior probability of 97.5 %.

    The prior is a Dirichlet process of strength 0.5 with its one point at zero.
    """
    d = first.final - second.final
    points = np.concatenate([np.zeros((len(d), 1)), d], axis=1)
    signs = np.sign(points[:, :, None] + points[:, None, :]).reshape(len(d), -1)
    rng = np.random.default_rng(0)
    weights = rng.dirichlet([0.5, *[1.0] * d.shape[1]], size=RESAMPLES)
    posterior = signs @ np.einsum("mi,mj->mij", weights, weights).reshape(RESAMPLES, -1).T
    above, below = (posterior > 0).mean(axis=1), (posterior < 0).mean(axis=1)
    return np.where(above >= 1 - ALPHA / 2, 1, np.where(below >= 1 - ALPHA / 2, -1, 0)).astype(np.int64)


def _bootstrap(a: Floats, b: Floats) -> Decisions:
    """Whether the percentile interval of the mean difference leaves out zero; pairs are resampled."""
    d = a - b
    rng = np.random.default_rng(0)
    shares = rng.multinomial(d.shape[1], np.full(d.shape[1], 1 / d.shape[1]), size=RESAMPLES) / d.shape[1]
    low, high = np.quantile(d @ shares.T, [ALPHA / 2, 1 - ALPHA / 2], axis=1)
    return np.where(low > 0, 1, np.where(high < 0, -1, 0)).astype(np.int64)


def bootstrap_final(first: Sample, second: Sample) -> Decisions:
    """Percentile bootstrap of the mean difference of the final values (Efron 1979)."""
    return _bootstrap(first.final, second.final)


def bootstrap_curves(first: Sample, second: Sample) -> Decisions:
    """Percentile bootstrap of the mean difference of the areas below the curves of the best value so far."""
    return _bootstrap(first.area, second.area)


PROCEDURES: dict[str, Procedure] = {
    "signed-rank": signed_rank,
    "sign changes of means": sign_changes,
    "paired t": paired_t,
    "paired t, Shapiro-Wilk first": checked_t,
    "Bayesian signed-rank": bayesian_signed_rank,
    "bootstrap of final values": bootstrap_final,
    "bootstrap of curves": bootstrap_curves,
    "rank sum of pooled trials": pooled_trials,
    "Welch's t": welch,
    "rank sum of searches": mann_whitney,
    "means, all assignments": all_assignments,
    "Welch's t, all assignments": studentized,
}
