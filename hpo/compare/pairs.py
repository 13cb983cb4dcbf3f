"""Each pair of samplers: the difference of their final values, its interval, the test and a sentence on it.

:func:`compare_pairs` makes the numbers from the final values alone, :func:`headline` the sentence that a reader sees
first.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hpo.compare import significance
from hpo.compare.significance import Probability, SignedRank, Verdict
from hpo.compare.spending import Noise
from hpo.compare.stats import CONFIDENCE, Array, Interval, mean_interval

Finals = Mapping[str, Mapping[int, float]]
"""Sampler -> repeat -> the best value of that repeat."""


@dataclass(frozen=True)
class Pair:
    """Two samplers, paired by repeat; ``difference`` is the mean of first minus second, in the metric's unit.

    ``verdict`` is about the first. ``resolvable`` is False if the difference is inside the noise floor, None if there
    is no noise floor. ``smallest`` is the least difference that these repeats could have shown; None if there is none.
    """

    first: str
    second: str
    n: int
    difference: float | None
    interval: Interval | None
    wilcoxon: SignedRank | None
    p_corrected: float | None
    probability: Probability | None
    verdict: Verdict
    resolvable: bool | None
    smallest: float | None
    sentence: str


def compare_pairs(finals: Finals, maximize: bool, noise: Noise | None, confidence: float = CONFIDENCE) -> list[Pair]:
    """Every pair of samplers over the repeats that both have finished values of, p values corrected over the pairs."""
    names = list(itertools.combinations(finals, 2))
    differences = []
    for a, b in names:
        common = sorted(finals[a].keys() & finals[b].keys())
        differences.append(np.array([finals[a][r] - finals[b][r] for r in common]))
    tests = [significance.wilcoxon(d) if d.size > 1 else None for d in differences]
    corrected = iter(significance.holm([test.p_value for test in tests if test is not None]))
    pairs = []
    for (a, b), values, test in zip(names, differences, tests, strict=True):
        common = sorted(finals[a].keys() & finals[b].keys())
        p_corrected = next(corrected) if test is not None else None
        difference = float(values.mean()) if values.size else None
        # With fewer repeats the test cannot reach its level, however large the difference is.
        is_short = values.size < significance.fewest_repeats(len(names))
        verdict: Verdict = "not decided" if is_short else "no difference that these repeats could show"
        if test is not None and p_corrected is not None and p_corrected <= significance.ALPHA:
            # The direction is that of the rank sums, which the test is about; a mean can point the other way.
            verdict = "better" if (test.sign > 0) == maximize else "worse"
        smallest = significance.smallest_difference(values, len(names))
        interval = mean_interval(values, confidence)
        resolvable = None if noise is None or difference is None else abs(difference) > noise.spread
        pairs.append(
            Pair(
                a,
                b,
                int(values.size),
                difference,
                interval,
                test,
                p_corrected,
                significance.probability_better(
                    [finals[a][r] for r in common], [finals[b][r] for r in common], maximize, confidence
                ),
                verdict,
                resolvable,
                smallest,
                _sentence(
                    a, b, values, verdict, p_corrected, smallest, resolvable, noise, len(names), maximize, interval
                ),
            )
        )
    return pairs


def _sentence(
    a: str,
    b: str,
    differences: Array,
    verdict: str,
    p_corrected: float | None,
    smallest: float | None,
    resolvable: bool | None,
    noise: Noise | None,
    num_pairs: int,
    maximize: bool,
    interval: Interval | None,
) -> str:
    n = len(differences)
    if n == 0:
        return f"{a} against {b}: no repeat has a finished trial of both yet"
    size = abs(float(differences.mean()))
    fewest = significance.fewest_repeats(num_pairs)
    if verdict == "not decided":
        sentence = (
            f"{a} against {b}: not decided by the test, which takes {fewest} repeats of both and has {n}; "
            f"so far {_ahead(a, b, float(differences.mean()), maximize)}"
        )
        if interval is not None:
            low, high = sorted((abs(interval.low), abs(interval.high)))
            is_one_sided = interval.low * interval.high > 0
            sentence += f" (95 % {low:.3g} to {high:.3g})" if is_one_sided else " (its 95 % interval holds 0)"
    elif verdict == "no difference that these repeats could show":
        sentence = f"{a} against {b}: {verdict}"
        if smallest is not None:
            sentence += f"; the smallest that they could have shown is {smallest:.3g}"
    else:
        sentence = f"{a} is {verdict} than {b} by {size:.3g} (p = {p_corrected:.2g})"
    if resolvable is False and noise is not None:
        sentence += f"; not resolvable: {size:.2g} is inside the noise floor of {noise.spread:.2g}"
    return sentence


def _ahead(a: str, b: str, difference: float, maximize: bool) -> str:
    """Which of the two has the better mean, and by how much; ``difference`` is that of ``a`` minus ``b``."""
    if difference == 0:
        return "they are equal"
    return f"{a if (difference > 0) == maximize else b} is ahead by {abs(difference):.3g}"


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
    is_first = (pair.difference > 0) == maximize
    leader, other = (pair.first, pair.second) if is_first else (pair.second, pair.first)
    size = _estimate(pair.difference, pair.interval)
    n = f"{pair.n} repeat{'' if pair.n == 1 else 's'}"
    if pair.verdict in ("better", "worse"):
        better, worse = (pair.first, pair.second) if pair.verdict == "better" else (pair.second, pair.first)
        sentence = f"{better} is better than {worse} by {size}, p = {pair.p_corrected:.2g} over {n}"
    elif pair.difference == 0:
        sentence = f"{leader} and {other} are equal over {n}"
    elif pair.n == 1:
        sentence = f"{leader} is ahead of {other} by {size} in one repeat of each, which may be chance"
    elif pair.verdict == "not decided":
        fewest = significance.fewest_repeats(len(pairs))
        sentence = f"Not decided: {leader} is ahead of {other} by {size} over {n}, and the test takes {fewest}"
    else:
        sentence = f"No difference that {n} could show: {leader} is ahead of {other} by {size}"
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
