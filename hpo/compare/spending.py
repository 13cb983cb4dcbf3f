"""Cost of a search (trials, epochs, worker-seconds, duplicates), the pruning audit, and the noise floor of training."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpo.compare.records import StudyRecord
from hpo.experiment.results import Outcome

TOP_SHARE = 0.05


@dataclass(frozen=True)
class Audit:
    """Trials that would have been pruned and were continued to see what they would have become.

    Attributes:
        continued: how many ran to the end.
        would_prune: all that the pruner wanted to stop, pruned ones included.
        in_top: how many of ``continued`` ended among the best 5 % of their study's finished trials.
    """

    continued: int
    would_prune: int
    in_top: int


@dataclass(frozen=True)
class Cost:
    """What one sampler's repeats spent in all.

    Attributes:
        trials: units of the budget that ended: complete, pruned or failed for good.
        pruned_share: of ``complete + pruned``; None if there are none.
        retried: attempts that failed or were given back and were taken up again.
        epochs, seconds: of all attempts, the failed ones too; seconds are worker-seconds.
        duplicates: finished trials whose configuration their study had finished before.
    """

    trials: int
    complete: int
    pruned: int
    pruned_share: float | None
    failed: int
    retried: int
    running: int
    waiting: int
    epochs: int
    seconds: float
    duplicates: int
    audit: Audit | None


def cost(studies: Sequence[StudyRecord]) -> Cost:
    """Adds up the repeats of one sampler."""
    counts: dict[str, int] = defaultdict(int)
    duplicates = retried = epochs = 0
    seconds = 0.0
    for study in studies:
        last = study.last_attempts()
        for trial in last:
            counts[trial.state] += 1
        finished = [trial for trial in last if trial.finished]
        duplicates += len(finished) - len({trial.identity() for trial in finished})
        retried += len(study.trials) - len(last)
        epochs += sum(trial.trained_epochs for trial in study.trials)
        seconds += sum(trial.seconds for trial in study.trials)
    ended = counts["complete"] + counts["pruned"]
    return Cost(
        trials=ended + counts["failed"],
        complete=counts["complete"],
        pruned=counts["pruned"],
        pruned_share=counts["pruned"] / ended if ended else None,
        failed=counts["failed"],
        retried=retried,
        running=counts["running"],
        waiting=counts["waiting"],
        epochs=epochs,
        seconds=seconds,
        duplicates=duplicates,
        audit=audit(studies),
    )


def audit(studies: Sequence[StudyRecord]) -> Audit | None:
    """The pruning audit of one sampler's repeats; None if no trial was audited."""
    continued = would_prune = in_top = 0
    for study in studies:
        finished = [trial for trial in study.last_attempts() if trial.finished]
        audited = [trial for trial in finished if trial.audited is not None]
        would_prune += sum(trial.state == "pruned" or trial.audited is not None for trial in finished)
        places = math.ceil(TOP_SHARE * len(finished))
        sign = -1.0 if study.maximize else 1.0
        values = [sign * t.value for t in finished if t.state == "complete" and t.value is not None]
        for trial in audited:
            if trial.state == "complete" and trial.value is not None:
                continued += 1
                in_top += sum(value < sign * trial.value for value in values) < places
    return Audit(continued, would_prune, in_top) if continued else None


@dataclass(frozen=True)
class Noise:
    """The spread of one configuration over fresh training seeds.

    Attributes:
        spread: standard deviation, pooled over configurations.
        freedom: degrees of freedom behind it.
        configurations: how many were trained with several seeds.
        source: in words, which values it was computed from.
    """

    spread: float
    freedom: int
    configurations: int
    source: str


def pooled_spread(groups: Iterable[Sequence[float]], source: str) -> Noise | None:
    """Pooled standard deviation of groups of values of one configuration each; None without two values in one.

    (Bouthillier et al. 2021 measure this variance, of the seeds at a fixed configuration, beside the others.)
    """
    repeated = [np.asarray(group, dtype=float) for group in groups if len(group) > 1]
    freedom = sum(group.size - 1 for group in repeated)
    if freedom == 0:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in repeated)
    return Noise(math.sqrt(squares / freedom), freedom, len(repeated), source)


def noise_floor(
    again: Iterable[Sequence[float]], outcomes: Sequence[Outcome], maximize: bool, num_seeds: int = 1
) -> Noise | None:
    """The noise floor of the values that are compared, from the best source that there is.

    That is: best configurations trained ``again`` with fresh seeds, the seeds of the trials themselves, configurations
    that several trials trained. ``num_seeds`` is that of a trial, whose value is their mean: the standard deviation of
    a mean of n independent values is that of one, divided by the square root of n.
    """
    if num_seeds < 2:
        return pooled_spread(again, "best configurations trained again with fresh seeds") or noise_within(
            outcomes, maximize
        )
    of_mean = f"of a mean of {num_seeds} seeds"
    single = pooled_spread(again, f"best configurations trained again with fresh seeds, {of_mean}")
    single = single or _noise_of_seeds(outcomes, maximize, f"the seeds of the better half of the trials, {of_mean}")
    return None if single is None else replace(single, spread=single.spread / math.sqrt(num_seeds))


def _noise_of_seeds(outcomes: Sequence[Outcome], maximize: bool, source: str) -> Noise | None:
    sign = -1.0 if maximize else 1.0
    several = [outcome for outcome in outcomes if len(outcome.seed_values) > 1]
    several.sort(key=lambda outcome: sign * outcome.value)
    return pooled_spread([o.seed_values for o in several[: max(1, len(several) // 2)]], source)


def noise_within(outcomes: Sequence[Outcome], maximize: bool) -> Noise | None:
    """The noise floor from configurations that the experiment itself trained more than once with different seeds.

    The cells of a grid in several repeats are such. Only the better half of them counts (at least one): the noise at
    poor configurations is larger and decides nothing.
    """
    groups: dict[str, dict[object, float]] = defaultdict(dict)
    for outcome in outcomes:
        seed = outcome.seed if outcome.seed is not None else (outcome.study_id, outcome.number)
        groups[outcome.config_key].setdefault(seed, outcome.value)
    repeated = [list(group.values()) for group in groups.values() if len(group) > 1]
    if not repeated:
        return None
    sign = -1.0 if maximize else 1.0
    repeated.sort(key=lambda values: sign * float(np.mean(values)))
    better = repeated[: max(1, len(repeated) // 2)]
    return pooled_spread(better, "the better half of the configurations that were trained with several seeds")
