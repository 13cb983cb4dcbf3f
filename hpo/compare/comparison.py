"""Everything that is said about one experiment, computed from its records alone."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hpo.compare import significance
from hpo.compare.curves import Curve, Estimate, Steps, TargetCost, cost_to_target, curve, grid, share_of_budget, steps
from hpo.compare.importance import importance
from hpo.compare.records import AXES, Axis, StudyRecord
from hpo.compare.significance import Probability, SignedRank, Verdict
from hpo.compare.spending import Cost, Noise, cost, noise_within, pooled_spread
from hpo.compare.stats import CONFIDENCE, Interval, mean_interval, median_interval
from hpo.errors import ExperimentError
from hpo.experiment.results import BestTrial, ranked
from hpo.experiment.trainer_version import short_source

BASELINE = "random"


@dataclass(frozen=True)
class Summary:
    """A sample of one value for each repeat or seed, with intervals where there are at least two."""

    n: int
    mean: float
    mean_interval: Interval | None
    median: float
    median_interval: Interval | None


def summarize(values: Sequence[float], confidence: float = CONFIDENCE) -> Summary | None:
    """None for no values."""
    if not values:
        return None
    return Summary(
        len(values),
        float(np.mean(values)),
        mean_interval(values, confidence),
        float(np.median(values)),
        median_interval(values, confidence),
    )


@dataclass(frozen=True)
class Retrained:
    """A sampler's best configuration trained again: ``reported`` is what the search said of it.

    The summaries are those of the seeds that gave a finite value; ``diverged`` counts the others.
    """

    reported: float
    validation: Summary
    test: Summary | None
    seeds: tuple[int, ...]
    diverged: int = 0


@dataclass(frozen=True)
class SamplerComparison:
    """One sampler. ``final`` holds the best value of each repeat that has one; ``carried`` marks an early end."""

    name: str
    repeats: tuple[int, ...]
    study_ids: tuple[int, ...]
    budget: Mapping[str, float]
    curves: Mapping[Axis, Curve]
    final: Mapping[int, float]
    summary: Summary | None
    speed_up: Mapping[Axis, Estimate]
    target: TargetCost | None
    cost: Cost
    best: BestTrial | None
    retrained: Retrained | None = None


@dataclass(frozen=True)
class Pair:
    """Two samplers, paired by repeat; ``difference`` is the mean of first minus second, in the metric's unit.

    ``verdict`` is about the first. ``resolvable`` is False where the difference is inside the noise floor, None where
    no noise floor is known. ``smallest`` is the least difference that these repeats could have shown; None where none.
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


@dataclass(frozen=True)
class Comparison:
    """One experiment compared; ``notes`` are sentences that a reader must not miss."""

    experiment: str
    metric: str
    maximize: bool
    confidence: float
    finished: bool
    samplers: Mapping[str, SamplerComparison]
    pairs: Sequence[Pair]
    importance: Mapping[str, Mapping[str, float]]
    noise: Noise | None
    notes: Sequence[str] = field(default_factory=tuple)
    studies: Mapping[str, int] = field(default_factory=dict)
    study_file: Mapping[str, Any] = field(default_factory=dict)


def compare_studies(studies: Sequence[StudyRecord], *, confidence: float = CONFIDENCE) -> Comparison:
    """Compares the samplers of one experiment.

    Where best configurations have been trained again with fresh seeds, the noise floor comes from those.

    Raises:
        ExperimentError: for no studies, or studies that optimize different things or search different spaces.
    """
    check_comparable(studies)
    by_sampler: dict[str, list[StudyRecord]] = {}
    for name in sampler_order(studies):
        by_sampler[name] = sorted((s for s in studies if s.sampler == name), key=lambda study: study.repeat)
    maximize, first = studies[0].maximize, studies[0]
    paths = {name: [steps(study) for study in group] for name, group in by_sampler.items()}
    everything = [path for group in paths.values() for path in group]
    points = {axis: grid(max(path.total(axis) for path in everything), axis != "seconds") for axis in AXES}
    again = [finite(study.retrained["validation"]) for study in studies if study.retrained]
    noise = pooled_spread(again, "best configurations trained again with fresh seeds") or noise_within(studies)
    target = first.study_file.get("target")
    samplers = {}
    for name, group in by_sampler.items():
        best_of = {study.repeat: study.best() for study in group}
        final = {
            repeat: trial.value for repeat, trial in best_of.items() if trial is not None and trial.value is not None
        }
        samplers[name] = SamplerComparison(
            name=name,
            repeats=tuple(study.repeat for study in group),
            study_ids=tuple(study.study_id for study in group if study.study_id is not None),
            budget=group[0].budget,
            curves={axis: curve(paths[name], axis, points[axis], maximize, confidence) for axis in AXES},
            final=final,
            summary=summarize(list(final.values()), confidence),
            speed_up=_speed_up(by_sampler, paths, name, maximize, confidence),
            target=None if target is None else cost_to_target(paths[name], float(target), maximize, confidence),
            cost=cost(group),
            best=_best(group),
            retrained=_retrained(group, _best(group), confidence),
        )
    finished = all(study.finished for study in studies)
    return Comparison(
        experiment=first.experiment,
        metric=first.metric,
        maximize=maximize,
        confidence=confidence,
        finished=finished,
        samplers=samplers,
        pairs=compare_pairs(samplers, maximize, noise, confidence),
        importance={name: importance(group) for name, group in by_sampler.items()},
        noise=noise,
        notes=(*_notes(samplers, finished), *_record_notes(studies)),
        studies={study.name: study.study_id for study in studies if study.study_id is not None},
        study_file=first.study_file,
    )


