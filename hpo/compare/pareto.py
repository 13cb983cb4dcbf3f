"""Two objectives compared: the Pareto front of the experiment, and the hypervolume by which samplers are compared.

The hypervolume of a search is the area that its front dominates, as a share of the area between the best values of the
experiment's front and its reference point (:class:`hpo.search.objectives.Scale`): larger is better, and one scale holds
for all samplers and repeats of an experiment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.compare.records import StudyRecord, TrialRecord
from hpo.search.objectives import Objective, Point, Scale, pareto_front, scale_of

METRIC = "hypervolume"


@dataclass(frozen=True)
class FrontPoint:
    """A complete trial with both its values."""

    sampler: str
    repeat: int
    study: str
    study_id: int | None
    trial: int
    first: float
    second: float
    params: Mapping[str, Any]

    @property
    def point(self) -> Point:
        return self.first, self.second


@dataclass(frozen=True)
class Pareto:
    """Attributes:
    scale: what hypervolumes are measured by.
    points: all complete trials.
    front: those that no other dominates, the best of the first objective first.
    """

    objectives: tuple[Objective, ...]
    scale: Scale
    points: tuple[FrontPoint, ...]
    front: tuple[FrontPoint, ...]

    def front_of(self, sampler: str) -> list[FrontPoint]:
        """The front of one sampler's repeats together."""
        mine = [point for point in self.points if point.sampler == sampler]
        return [mine[place] for place in pareto_front([point.point for point in mine], self.objectives)]

    def hypervolume(self, study: StudyRecord) -> float | None:
        """The hypervolume of one search; None if none of its trials is complete."""
        points = [point for trial in study.last_attempts() if (point := values_of(trial)) is not None]
        return self.scale.hypervolume(points) if points else None


def pareto_of(studies: Sequence[StudyRecord]) -> Pareto | None:
    """The front of an experiment with two objectives; None for one objective, or before a trial is complete."""
    objectives = studies[0].objectives
    if len(objectives) < 2:
        return None
    points = [
        FrontPoint(
            study.sampler, study.repeat, study.name, study.study_id, trial.number, point[0], point[1], trial.params
        )
        for study in studies
        for trial in study.last_attempts()
        if (point := values_of(trial)) is not None
    ]
    scale = scale_of([point.point for point in points], objectives)
    if scale is None:
        return None
    front = pareto_front([point.point for point in points], objectives)
    return Pareto(objectives, scale, tuple(points), tuple(points[place] for place in front))


def values_of(trial: TrialRecord) -> Point | None:
    """Both values of a complete trial that keeps the constraints."""
    if trial.state != "complete" or trial.violates or trial.value is None or trial.second is None:
        return None
    return trial.value, trial.second


def note(pareto: Pareto) -> str:
    """What a reader has to know of the hypervolume."""
    first, second = pareto.objectives
    at = pareto.scale.reference
    return (
        f"Two metrics, {first.metric} ({first.direction}) and {second.metric} ({second.direction}); no trial is "
        f"pruned. Samplers are compared by the hypervolume of their Pareto fronts, as a share of the area up to "
        f"{first.metric} {at[0]:.4g} and {second.metric} {at[1]:.4g}."
    )
