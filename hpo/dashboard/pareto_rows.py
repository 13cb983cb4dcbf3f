"""Two objectives on the first screen: a sampler's row has the hypervolume of its repeats in place of a best value."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpo.compare.load import StudyEntry
from hpo.experiment.results import Outcome
from hpo.search.objectives import objectives_of, scale_of

NOTE = (
    "Two metrics: the samplers' rows, curves and verdict are by the hypervolume of their Pareto fronts (larger is "
    "better), the best configuration is that of the first metric, and no trial is pruned."
)


def hypervolumes(entries: Sequence[StudyEntry], study_file: Mapping[str, Any]) -> dict[int, tuple[Outcome, ...]] | None:
    """Study id -> its outcomes, each with the hypervolume up to it as its value; None for one objective."""
    objectives = objectives_of(study_file)
    if len(objectives) < 2:
        return None
    complete = {
        entry.study_id: sorted((o for o in entry.ended.outcomes if o.second is not None), key=lambda o: o.number)
        for entry in entries
    }
    scale = scale_of([(o.value, o.second or 0.0) for found in complete.values() for o in found], objectives)
    if scale is None:
        return dict.fromkeys(complete, ())
    return {
        study_id: tuple(
            replace(outcome, value=volume)
            for outcome, volume in zip(found, scale.volumes([(o.value, o.second or 0.0) for o in found]), strict=True)
        )
        for study_id, found in complete.items()
    }
