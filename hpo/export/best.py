"""The best trials of an experiment, read from the database."""

import dataclasses
import json
from typing import Any

import sqlalchemy as sa

from hpo.database import attributes
from hpo.errors import ExperimentError, UsageError, near_miss
from hpo.experiment.experiment import Experiment

BEST = """
SELECT t.study_id, t.number, v.value,
  (SELECT json_object_agg(key, value_json)::text FROM trial_user_attributes WHERE trial_id = t.trial_id)
FROM trials t JOIN trial_values v USING (trial_id)
WHERE t.study_id = ANY(:study_ids) AND t.state = 'COMPLETE' AND v.value IS NOT NULL
ORDER BY v.value {}, t.study_id, t.number LIMIT :top
"""


@dataclasses.dataclass(frozen=True)
class BestTrial:
    """A finished trial; ``attrs`` are its user attributes.

    Attributes:
        given: the configuration as it was given to the trainer, see :meth:`hpo.studyfile.model.StudyFile.merge`.
        config: the same after validation, as it was dumped; for display.
    """

    study: str
    sampler: str
    number: int
    value: float
    given: dict[str, Any]
    config: dict[str, Any]
    seed: int
    attrs: dict[str, Any]


def best_trials(experiment: Experiment, sampler: str | None = None, top: int = 1) -> list[BestTrial]:
    """The best ``top`` COMPLETE trials of the experiment, or of one of its samplers, the best first.

    Raises:
        UsageError: for a sampler that the experiment does not have, or ``top`` below 1.
        ExperimentError: where no trial has completed yet.
    """
    labels = list(dict.fromkeys(study.sampler.label for study in experiment.studies))
    if sampler is not None and sampler not in labels:
        raise UsageError(
            f"the experiment {experiment.name!r} has no sampler {sampler!r}{near_miss(sampler, labels)}; "
            f"it has {', '.join(labels)}"
        )
    if top < 1:
        raise UsageError(f"--top must be at least 1, not {top}")
    studies = {study.study_id: study for study in experiment.studies if sampler in (None, study.sampler.label)}
    order = "DESC" if experiment.study_file.direction == "maximize" else "ASC"
    with experiment.storage.engine.connect() as connection:
        rows = connection.execute(sa.text(BEST.format(order)), {"study_ids": list(studies), "top": top}).all()
    if not rows:
        of = "" if sampler is None else f" of {sampler}"
        raise ExperimentError(f"no trial{of} of {experiment.name!r} has completed yet: there is no best configuration")
    found = []
    for study_id, number, value, text in rows:
        attrs = {key: json.loads(item) for key, item in json.loads(text).items()}
        study = studies[study_id]
        given = experiment.study_file.given_of(attrs) or {}
        config = attrs.get(attributes.CONFIG) or given
        found.append(
            BestTrial(study.name, study.sampler.label, number, value, given, config, attrs[attributes.SEED], attrs)
        )
    return found
