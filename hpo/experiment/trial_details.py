"""All that is known of one trial: configuration, curve, attempts, worker, device, artifacts, and why it ended.

``hpo show`` prints it and the page of a trial draws it.
"""

import json
import statistics
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial

from hpo.database import attributes
from hpo.experiment.experiment import Experiment
from hpo.experiment.results import numbers
from hpo.experiment.trial_list import STATES, TrialTable, Wanted
from hpo.experiment.trial_log import named_trial
from hpo.files.artifacts import PREFIX, is_artifact_id
from hpo.files.kept_folders import KeptFolder
from hpo.search.seeds import seeds_of_trial
from hpo.settings import Settings

ATTEMPTS = """
SELECT t.trial_id, t.number, h.attempt, h.lineage FROM trials t JOIN hpo_trials h USING (trial_id)
WHERE (h.study_id, h.lineage) = (SELECT study_id, lineage FROM hpo_trials WHERE trial_id = :t) ORDER BY h.attempt
"""


def trial_details(experiment: Experiment, trial: str) -> dict[str, Any]:
    """What ``hpo show --json`` prints; ``trial`` as :func:`hpo.experiment.trial_log.named_trial` takes it.

    Raises:
        UsageError, ExperimentError: as that does.
    """
    study, number, trial_id = named_trial(experiment, trial)
    with experiment.storage.engine.connect() as connection:
        rows = connection.execute(sa.text(ATTEMPTS), {"t": trial_id}).all()
    ids = [row[0] for row in rows] or [trial_id]
    every = TrialTable(experiment, Wanted(states=STATES))
    listed = {row.trial_id: row for row in every.rows_of([*ids, trial_id])}
    held = experiment.storage.get_trial(trial_id)
    row, attrs = listed[trial_id], held.user_attrs
    num_seeds = int(experiment.content.get("seeds_per_trial") or 1)
    return {
        "experiment": experiment.name,
        "trial": row.name,
        "study": study.name,
        "study_id": study.study_id,
        "trial_id": trial_id,
        "number": number,
        "lineage": attrs.get(attributes.LINEAGE),
        "sampler": study.sampler.label,
        "repeat": study.repeat,
        "metric": experiment.metric,
        "direction": experiment.direction,
        "state": row.state,
        "value": row.value,
        "reason": row.reason or None,
        "params": row.params,
        "config": attrs.get(attributes.CONFIG) or row.params,
        "seed": attrs.get(attributes.SEED),
        "seeds": list(seeds_of_trial(seed, num_seeds)) if isinstance(seed := attrs.get(attributes.SEED), int) else [],
        "seed_values": of_seeds if isinstance(of_seeds := attrs.get(attributes.SEED_VALUES), list) else [],
        "std": None if len(finite := numbers(of_seeds)) < 2 else statistics.stdev(finite),
        "metrics": attrs.get(attributes.METRICS) or {},
        "drawn_by": attrs.get(attributes.DRAWN_BY),
        "epochs": row.epochs,
        "seconds": attrs.get(attributes.WALL_SECONDS, row.seconds),
        "worker_seconds": attrs.get(attributes.SECONDS),
        "began": row.began,
        "worker": row.worker or None,
        "log": attrs.get(attributes.LOG),
        "trained_on": attrs.get(attributes.TRAINED_ON) or {},
        "curve": {str(step): value for step, value in sorted(held.intermediate_values.items())},
        "attempts": [
            {
                "trial": listed[attempt_id].number,
                "attempt": attempt,
                "state": listed[attempt_id].state,
                "epochs": listed[attempt_id].epochs,
                "seconds": listed[attempt_id].seconds,
                "worker": listed[attempt_id].worker or None,
                "reason": listed[attempt_id].reason or None,
            }
            for attempt_id, _, attempt, _ in rows
            if attempt >= 0
        ],
        "artifacts": artifacts_of(held),
    }


def kept_files(experiment: Experiment, trial: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The folder of a trial of :func:`trial_details`: where it is, its files with their bytes, or why it is not read.

    It is looked for on this machine, then at the shared address.
    """
    found: dict[str, Any] = {"where": None, "files": {}, "problem": None}
    try:
        if (kept := kept_folder(experiment, trial, settings)) is not None:
            found |= {"where": kept.where, "files": dict(sorted(kept.files.items()))}
    except OSError as error:
        found["problem"] = f"{settings.checkpoints} does not answer ({error})"
    return found


def kept_folder(experiment: Experiment, trial: dict[str, Any], settings: Settings) -> KeptFolder | None:
    """The folder of a trial of :func:`trial_details`; None for one that a person added.

    Raises OSError if the shared address does not answer.
    """
    study = next(study for study in experiment.studies if study.study_id == trial["study_id"])
    lineage = trial["lineage"]
    return KeptFolder(settings, study.key, lineage) if isinstance(lineage, int) else None


def artifacts_of(trial: FrozenTrial) -> list[dict[str, str]]:
    """The files that belong to a trial: their id, name and type."""
    found = []
    for key, value in trial.system_attrs.items():
        if not key.startswith(PREFIX) or not is_artifact_id(key.removeprefix(PREFIX)):
            continue
        try:
            meta = json.loads(value) if isinstance(value, str) else value
            name, kind = str(meta["filename"]), str(meta.get("mimetype", ""))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # written by somebody else
        found.append({"id": key.removeprefix(PREFIX), "name": name, "type": kind})
    return found
