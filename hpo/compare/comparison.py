"""The comparison of one experiment's samplers, computed from its records alone.

:func:`compare_studies` puts together what the other files compute: final values (``summary``), differences and tests
(``pairs``), best-so-far curves (``curves``), cost and noise (``spending``), ``importance`` and ``notes``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hpo.compare.curves import Curve, Estimate, Steps, TargetCost, cost_to_target, curve, grid, share_of_budget, steps
from hpo.compare.importance import importance
from hpo.compare.notes import record_notes, standing_notes
from hpo.compare.pairs import Pair, compare_pairs
from hpo.compare.pareto import METRIC, Pareto, note, pareto_of
from hpo.compare.records import AXES, CURVE_AXES, Axis, StudyRecord
from hpo.compare.spending import Cost, Noise, cost, noise_floor
from hpo.compare.stats import CONFIDENCE
from hpo.compare.summary import Summary, finite, summarize
from hpo.errors import ExperimentError
from hpo.experiment.results import BestTrial, ranked
from hpo.search.objectives import Objective

BASELINE = "random"


@dataclass(frozen=True)
class Retrained:
    """A sampler's best configuration trained again: ``reported`` is its value in the search.

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
class Comparison:
    """One experiment compared; ``notes`` are sentences that a reader must not miss.

    With two ``objectives`` samplers are compared by the hypervolume: it is the ``metric``; ``pareto`` has the front.
    """

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
    objectives: tuple[Objective, ...] = ()
    pareto: Pareto | None = None


def compare_studies(studies: Sequence[StudyRecord], *, confidence: float = CONFIDENCE) -> Comparison:
    """Compares the samplers of one experiment.

    The noise floor is that of :func:`hpo.compare.spending.noise_floor`.

    Raises:
        ExperimentError: for no studies, or studies that optimize different things or search different spaces.
    """
    check_comparable(studies)
    by_sampler: dict[str, list[StudyRecord]] = {}
    for name in sampler_order(studies):
        by_sampler[name] = sorted((s for s in studies if s.sampler == name), key=lambda study: study.repeat)
    first, pareto = studies[0], pareto_of(studies)
    has_front = len(first.objectives) > 1
    maximize = has_front or first.maximize
    paths = {name: [steps(study, pareto) for study in group] for name, group in by_sampler.items()}
    everything = [path for group in paths.values() for path in group]
    points = {
        axis: grid(max(path.total(axis) for path in everything), axis in ("trials", "epochs")) for axis in CURVE_AXES
    }
    again = [finite(study.retrained["validation"]) for study in studies if study.retrained]
    noise = None  # is known for a metric, not for a hypervolume
    if not has_front:
        noise = noise_floor(
            again,
            [replace(o, study_id=index) for index, study in enumerate(studies) for o in study.outcomes()],
            maximize,
            int(first.study_file.get("seeds_per_trial") or 1),
        )
    target = first.study_file.get("target")
    samplers = {}
    for name, group in by_sampler.items():
        best_of = {study.repeat: study.best() for study in group}
        final = {
            repeat: trial.value for repeat, trial in best_of.items() if trial is not None and trial.value is not None
        }
        if has_front:
            volumes = {} if pareto is None else {study.repeat: pareto.hypervolume(study) for study in group}
            final = {repeat: volume for repeat, volume in volumes.items() if volume is not None}
        samplers[name] = SamplerComparison(
            name=name,
            repeats=tuple(study.repeat for study in group),
            study_ids=tuple(study.study_id for study in group if study.study_id is not None),
            budget=group[0].budget,
            curves={axis: curve(paths[name], axis, points[axis], maximize, confidence) for axis in CURVE_AXES},
            final=final,
            summary=summarize(list(final.values()), confidence),
            speed_up=_speed_up(by_sampler, paths, name, maximize, confidence),
            target=None if target is None else cost_to_target(paths[name], float(target), maximize, confidence),
            cost=cost(group),
            best=_best(group),
            retrained=_retrained(group, _best(group), confidence),
        )
    finished = all(study.finished for study in studies)
    finals = {name: sampler.final for name, sampler in samplers.items()}
    notes = standing_notes(finals, {name: len(sampler.repeats) for name, sampler in samplers.items()}, finished)
    return Comparison(
        experiment=first.experiment,
        metric=METRIC if has_front else first.metric,
        maximize=maximize,
        confidence=confidence,
        finished=finished,
        samplers=samplers,
        pairs=compare_pairs(finals, maximize, noise, confidence),
        importance={name: importance(group) for name, group in by_sampler.items()},
        noise=noise,
        notes=(*([] if pareto is None else [note(pareto)]), *notes, *record_notes(studies)),
        studies={study.name: study.study_id for study in studies if study.study_id is not None},
        study_file=first.study_file,
        objectives=first.objectives,
        pareto=pareto,
    )


def sampler_order(studies: Sequence[StudyRecord]) -> list[str]:
    """The samplers in the study file's order, others after them."""
    listed = studies[0].study_file.get("samplers") or []
    names = [entry if isinstance(entry, str) else entry.get("label") or entry.get("name") for entry in listed]
    present = list(dict.fromkeys(study.sampler for study in studies))
    return [name for name in names if name in present] + [name for name in present if name not in names]


def check_comparable(studies: Sequence[StudyRecord]) -> None:
    """Raises ExperimentError if the studies cannot be compared with each other."""
    if not studies:
        raise ExperimentError("there are no studies to compare")
    first = studies[0]
    for study in studies[1:]:
        for what, mine, theirs in (
            ("metric", first.metric, study.metric),
            ("direction", first.direction, study.direction),
            ("second metric", first.objectives[1:], study.objectives[1:]),
            ("search space", first.study_file.get("space"), study.study_file.get("space")),
        ):
            if mine != theirs:
                shown = "" if what == "search space" else f": {mine} and {theirs}"
                raise ExperimentError(
                    f"the studies {first.name!r} and {study.name!r} differ in their {what}{shown}; values of different "
                    "questions are not compared: run them as two experiments"
                )


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
        second=trial.second,
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
