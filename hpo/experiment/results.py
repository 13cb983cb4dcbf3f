"""What counts as a result of an experiment, and which result is the best: the rule that every view uses.

- A trial counts if the service trained it: it has a row in ``hpo_trials`` that no later attempt has replaced. Trials
  that a person adds with Optuna inform the sampler, but cost nothing of the budget and are nobody's result.
- Only a COMPLETE trial with a finite value is a candidate for the best. A pruned one was stopped as worse, a failed
  one has no value.
- A trial that violates a measured constraint is a result, and no candidate for the best.
- A configuration that several seeds have trained counts with the mean over the seeds: of many single runs the best
  one is mostly the luckiest one.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from hpo.database import attributes
from hpo.database.trial_writes import KEEPS_CONSTRAINTS
from hpo.errors import ExperimentError, UsageError, near_miss
from hpo.experiment.experiment import Experiment
from hpo.search.bounds import listed
from hpo.search.objectives import Objective, pareto_front


@dataclass(frozen=True)
class Outcome:
    """A COMPLETE trial that counts; ``config_key`` is equal for equal configurations, whatever their seeds, ``second``
    the value of the second objective, ``seed_values`` those of its seeds if its value is the mean over several."""

    trial_id: int
    study_id: int
    number: int
    value: float
    config_key: str
    seed: int | None = None
    second: float | None = None
    seed_values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Result:
    """A configuration with what its seeds gave.

    ``outcome`` is the trial that stands for it: the only one, or of several the one nearest to their mean. ``second``
    is the mean of the second objective.
    """

    outcome: Outcome
    mean: float
    std: float | None
    runs: int
    second: float | None = None


def ranked(outcomes: Iterable[Outcome], maximize: bool) -> list[Result]:
    """The configurations by their mean value, the best first; of equal ones the earliest first."""
    groups: dict[str, dict[Any, Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.study_id, o.number)):
        if math.isfinite(outcome.value):
            seed = outcome.seed if outcome.seed is not None else (outcome.study_id, outcome.number)
            groups.setdefault(outcome.config_key, {}).setdefault(seed, outcome)
    results = []
    for group in groups.values():
        values = [outcome.value for outcome in group.values()]
        mean = statistics.fmean(values) if len(values) > 1 else values[0]
        nearest = min(group.values(), key=lambda outcome: abs(outcome.value - mean))
        others = [outcome.second for outcome in group.values() if outcome.second is not None]
        std = statistics.stdev(values) if len(values) > 1 else None
        results.append(Result(nearest, mean, std, len(values), statistics.fmean(others) if others else None))
    sign = -1.0 if maximize else 1.0
    return sorted(results, key=lambda r: (sign * r.mean, r.outcome.study_id, r.outcome.number))


def best(outcomes: Iterable[Outcome], maximize: bool) -> Result | None:
    """The first of :func:`ranked`, or None; a third of its time, which a page that is polled needs."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if math.isfinite(outcome.value):
            groups.setdefault(outcome.config_key, []).append(outcome)
    sign = -1.0 if maximize else 1.0
    several = [outcome for group in groups.values() if len(group) > 1 for outcome in group]
    single = min(
        (group[0] for group in groups.values() if len(group) == 1),
        key=lambda outcome: (sign * outcome.value, outcome.study_id, outcome.number),
        default=None,
    )
    candidates = ranked([*several, single] if single is not None else several, maximize)
    return candidates[0] if candidates else None


def pareto_results(outcomes: Iterable[Outcome], objectives: Sequence[Objective]) -> list[Result]:
    """The configurations on the Pareto front of the mean values, the best of the first objective first."""
    found = [r for r in ranked(outcomes, objectives[0].direction == "maximize") if r.second is not None]
    points = [(result.mean, result.second or 0.0) for result in found]
    return [found[place] for place in pareto_front(points, objectives)]


OUTCOMES = f"""
SELECT t.trial_id, t.study_id, t.number, v.value,
  coalesce((SELECT md5(value_json) FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = :given),
    (SELECT md5(value_json) FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = :config),
    t.trial_id::text),
  (SELECT value_json FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = :seed), w.value,
  (SELECT value_json FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND key = :seed_values)
FROM unnest(CAST(:study_ids AS int[]), CAST(:after AS int[])) AS wanted (study_id, after)
JOIN trials t ON t.study_id = wanted.study_id AND t.trial_id > wanted.after
JOIN hpo_trials h USING (trial_id) JOIN trial_values v USING (trial_id)
LEFT JOIN trial_values w ON w.trial_id = t.trial_id AND w.objective = 1
WHERE v.objective = 0 AND t.state = 'COMPLETE' AND NOT h.retried AND v.value IS NOT NULL
  AND {KEEPS_CONSTRAINTS.format("t.trial_id")}
"""
ATTRIBUTES = """
SELECT trial_id, json_object_agg(key, value_json)::text FROM trial_user_attributes
WHERE trial_id = ANY(:trial_ids) GROUP BY 1
"""


