"""Which studies a figure is about: all of an experiment, those of one sampler, or one study.

In addresses a scope is text: ``""``, ``sampler:tpe``, ``study:12``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.compare.records import StudyRecord, TrialRecord
from hpo.errors import UsageError


def select(studies: Sequence[StudyRecord], scope: str) -> list[StudyRecord]:
    """The studies of a scope.

    Raises:
        UsageError: for a scope that the experiment does not have.
    """
    kind, _, name = scope.partition(":")
    chosen = [
        study
        for study in studies
        if not scope
        or (kind == "sampler" and study.sampler == name)
        or (kind == "study" and str(study.study_id) == name)
    ]
    if not chosen:
        raise UsageError(f"the experiment has no {scope!r}: choose a sampler or a study of it")
    return chosen


@dataclass(frozen=True)
class Point:
    """The last attempt of one lineage that has a value, with its place."""

    study: StudyRecord
    trial: TrialRecord
    value: float

    @property
    def is_complete(self) -> bool:
        return self.trial.state == "complete"

    @property
    def params(self) -> Mapping[str, Any]:
        return self.trial.params

    @property
    def label(self) -> str:
        return f"{self.study.sampler}/{self.study.repeat}, trial {self.trial.number}"


def points(studies: Sequence[StudyRecord]) -> list[Point]:
    """The complete and pruned trials that have a value, in the order in which they ended."""
    found = [
        Point(study, trial, trial.value)
        for study in studies
        for trial in study.last_attempts()
        if trial.finished and trial.value is not None
    ]
    return sorted(found, key=lambda point: (point.trial.end or 0.0, point.trial.number))


def sample(found: Sequence[Point], most: int, maximize: bool) -> list[Point]:
    """At most ``most`` of the points, for drawing: the best half of that number, and the others evenly by time."""
    if len(found) <= most:
        return list(found)
    order = sorted(range(len(found)), key=lambda i: found[i].value, reverse=maximize)
    best = set(order[: most // 2])
    others = [i for i in range(len(found)) if i not in best]
    step = len(others) / (most - len(best))
    chosen = best | {others[int(k * step)] for k in range(most - len(best))}
    return [found[i] for i in sorted(chosen)]


def param_names(studies: Sequence[StudyRecord]) -> list[str]:
    """The hyperparameters of the search space, in the study file's order; others that trials have come after them."""
    space = studies[0].study_file.get("space") or {}
    present = dict.fromkeys(name for study in studies for trial in study.trials for name in trial.params)
    return [*space, *(name for name in present if name not in space)]
