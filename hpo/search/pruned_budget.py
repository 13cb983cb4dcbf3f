"""What a number of trials comes to under a pruner that keeps a share of them at each rung (``asha``, ``hyperband``).

Such a pruner decides by ranks alone, so how much is trained does not depend on the problem, but for how well the ranks
of one rung agree with those of the next.
"""

import bisect
import random
import statistics
from dataclasses import dataclass

from hpo.search.pruner_registry import AshaOptions, HyperbandOptions, PrunerSpec, num_brackets

REPEATS = 100
QUICK_REPEATS = 5
"""Where a worker begins, which is not to wait."""

MOST_TRIALS = 200
"""With more trials than this, the others are taken to train what these do on average."""

DISAGREEMENT = 0.1
"""Standard deviation by which a trial's rank at a rung, in [0, 1], differs from its own.

With it 20 and 100 trials of 27 epochs come to 111 and 351 epochs with ASHA, 3.0 and 6.2 of them complete; on synthetic
learning curves over six tables, 240 searches, it was 109 and 351 epochs, 2.9 and 6.2 complete.
"""


@dataclass(frozen=True)
class Expected:
    """On average over random orders of trials: epochs that they train, and how many are trained to their end."""

    epochs: float
    complete: float


def expected(spec: PrunerSpec, trials: int, max_epochs: int) -> Expected | None:
    """What ``trials`` of ``max_epochs`` come to, one after the other; None for a pruner that does not count shares."""
    brackets = _brackets(spec, max_epochs)
    if brackets is None:
        return None
    counted = min(trials, MOST_TRIALS)
    runs = [_simulated(brackets, counted, max_epochs, random.Random(seed)) for seed in range(REPEATS)]
    factor = trials / counted
    return Expected(factor * statistics.fmean(e for e, _ in runs), factor * statistics.fmean(c for _, c in runs))


def trials_for(spec: PrunerSpec, epochs: int, max_epochs: int) -> int | None:
    """About how many trials of ``max_epochs`` a budget of ``epochs`` comes to; None as for :func:`expected`.

    The more trials there are the less each takes, as the pruner's first ones are judged by few others.
    """
    brackets = _brackets(spec, max_epochs)
    if brackets is None:
        return None
    trials = max(1, epochs // max_epochs)
    for _ in range(3):
        counted = min(trials, MOST_TRIALS)
        runs = [_simulated(brackets, counted, max_epochs, random.Random(seed))[0] for seed in range(QUICK_REPEATS)]
        trials = max(1, int(epochs * counted / statistics.fmean(runs)))
    return trials


@dataclass(frozen=True)
class _Bracket:
    weight: float
    rungs: tuple[int, ...]
    reduction_factor: int
    bootstrap_count: int = 0


def _brackets(spec: PrunerSpec, max_epochs: int) -> list[_Bracket] | None:
    options = spec.options
    if isinstance(options, AshaOptions):
        first = options.min_epochs * options.reduction_factor**options.min_early_stopping_rate
        rungs = _rungs(first, options.reduction_factor, max_epochs)
        return [_Bracket(1.0, rungs, options.reduction_factor, options.bootstrap_count)]
    if isinstance(options, HyperbandOptions):
        most, factor = options.max_epochs or max_epochs, options.reduction_factor
        count = num_brackets(options, most)
        return [
            # As Optuna shares trials out: in proportion to the first rungs of the brackets.
            _Bracket(
                -(-count * factor ** (count - 1 - index) // (count - index)),
                _rungs(options.min_epochs * factor**index, factor, max_epochs),
                factor,
            )
            for index in range(count)
        ]
    return None


def _rungs(first: int, factor: int, max_epochs: int) -> tuple[int, ...]:
    """The epochs before the last at which a trial may end."""
    rungs = []
    while first < max_epochs:
        rungs.append(first)
        first *= factor
    return tuple(rungs)


def _simulated(brackets: list[_Bracket], trials: int, max_epochs: int, rng: random.Random) -> tuple[int, int]:
    """Epochs and complete trials of one random order."""
    seen: dict[tuple[int, int], list[float]] = {}
    epochs = complete = 0
    for _ in range(trials):
        index = rng.choices(range(len(brackets)), [bracket.weight for bracket in brackets])[0]
        bracket, rank = brackets[index], rng.random()
        for rung in bracket.rungs:
            others = seen.setdefault((index, rung), [])
            here = rng.gauss(rank, DISAGREEMENT)
            num_better = bisect.bisect_left(others, here)
            goes_on = num_better < max(1, (len(others) + 1) // bracket.reduction_factor)
            goes_on = goes_on and len(others) >= bracket.bootstrap_count
            bisect.insort(others, here)
            if not goes_on:
                epochs += rung
                break
        else:
            epochs += max_epochs
            complete += 1
    return epochs, complete
