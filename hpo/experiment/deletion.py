"""Deleting an experiment: its studies, its checkpoints and its artifacts. Needs none of its trainers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from hpo.database import attributes
from hpo.database.schema import optuna_tables
from hpo.database.storage import Storage
from hpo.errors import ExperimentError, near_miss
from hpo.experiment.experiment import experiment_names, experiment_rows
from hpo.files.artifacts import PREFIX
from hpo.files.checkpoints import CheckpointFolder
from hpo.settings import Settings


@dataclass(frozen=True)
class Found:
    """What would be deleted."""

    storage: Storage
    study_ids: list[int]
    keys: list[str]
    num_trials: int
    artifact_ids: list[str]


def find(storage: Storage, name: str) -> Found:
    """Raises ExperimentError where there is no such experiment."""
    rows = experiment_rows(storage, name)
    if not rows:
        raise ExperimentError(
            f"there is no experiment {name!r} at {storage.address}{near_miss(name, experiment_names(storage))}"
        )
    ids = [study_id for study_id, _, _ in rows]
    with storage.engine.connect() as connection:

        def scalars(sql: str) -> list[str]:
            return [row[0] for row in connection.execute(sa.text(sql), {"ids": ids, "like": PREFIX + "%"})]

        num_trials = int(scalars("SELECT count(*) FROM trials WHERE study_id = ANY(:ids)")[0])
        notes = scalars(
            "SELECT a.value_json FROM trial_system_attributes a JOIN trials USING (trial_id) "
            "WHERE study_id = ANY(:ids) AND key LIKE :like UNION ALL "
            "SELECT value_json FROM study_system_attributes WHERE study_id = ANY(:ids) AND key LIKE :like"
        )
    artifact_ids = [json.loads(json.loads(note))["artifact_id"] for note in notes if json.loads(note)]
    return Found(storage, ids, [attrs[attributes.KEY] for _, _, attrs in rows], num_trials, artifact_ids)


def delete_experiment(found: Found, settings: Settings) -> None:
    """Deletes what was found; workers that still run on it end by themselves."""
    delete_studies(found.storage.engine, found.study_ids)
    for key in found.keys:
        CheckpointFolder(settings.checkpoints, key).remove_all()
    for artifact_id in found.artifact_ids:
        (settings.artifacts / artifact_id).unlink(missing_ok=True)


def delete_studies(engine: sa.Engine, study_ids: Sequence[int]) -> None:
    """Deletes the studies with all that Optuna and we hold of them: all at once, or where it fails nothing.

    Optuna's own deletion reads what there is and deletes that, row by row; where a worker adds a trial in between it
    deletes nothing and does not say so. Here nobody adds anything once the studies and their trials are locked.
    """
    ids = {"ids": list(study_ids)}
    with engine.begin() as connection:
        for table, key in (("studies", "study_id"), ("trials", "trial_id")):
            lock = f"SELECT 1 FROM {table} WHERE study_id = ANY(:ids) ORDER BY {key} FOR UPDATE"
            connection.execute(sa.text(lock), ids)
        for table_name, columns in reversed(optuna_tables().items()):
            if "study_id" in columns:
                connection.execute(sa.text(f"DELETE FROM {table_name} WHERE study_id = ANY(:ids)"), ids)
            elif "trial_id" in columns:
                of_trials = "trial_id IN (SELECT trial_id FROM trials WHERE study_id = ANY(:ids))"
                connection.execute(sa.text(f"DELETE FROM {table_name} WHERE {of_trials}"), ids)
