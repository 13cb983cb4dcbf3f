"""Each pair of samplers: the difference of their final values, its interval, the test and a sentence on it.

:func:`compare_pairs` makes the numbers from the final values alone, :func:`headline` the sentence that a reader sees
first.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpo.compare import significance
from hpo.compare.significance import Probability, Verdict
from hpo.compare.spending import Noise
from hpo.compare.stats import CONFIDENCE, Interval, difference_interval
from hpo.studyfile.repeats import ALPHA, fewest_repeats

Finals = Mapping[str, Mapping[int, float]]
"""Sampler -> repeat -> the best value of that repeat."""


@dataclass(frozen=True)
class Pair:
    """Two samplers over the repeats that both have; ``difference``: the mean of first minus that of second.

    ``verdict`` is about the first. ``p_value`` is that of :func:`hpo.compare.significance.permutation_test`, None below
    two repeats. ``resolvable`` is False if the difference is inside the noise floor, None if there is no noise floor.
    ``smallest`` is the least difference that these repeats could have shown; None if there is none. ``needed`` is the
    number of repeats from which the test can decide.
    """

    first: str
    second: str
    n: int
    difference: float | None
    interval: Interval | None
    p_value: float | None
    p_corrected: float | None
    probability: Probability | None
    verdict: Verdict
    resolvable: bool | None
    smallest: float | None
    needed: int
    sentence: str = ""


def compare_pairs(finals: Finals, maximize: bool, noise: Noise | None, confidence: float = CONFIDENCE) -> list[Pair]:
    """Every pair of samplers over the repeats that both have finished values of, p values corrected over the pairs."""
    names = list(itertools.combinations(finals, 2))
    samples = []
    for a, b in names:
        common = sorted(finals[a].keys() & finals[b].keys())
        samples.append((np.array([finals[a][r] for r in common]), np.array([finals[b][r] for r in common])))
    tests = [significance.permutation_test(first, second) if first.size > 1 else None for first, second in samples]
    corrected = iter(significance.holm([p_value for p_value in tests if p_value is not None]))
    needed = fewest_repeats(len(names))
    pairs = []
    for (a, b), (first, second), p_value in zip(names, samples, tests, strict=True):
        p_corrected = next(corrected) if p_value is not None else None
        difference = float(first.mean() - second.mean()) if first.size else None
        # With fewer repeats the test cannot reach its level, however large the difference is.
        verdict: Verdict = "not decided" if first.size < needed else "no difference that these repeats could show"
        if p_corrected is not None and p_corrected <= ALPHA:
            x, y = significance.comparable(first, second)
            verdict = "better" if (x.mean() > y.mean()) == maximize else "worse"
        pair = Pair(
            first=a,
            second=b,
            n=int(first.size),
            difference=difference,
            interval=difference_interval(first, second, confidence),
            p_value=p_value,
            p_corrected=p_corrected,
            probability=significance.probability_better(first, second, maximize, confidence),
            verdict=verdict,
            resolvable=None if noise is None or difference is None else abs(difference) > noise.spread,
            smallest=significance.smallest_difference(first, second, len(names)),
            needed=needed,
        )
        pairs.append(replace(pair, sentence=_sentence(pair, noise, maximize)))
    return pairs


def _sentence(pair: Pair, noise: Noise | None, maximize: bool) -> str:
    a, b = pair.first, pair.second
    if pair.difference is None:
        return f"{a} against {b}: no repeat has a finished trial of both yet"
    size = abs(pair.difference)
    if pair.verdict == "not decided":
        sentence = f"{a} against {b}: not decided by the test: {_lacking(pair)}; so far {_ahead(pair, maximize)}"
    elif pair.verdict == "no difference that these repeats could show":
        sentence = f"{a} against {b}: {pair.verdict}; {_ahead(pair, maximize)}"
        if pair.smallest is not None:
            sentence += f"; the smallest that they could have shown is {pair.smallest:.3g}"
    else:
        sentence = f"{a} is {pair.verdict} than {b} by {size:.3g} (p = {pair.p_corrected:.2g})"
    if pair.resolvable is False and noise is not None:
        sentence += f"; not resolvable: {size:.2g} is inside the noise floor of {noise.spread:.2g}"
    return sentence


def _ordered(pair: Pair, maximize: bool) -> tuple[str, str]:
    """Its samplers, that with the better mean first."""
    is_first = ((pair.difference or 0.0) > 0) == maximize
    return (pair.first, pair.second) if is_first else (pair.second, pair.first)


def _lacking(pair: Pair) -> str:
    return f"{pair.needed} repeats needed, {pair.n} made"


def _ahead(pair: Pair, maximize: bool) -> str:
    """Which of the two has the better mean, with the estimate, its interval and the probability."""
    if not pair.difference:
        return "they are equal"
    leader, other = _ordered(pair, maximize)
    found = f"{leader} is ahead of {other} by {_estimate(pair.difference, pair.interval)}"
    if pair.probability is None or pair.n < 2:
        return found
    value, interval = pair.probability.value, pair.probability.interval
    low, high = interval.low, interval.high
    if leader != pair.first:
        value, low, high = 1 - value, 1 - high, 1 - low
    return f"{found} and better with probability {value:.2g} (95 %: {low:.2g} to {high:.2g})"


def headline(finals: Finals, pairs: Sequence[Pair], maximize: bool) -> str:
    """The verdict in one sentence: the sampler with the best mean against the next best, with estimate and interval.

    Both means are taken over the repeats that the two have in common. "" for one sampler, or before two samplers share
    a repeat with a value.
    """
    ahead = sorted(
        (name for name, values in finals.items() if values),
        key=lambda name: (-1 if maximize else 1) * float(np.mean(list(finals[name].values()))),
    )
    known = {frozenset((pair.first, pair.second)): pair for pair in pairs if pair.difference is not None}
    if len(ahead) < 2 or (pair := known.get(frozenset(ahead[:2]))) is None:
        return ""
    assert pair.difference is not None
    leader, other = _ordered(pair, maximize)
    n = f"{pair.n} repeat{'' if pair.n == 1 else 's'}"
    if pair.verdict in ("better", "worse"):
        better, worse = (pair.first, pair.second) if pair.verdict == "better" else (pair.second, pair.first)
        size = _estimate(pair.difference, pair.interval)
        sentence = f"{better} is better than {worse} by {size}, p = {pair.p_corrected:.2g} over {n}"
    elif pair.difference == 0:
        sentence = f"{leader} and {other} are equal over {n}"
    elif pair.n == 1:
        sentence = f"{_ahead(pair, maximize)} in one repeat of each, which may be chance"
    elif pair.verdict == "not decided":
        sentence = f"Not decided by the test: {_lacking(pair)}; so far {_ahead(pair, maximize)}"
    else:
        sentence = f"No difference that {n} could show: {_ahead(pair, maximize)}"
    behind = [
        name
        for name in ahead[1:]
        if name != other and (third := known.get(frozenset((leader, name)))) is not None and _is_better(third, leader)
    ]
    if behind:
        sentence += f"; {leader} is better than {' and '.join(behind)}"
    return sentence + "."


def _is_better(pair: Pair, name: str) -> bool:
    return pair.verdict == ("better" if pair.first == name else "worse")


def _estimate(difference: float, interval: Interval | None) -> str:
    """``0.012 (95 %: 0.004 to 0.02)``, of the size of a difference; an interval about zero keeps its negative end."""
    if interval is None:
        return f"{abs(difference):.3g}"
    low, high = (interval.low, interval.high) if difference > 0 else (-interval.high, -interval.low)
    return f"{abs(difference):.3g} (95 %: {low:.3g} to {high:.3g})"