def sampler_order(studies: Sequence[StudyRecord]) -> list[str]:
    """The samplers in the study file's order, others after them."""
    listed = studies[0].study_file.get("samplers") or []
    names = [entry if isinstance(entry, str) else entry.get("label") or entry.get("name") for entry in listed]
    present = list(dict.fromkeys(study.sampler for study in studies))
    return [name for name in names if name in present] + [name for name in present if name not in names]


def check_comparable(studies: Sequence[StudyRecord]) -> None:
    """Raises ExperimentError where the studies cannot be compared with each other."""
    if not studies:
        raise ExperimentError("there are no studies to compare")
    first = studies[0]
    for study in studies[1:]:
        for what, mine, theirs in (
            ("metric", first.metric, study.metric),
            ("direction", first.direction, study.direction),
            ("search space", first.study_file.get("space"), study.study_file.get("space")),
        ):
            if mine != theirs:
                shown = "" if what == "search space" else f": {mine} and {theirs}"
                raise ExperimentError(
                    f"the studies {first.name!r} and {study.name!r} differ in their {what}{shown}; values of different "
                    "questions are not compared: run them as two experiments"
                )


def compare_pairs(
    samplers: Mapping[str, SamplerComparison], maximize: bool, noise: Noise | None, confidence: float = CONFIDENCE
) -> list[Pair]:
    """Every pair of samplers over the repeats that both have finished values of, p values corrected over the pairs."""
    names = list(itertools.combinations(samplers, 2))
    differences = []
    for a, b in names:
        common = sorted(samplers[a].final.keys() & samplers[b].final.keys())
        differences.append(np.array([samplers[a].final[r] - samplers[b].final[r] for r in common]))
    tests = [significance.wilcoxon(d) if d.size > 1 else None for d in differences]
    corrected = iter(significance.holm([test.p_value for test in tests if test is not None]))
    pairs = []
    for (a, b), values, test in zip(names, differences, tests, strict=True):
        common = sorted(samplers[a].final.keys() & samplers[b].final.keys())
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
                    [samplers[a].final[r] for r in common], [samplers[b].final[r] for r in common], maximize, confidence
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
    differences: Any,
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
            sentence += f" (95 % {low:.3g} to {high:.3g})" if is_one_sided else " (95 % from either side of 0)"
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


def _speed_up(
    studies: Mapping[str, Sequence[StudyRecord]],
    paths: Mapping[str, Sequence[Steps]],
    name: str,
    maximize: bool,
    confidence: float,
) -> dict[Axis, Estimate]:
    if BASELINE not in studies or name == BASELINE:
        return {}
    mine = {study.repeat: path for study, path in zip(studies[name], paths[name], strict=True)}
    theirs = {study.repeat: path for study, path in zip(studies[BASELINE], paths[BASELINE], strict=True)}
    common = sorted(mine.keys() & theirs.keys())
    found = {
        axis: share_of_budget([theirs[r] for r in common], [mine[r] for r in common], axis, maximize, confidence)
        for axis in AXES
    }
    return {axis: estimate for axis, estimate in found.items() if estimate is not None}


def _best(studies: Sequence[StudyRecord]) -> BestTrial | None:
    """The best configuration of one sampler over its repeats; None if no trial is complete."""
    candidates = [replace(o, study_id=index) for index, study in enumerate(studies) for o in study.outcomes()]
    found = ranked(candidates, studies[0].maximize)
    if not found:
        return None
    result = found[0]
    study = studies[result.outcome.study_id]
    trial = study.trial(result.outcome.number)
    return BestTrial(
        study=study.name,
        sampler=study.sampler,
        number=trial.number,
        value=result.outcome.value,
        given=trial.given or trial.config or trial.params,
        config=trial.config or trial.given,
        seed=trial.seed or 0,
        attrs={},
        mean=result.mean,
        std=result.std,
        runs=result.runs,
        study_id=study.study_id or 0,
        repeat=study.repeat,
        params=trial.params,
    )