def outcomes(
    connection: sa.Connection, study_ids: Sequence[int], after: Mapping[int, int] | None = None
) -> list[Outcome]:
    """The candidates for the best of these studies; ``after``: of a study, only trials with a larger trial id."""
    rows = connection.execute(
        sa.text(OUTCOMES),
        {
            "study_ids": list(study_ids),
            "after": [(after or {}).get(study_id, 0) for study_id in study_ids],
            "given": attributes.GIVEN,
            "config": attributes.CONFIG,
            "seed": attributes.SEED,
            "seed_values": attributes.SEED_VALUES,
        },
    )
    return [
        Outcome(
            trial_id,
            study_id,
            number,
            value,
            key,
            None if seed is None else json.loads(seed),
            second,
            () if of_seeds is None else numbers(json.loads(of_seeds)),
        )
        for trial_id, study_id, number, value, key, seed, second, of_seeds in rows
    ]


def numbers(values: Any) -> tuple[float, ...]:
    """The finite numbers of a list of the database; () for anything else."""
    found = [v for v in values if isinstance(v, int | float)] if isinstance(values, list) else []
    return tuple(float(value) for value in found if math.isfinite(value))


def given_of(content: Mapping[str, Any], attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The given values of a trial, of the stored study file and the trial's attributes; needs no trainer.

    A trial of an older version holds the dump of its validated configuration instead, which is given again.
    """
    given = attrs.get(attributes.GIVEN)
    if isinstance(given, dict):
        return dict(given)
    return {**(content.get("fixed") or {}), **configuration(attrs)}


def configuration(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's configuration of its user attributes: the values that it was given, or an older trial's dump."""
    found = attrs.get(attributes.GIVEN, attrs.get(attributes.CONFIG))
    return dict(found) if isinstance(found, dict) else {}


def trial_attributes(connection: sa.Connection, trial_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The user attributes of these trials; {} of a trial without any."""
    rows = connection.execute(sa.text(ATTRIBUTES), {"trial_ids": list(trial_ids)})
    found = {trial_id: {key: json.loads(value) for key, value in json.loads(attrs).items()} for trial_id, attrs in rows}
    return {trial_id: found.get(trial_id, {}) for trial_id in trial_ids}


@dataclass(frozen=True)
class BestTrial:
    """A configuration that an experiment found, by the trial that stands for it.

    Attributes:
        study, study_id, sampler, repeat, number: which trial of which study.
        value: that trial's own value, which its seed gives again.
        mean, std, runs: over all seeds that trained the configuration; ``std`` is None for a single run.
        given: the configuration as it was given to the trainer, see :meth:`hpo.studyfile.model.StudyFile.merge`.
        config: the same after validation, as it was dumped; for display.
        seed: its training seed.
        attrs: its user attributes.
        params: what the sampler chose.
        second: its value of the second objective; None if there is one objective.
    """

    study: str
    sampler: str
    number: int
    value: float
    given: Mapping[str, Any]
    config: Mapping[str, Any]
    seed: int
    attrs: Mapping[str, Any]
    mean: float | None = None
    std: float | None = None
    runs: int = 1
    study_id: int = 0
    repeat: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    second: float | None = None


def best_trials(
    experiment: Experiment, sampler: str | None = None, top: int = 1, *, pareto: bool = False
) -> list[BestTrial]:
    """The best ``top`` configurations of the experiment, or of one of its samplers, the best first.

    With two objectives they are the best of the first one; with ``pareto`` the Pareto front, whatever ``top``.

    Raises:
        UsageError: for a sampler that the experiment does not have, ``top`` below 1, or the front of one objective.
        ExperimentError: if no trial has completed yet.
    """
    labels = list(dict.fromkeys(study.sampler.label for study in experiment.studies))
    if sampler is not None and sampler not in labels:
        raise UsageError(
            f"the experiment {experiment.name!r} has no sampler {sampler!r}{near_miss(sampler, labels)}; "
            f"it has {', '.join(labels)}"
        )
    if top < 1:
        raise UsageError(f"--top must be at least 1, not {top}")
    if pareto and len(experiment.objectives) < 2:
        raise UsageError(
            f"--pareto: the experiment {experiment.name!r} has one metric, {experiment.metric}, so there is no Pareto "
            'front; leave it out (metric = ["…", "…"] in the study file searches one)'
        )
    studies = {study.study_id: study for study in experiment.studies if sampler in (None, study.sampler.label)}
    with experiment.storage.engine.connect() as connection:
        candidates = outcomes(connection, list(studies))
        if pareto:
            best = pareto_results(candidates, experiment.objectives)
        else:
            best = ranked(candidates, experiment.maximize)[:top]
        attrs = trial_attributes(connection, [result.outcome.trial_id for result in best])
    if not best:
        of = "" if sampler is None else f" of {sampler}"
        if constraints := experiment.content.get("constraints"):
            raise ExperimentError(
                f"no complete trial{of} of {experiment.name!r} keeps the constraints ({listed(constraints)}): there is "
                "no best configuration; hpo compare says how many violate them"
            )
        raise ExperimentError(
            f"no trial{of} of {experiment.name!r} has completed yet: there is no best configuration "
            "(trials that were added by hand do not count)"
        )
    found = []
    for result in best:
        outcome, study = result.outcome, studies[result.outcome.study_id]
        of_trial = attrs[outcome.trial_id]
        found.append(
            BestTrial(
                study.name,
                study.sampler.label,
                outcome.number,
                outcome.value,
                given_of(experiment.content, of_trial),
                of_trial.get(attributes.CONFIG) or configuration(of_trial),
                of_trial.get(attributes.SEED, 0),
                of_trial,
                result.mean,
                result.std,
                result.runs,
                study.study_id,
                study.repeat,
                second=outcome.second,
            )
        )
    return found
