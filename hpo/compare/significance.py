"""The test of two samplers, what it could have shown, and ranks over tasks.

The verdict on two samplers is a permutation test: of all ways to divide their final values into two groups, the share
in which the means lie at least as far apart as they do (Fisher 1935; Pitman 1937, "Significance Tests Which May be
Applied to Samples from any Populations"). Repeats of the same number share no random number, so all searches are
independent and each assignment is equally likely if the samplers do not differ: the p value is exact for any
distribution and for ties. It decides from 4 repeats on, where a test of paired differences takes 6 (there are C(2n, n)
assignments and 2**n signs). p values are corrected for the number of pairs by Holm (1979).

The other procedures that were judged, and how often each errs and decides on real searches, are in
``benchmarks/README.md``. With few repeats no test can decide; each comparison therefore also has the smallest
difference that it could have shown.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.stats  # type: ignore[import-untyped]

from hpo.compare.stats import CONFIDENCE, Array, Interval
from hpo.studyfile.repeats import ALPHA, attainable_level

POWER = 0.8
MOST_ASSIGNMENTS = 200_000  # C(20, 10) = 184,756: exact up to ten repeats of each
RANDOM_ASSIGNMENTS = 50_000
SEED = 19370101
ROUNDING = 1e-9

Verdict = Literal["better", "worse", "not decided", "no difference that these repeats could show"]


def permutation_test(first: Sequence[float] | Array, second: Sequence[float] | Array) -> float:
    """p value of the two-sided test that ``first`` and ``second`` are samples of one distribution, by their means.

    Exact up to ten values of each. Above that it comes from 50,000 random assignments, seeded, the observed one counted
    among them, so that it stays valid (Phipson and Smyth 2010, "Permutation P-values Should Never Be Zero").
    1 for a sample without values.
    """
    a, b = comparable(first, second)
    if a.size == 0 or b.size == 0:
        return 1.0
    values = np.concatenate([a, b])
    values = values - values.mean()
    # Sums of the same values in another order differ by rounding; a tie must count as one.
    slack = ROUNDING * float(np.abs(values).sum())
    observed = abs(float(values[: a.size].sum())) - slack
    if math.comb(values.size, a.size) <= MOST_ASSIGNMENTS:
        sums = values[_assignments(values.size, a.size)].sum(axis=1)
        return float((np.abs(sums) >= observed).mean())
    rng = np.random.default_rng(SEED)
    members = rng.random((RANDOM_ASSIGNMENTS, values.size)).argsort(axis=1)[:, : a.size]
    extreme = int((np.abs(values[members].sum(axis=1)) >= observed).sum())
    return (1 + extreme) / (1 + RANDOM_ASSIGNMENTS)


def comparable(first: Sequence[float] | Array, second: Sequence[float] | Array) -> tuple[Array, Array]:
    """Both samples; their ranks if a value is infinite, as after a search whose best trial diverged."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    values = np.concatenate([a, b])
    if not np.isfinite(values).all():
        values = scipy.stats.rankdata(values)
    return values[: a.size], values[a.size :]


@functools.cache
def _assignments(total: int, chosen: int) -> npt.NDArray[np.int8]:
    """The members of the first group in every assignment, shape (assignments, chosen)."""
    every: Any = itertools.chain.from_iterable(itertools.combinations(range(total), chosen))
    return np.fromiter(every, dtype=np.int8, count=math.comb(total, chosen) * chosen).reshape(-1, chosen)


