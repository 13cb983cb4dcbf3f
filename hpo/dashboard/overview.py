"""The first screen of an experiment: one row a sampler, the verdict, the best configuration, what a reader must know.

Computed from what the database adds up (:mod:`hpo.compare.ended`), not from the trials one by one, so it comes at once
for 10,000 trials and costs a few milliseconds when a trial has ended.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hpo.compare.load import StudyEntry
from hpo.compare.notes import standing_notes
from hpo.compare.pairs import Pair, compare_pairs, headline
from hpo.compare.spending import Noise, noise_floor
from hpo.compare.summary import Summary, finite, summarize
from hpo.dashboard.pareto_rows import NOTE, hypervolumes
from hpo.dashboard.sparkline import Sparkline, sparklines
from hpo.database import attributes
from hpo.errors import ExperimentError
from hpo.experiment import results


@dataclass(frozen=True)
class BestConfig:
    """A configuration with the trial that stands for it; ``sampled`` are its hyperparameters, ``fixed`` the others."""

    sampler: str
    study: str
    study_id: int
    number: int
    repeat: int
    value: float
    mean: float
    runs: int
    sampled: Mapping[str, Any]
    fixed: Mapping[str, Any]


@dataclass(frozen=True)
class SamplerRow:
    """One sampler over its repeats; ``finished``, ``pruned``, ``failed``, ``running`` count lineages.

    ``value`` is the best of the repeats; ``best`` may have a smaller mean, if several seeds trained its configuration.
    """

    name: str
    study_ids: tuple[int, ...]
    repeats: int
    finals: Mapping[int, float]
    value: float | None
    summary: Summary | None
    best: BestConfig | None
    finished: int
    pruned: int
    failed: int
    running: int
    budget: Mapping[str, float]
    epochs: int
    seconds: float
    curve: Sparkline


@dataclass(frozen=True)
class Overview:
    """An experiment as the first screen has it.

    Attributes:
        state: ``finished``, ``running``, ``stopped`` or ``not started``.
        verdict: one sentence; "" for one sampler.
        best: the best configuration of all samplers.
        budget: units of the budget, added up over the studies.
    """

    name: str
    metric: str
    maximize: bool
    state: str
    rows: tuple[SamplerRow, ...]
    verdict: str
    pairs: tuple[Pair, ...]
    noise: Noise | None
    notes: tuple[str, ...]
    best: BestConfig | None
    budget: Mapping[str, float]
    began: float | None
    ended: float | None
    study_file: Mapping[str, Any]

    @property
    def finished(self) -> int:
        return sum(row.finished for row in self.rows)

    @property
    def running(self) -> int:
        return sum(row.running for row in self.rows)

    @property
    def failed(self) -> int:
        return sum(row.failed for row in self.rows)

    @property
    def repeats(self) -> int:
        return max(row.repeats for row in self.rows)


def overview(engine: sa.Engine, name: str, entries: Sequence[StudyEntry]) -> Overview:
    """The first screen's numbers.

    Raises:
        ExperimentError: for studies that optimize different things.
    """
    first = entries[0]
    study_file = first.attrs.get(attributes.STUDY_FILE) or {}
    for entry in entries:
        metric = (entry.attrs.get(attributes.STUDY_FILE) or {}).get("metric")
        if (metric, entry.maximize) != (study_file.get("metric"), first.maximize):
            raise ExperimentError(
                f"the studies {first.name!r} and {entry.name!r} differ in their metric: {study_file.get('metric')} and "
                f"{metric}; values of different questions are not compared: run them as two experiments"
            )
    maximize = first.maximize
    by_sampler = _by_sampler(entries, study_file)
    best = {
        sampler: results.best((o for entry in group for o in entry.ended.outcomes), maximize)
        for sampler, group in by_sampler.items()
    }
    configs = _configs(engine, {entry.study_id: entry for entry in entries}, best, study_file)
    volumes = hypervolumes(entries, study_file)
    of = {entry.study_id: entry.ended.outcomes for entry in entries} if volumes is None else volumes
    upwards = maximize or volumes is not None
    curves = sparklines({sampler: [of[e.study_id] for e in group] for sampler, group in by_sampler.items()}, upwards)
    rows = tuple(
        _row(sampler, group, configs.get(sampler), curves[sampler], volumes) for sampler, group in by_sampler.items()
    )
    finals = {row.name: row.finals for row in rows}
    again = [finite(kept["validation"]) for e in entries if (kept := e.attrs.get(attributes.RETRAINED))]
    noise = None  # is known for a metric, not for a hypervolume
    if volumes is None:
        outcomes = [o for entry in entries for o in entry.ended.outcomes]
        noise = noise_floor(again, outcomes, maximize, int(study_file.get("seeds_per_trial") or 1))
    pairs = compare_pairs(finals, upwards, noise)
    sign = -1.0 if maximize else 1.0
    return Overview(
        name=name,
        metric=str(study_file.get("metric", "value")),
        maximize=maximize,
        state=state_of(entries),
        rows=rows,
        verdict=headline(finals, pairs, upwards),
        pairs=tuple(pairs),
        noise=noise,
        notes=(*(() if volumes is None else (NOTE,)), *_notes(rows, finals, entries)),
        best=min(configs.values(), key=lambda config: sign * config.mean, default=None),
        budget=_sum(entry.budget for entry in entries),
        began=min((e.ended.began for e in entries if e.ended.began is not None), default=None),
        ended=max((e.ended.ended for e in entries if e.ended.ended is not None), default=None),
        study_file=study_file,
    )


def state_of(entries: Sequence[StudyEntry]) -> str:
    """``finished``, ``running``, ``paused``, ``stopped`` (begun, and no worker is alive) or ``not
    started``."""
    if all(entry.finished for entry in entries):
        return "finished"
    if any(entry.halt == "paused" for entry in entries):
        return "paused"
    states = _states(entries)
    if states["running"] and any(entry.num_workers for entry in entries):
        return "running"
    return "stopped" if states.total() else "not started"


def _states(entries: Sequence[StudyEntry]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for entry in entries:
        counts.update(entry.counts.states)
    return counts


def _by_sampler(entries: Sequence[StudyEntry], study_file: Mapping[str, Any]) -> dict[str, list[StudyEntry]]:
    """In the study file's order of samplers, repeats in order."""
    listed = [s if isinstance(s, str) else s.get("label") or s.get("name") for s in study_file.get("samplers") or ()]
    present = list(dict.fromkeys(entry.sampler for entry in entries))
    order = [name for name in listed if name in present] + [name for name in present if name not in listed]
    return {
        name: sorted((entry for entry in entries if entry.sampler == name), key=lambda entry: entry.repeat)
        for name in dict.fromkeys(order)
    }