def _retrained(studies: Sequence[StudyRecord], best: BestTrial | None, confidence: float) -> Retrained | None:
    """What training the best trial again gave; None if that was not done, if another trial is the best by now, or if
    every run diverged."""
    for study in studies:
        again = study.retrained
        if best is not None and again and (study.name, again["trial"]) == (best.study, best.number):
            validation = summarize(finite(again["validation"]), confidence)
            if validation is None:
                return None
            diverged = len(again["seeds"]) - validation.n
            test = summarize(finite(again["test"] or []), confidence)
            return Retrained(best.value, validation, test, tuple(again["seeds"]), diverged)
    return None


def finite(values: Sequence[float | None]) -> list[float]:
    """The values that are finite numbers."""
    return [value for value in values if value is not None and math.isfinite(value)]


def _notes(samplers: Mapping[str, SamplerComparison], finished: bool) -> tuple[str, ...]:
    notes = []
    empty = [name for name, sampler in samplers.items() if not sampler.final]
    if len(empty) == len(samplers):
        notes.append("No trial has finished yet: there is nothing to compare so far.")
    elif empty:
        notes.append(f"No finished trial yet: {', '.join(empty)}.")
    if not finished:
        notes.append("The experiment is not finished: these numbers will change.")
    if all(len(sampler.repeats) == 1 for sampler in samplers.values()):
        notes.append(
            "One repeat only: curves have no intervals and no verdict is possible. "
            "A study file with more repeats shows what is more than chance."
        )
    return tuple(notes)


def _version_notes(studies: Sequence[StudyRecord]) -> list[str]:
    """Which trials were trained by which version of the trainer's code, if there are several."""
    numbers: dict[str, dict[str, list[int]]] = {}
    for study in studies:
        for trial in study.trials:
            if trial.source is not None:
                numbers.setdefault(trial.source, {}).setdefault(study.name, []).append(trial.number)
    if len(numbers) < 2:
        return []
    parts = [
        f"{short_source(source)} trained {sum(map(len, of.values()))} trials ("
        + "; ".join(f"{name}: {_ranges(found)}" for name, found in of.items())
        + ")"
        for source, of in numbers.items()
    ]
    return [f"The trials come from {len(numbers)} versions of the trainer's code: {', '.join(parts)}."]


def _start_notes(studies: Sequence[StudyRecord]) -> list[str]:
    """Which samplers tried configurations of earlier experiments first, and whether one of them is the best."""
    sources: dict[str, None] = {}
    samplers: dict[str, None] = {}
    best_of: list[str] = []
    for study in studies:
        for trial in study.last_attempts():
            if trial.start_from:
                sources[str(trial.start_from.get("experiment", "the portfolio"))] = None
                samplers[study.sampler] = None
        if (best := study.best()) is not None and best.start_from:
            best_of.append(f"{study.sampler}/{study.repeat}")
    notes = _knowledge_notes(studies)
    if not sources:
        return notes
    found = f"; one of them is the best of {', '.join(best_of)}" if best_of else "; none of them is the best of a study"
    return [
        *notes,
        f"The first trials of {', '.join(samplers)} have configurations of {', '.join(sources)}, counted in the budget"
        f"{found}.",
    ]


def _knowledge_notes(studies: Sequence[StudyRecord]) -> list[str]:
    """Which samplers knew imported trials, which are no results here."""
    numbers: dict[str, int] = {}
    for study in studies:
        numbers[study.sampler] = max(numbers.get(study.sampler, 0), study.knowledge)
    informed = [f"{sampler} ({number})" for sampler, number in numbers.items() if number]
    if not informed:
        return []
    return [f"Imported trials informed {', '.join(informed)} and cost it no budget: compare it with the others so."]


def _ranges(numbers: Sequence[int]) -> str:
    """Such as ``0-5, 8``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _record_notes(studies: Sequence[StudyRecord]) -> list[str]:
    """What a reader has to know of the record behind the numbers."""
    notes = []
    failed = sum(trial.state == "failed" for study in studies for trial in study.last_attempts())
    if failed:
        notes.append(f"{_count(failed, 'trial')} of the budget failed and gave no result: hpo status says why.")
    imported = sum(study.imported for study in studies)
    if imported:
        notes.append(f"{_count(imported, 'finished trial')} added by hand: not part of this comparison.")
    notes += _start_notes(studies)
    notes += _version_notes(studies)
    if any(trial.counts_slots for study in studies for trial in study.trials):
        notes.append(
            "Seconds of trials that an older version trained side by side are the time in their slots, not "
            "worker-seconds: they are too large by up to the number of slots."
        )
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