def holm(p_values: Sequence[float]) -> list[float]:
    """Step-down corrected p values (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def smallest_difference(
    first: Sequence[float] | Array,
    second: Sequence[float] | Array,
    num_pairs: int = 1,
    alpha: float = ALPHA,
    power: float = POWER,
) -> float | None:
    """The difference of means that this many repeats, spread like this, show with the given power.

    The t test of two samples of n has power P(T' > t) where T' is noncentral t with 2n - 2 degrees of freedom and
    noncentrality d sqrt(n / 2) / s; solved for d at the size that the permutation test attains at most
    alpha / num_pairs (Holm's first step, the strictest). At normal values the two tests have nearly the same power
    (Hoeffding 1952). None if no difference can come out. (In simulations at n = 5 and 10 the test then shows it in
    79 to 82 % of the cases.)
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    n = min(a.size, b.size)
    level = attainable_level(n, alpha / max(1, num_pairs))
    if n < 2 or level == 0.0 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    spread = math.sqrt((float(a.var(ddof=1)) + float(b.var(ddof=1))) / 2)
    if spread == 0.0:
        return 0.0
    freedom = 2 * n - 2
    critical = scipy.stats.t.ppf(1 - level / 2, freedom)
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = scipy.stats.nct.sf(critical, freedom, middle)
        low, high = (low, middle) if reached >= power else (middle, high)
    return high * spread / math.sqrt(n / 2)


@dataclass(frozen=True)
class Probability:
    value: float
    interval: Interval


def probability_better(
    first: Sequence[float] | Array, second: Sequence[float] | Array, maximize: bool, confidence: float = CONFIDENCE
) -> Probability | None:
    """P(a search of the first ends better than one of the second), a tie counting half, over all pairs of searches.

    This is Mann and Whitney's statistic divided by its maximum; the interval is method 5 of Newcombe (2006, "Confidence
    Intervals for an Effect Size Measure Based on the Mann-Whitney Statistic, Part 2"), which also holds at 0 and 1.
    Bouthillier et al. (2021, "Accounting for Variance in Machine Learning Benchmarks") compare by this probability;
    they call 0.75 a difference worth having.
    """
    a, b = np.asarray(first, dtype=float)[:, None], np.asarray(second, dtype=float)[None]
    if a.size == 0 or b.size == 0:
        return None
    if not maximize:
        a, b = -a, -b
    value = float(((a > b) + 0.5 * (a == b)).mean())
    return Probability(value, _probability_interval(value, a.size, b.size, confidence))


def _probability_interval(value: float, m: int, n: int, confidence: float) -> Interval:
    """Where ``value`` lies z standard errors away, each error being that at the limit itself (Newcombe 2006)."""
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    others = (m + n) / 2 - 1

    def is_beyond(limit: float) -> bool:
        spread = limit * (1 - limit) * (1 + others * ((1 - limit) / (2 - limit) + limit / (1 + limit))) / (m * n)
        return abs(value - limit) > z * math.sqrt(spread)

    ends = []
    for end in (0.0, 1.0):
        inside, outside = value, end
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if is_beyond(middle) else (middle, outside)
        ends.append(inside)
    return Interval(*ends)


def average_ranks(scores: Array, maximize: Sequence[bool]) -> Array:
    """Mean rank over the tasks of each column of ``scores`` (tasks, samplers); 1 is best, ties share the mean rank."""
    signs = np.where(np.asarray(maximize), -1.0, 1.0)[:, None]
    ranks = scipy.stats.rankdata(signs * scores, axis=1)
    return np.asarray(ranks.mean(axis=0))


def friedman(scores: Array, maximize: Sequence[bool]) -> float | None:
    """p value of Iman and Davenport's F form of Friedman's test (Demšar 2006, section 3.2.2); None below 2 x 3."""
    tasks, samplers = scores.shape
    if tasks < 2 or samplers < 3:
        return None
    ranks = average_ranks(scores, maximize)
    chi = 12 * tasks / (samplers * (samplers + 1)) * (float((ranks**2).sum()) - samplers * (samplers + 1) ** 2 / 4)
    rest = tasks * (samplers - 1) - chi
    if rest <= 1e-12:
        return 0.0
    statistic = (tasks - 1) * chi / rest
    return float(scipy.stats.f.sf(statistic, samplers - 1, (samplers - 1) * (tasks - 1)))


def critical_difference(num_samplers: int, num_tasks: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of average ranks (Demšar 2006, section 3.2.2)."""
    q = scipy.stats.studentized_range.ppf(1 - alpha, num_samplers, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(num_samplers * (num_samplers + 1) / (6 * num_tasks)))