def _row(
    name: str,
    group: Sequence[StudyEntry],
    best: BestConfig | None,
    curve: Sparkline,
    volumes: Mapping[int, Sequence[results.Outcome]] | None,
) -> SamplerRow:
    finals = {entry.repeat: entry.best for entry in group}
    if volumes is not None:
        finals = {e.repeat: max((o.value for o in volumes[e.study_id]), default=None) for e in group}
    known = {repeat: value for repeat, value in finals.items() if value is not None}
    states = _states(group)
    return SamplerRow(
        name=name,
        study_ids=tuple(entry.study_id for entry in group),
        repeats=len(group),
        finals=known,
        value=None if not known else (max if group[0].maximize or volumes is not None else min)(known.values()),
        summary=summarize(list(known.values())),
        best=best,
        finished=states["complete"] + states["pruned"],
        pruned=states["pruned"],
        failed=states["failed"],
        running=states["running"],
        budget=_sum(entry.budget for entry in group),
        epochs=sum(entry.epochs for entry in group),
        seconds=sum(entry.ended.seconds for entry in group),
        curve=curve,
    )


def _configs(
    engine: sa.Engine,
    entries: Mapping[int, StudyEntry],
    best: Mapping[str, results.Result | None],
    study_file: Mapping[str, Any],
) -> dict[str, BestConfig]:
    """The best configuration of each sampler that has one."""
    known = {sampler: result for sampler, result in best.items() if result is not None}
    with engine.connect() as connection:
        attrs = results.trial_attributes(connection, [result.outcome.trial_id for result in known.values()])
    space = study_file.get("space") or {}
    found = {}
    for sampler, result in known.items():
        outcome, entry = result.outcome, entries[result.outcome.study_id]
        given = results.given_of(study_file, attrs[outcome.trial_id])
        sampled = {key: given[key] for key in space if key in given}
        found[sampler] = BestConfig(
            sampler,
            entry.name,
            entry.study_id,
            outcome.number,
            entry.repeat,
            outcome.value,
            result.mean,
            result.runs,
            sampled,
            {key: value for key, value in given.items() if key not in sampled},
        )
    return found


def _notes(
    rows: Sequence[SamplerRow], finals: Mapping[str, Mapping[int, float]], entries: Sequence[StudyEntry]
) -> list[str]:
    """Sentences that a reader must not miss; what the record of single trials adds is on the page of tables."""
    notes = standing_notes(finals, {row.name: row.repeats for row in rows}, finished=True)  # the state says that
    imported = sum(entry.counts.imported for entry in entries)
    if imported:
        plural = "" if imported == 1 else "s"
        notes.append(f"{imported} finished trial{plural} added by hand: not part of this comparison.")
    return notes


def _sum(budgets: Any) -> dict[str, float]:
    """Units that every study has, added up."""
    added: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    count = 0
    for budget in budgets:
        count += 1
        for unit, value in budget.items():
            added[unit] += value
            numbers[unit] += 1
    return {unit: value for unit, value in added.items() if numbers[unit] == count}
