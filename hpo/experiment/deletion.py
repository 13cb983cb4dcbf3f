"""Deleting an experiment: its studies, checkpoints, artifacts, logs and folders of trials. Needs none of its trainers.

Only what is ours is deleted: the studies by our own table, so that a copy that a person made stays, with the artifacts
that it shows; and files by keys and ids that look as we make them, so that no text of the database becomes a path.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from hpo.database import attributes
from hpo.database.schema import optuna_tables
from hpo.database.storage import Storage
from hpo.experiment import stored
from hpo.files.artifacts import PREFIX, ArtifactFolder, is_artifact_id
from hpo.files.checkpoints import CheckpointFolder, is_study_key
from hpo.files.trial_folders import TrialFolders
from hpo.settings import Settings


@dataclass(frozen=True)
class Contents:
    """What would be deleted.

    Attributes:
        num_trials: all trials; ``num_imported`` of them were added by a person.
        artifact_hosts: for each artifact the machine of the worker that attached it; "" if that is not recorded.
    """

    storage: Storage
    study_ids: list[int]
    keys: list[str]
    num_trials: int
    num_imported: int
    artifact_hosts: dict[str, str]


NOTES = f"""
SELECT a.key, w.value_json FROM trial_system_attributes a JOIN trials t USING (trial_id)
LEFT JOIN trial_user_attributes w ON w.trial_id = a.trial_id AND w.key = '{attributes.WORKER}'
WHERE t.study_id = ANY(:ids) AND a.key LIKE :like AND a.value_json NOT IN ('null', '"null"')
UNION ALL SELECT key, NULL FROM study_system_attributes
WHERE study_id = ANY(:ids) AND key LIKE :like AND value_json NOT IN ('null', '"null"')
"""
NOTED_ELSEWHERE = """
SELECT a.key FROM trial_system_attributes a JOIN trials t USING (trial_id)
WHERE NOT t.study_id = ANY(:ids) AND a.key = ANY(:keys)
UNION SELECT key FROM study_system_attributes WHERE NOT study_id = ANY(:ids) AND key = ANY(:keys)
"""
COUNTS = """
SELECT count(*), count(*) FILTER (WHERE h.trial_id IS NULL)
FROM trials t LEFT JOIN hpo_trials h USING (trial_id) WHERE t.study_id = ANY(:ids)
"""


def contents(storage: Storage, name: str) -> Contents:
    """What an experiment consists of. Raises ExperimentError if there is none of that name."""
    with storage.engine.connect() as connection:
        rows = stored.study_rows(connection, name)
        if not rows:
            raise stored.unknown_experiment(name, stored.names(connection), storage.address)
        ids = [study_id for study_id, _, _ in rows]
        num_trials, num_imported = connection.execute(sa.text(COUNTS), {"ids": ids}).one()
        hosts: dict[str, str] = {}
        for key, worker in connection.execute(sa.text(NOTES), {"ids": ids, "like": PREFIX + "%"}):
            hosts[key.removeprefix(PREFIX)] = str(json.loads(worker)).partition(":")[0] if worker else ""
        keys = [PREFIX + artifact_id for artifact_id in hosts]
        for (key,) in connection.execute(sa.text(NOTED_ELSEWHERE), {"ids": ids, "keys": keys}):
            del hosts[key.removeprefix(PREFIX)]
    checkpoint_keys = [str(attrs[attributes.KEY]) for _, _, attrs in rows if is_study_key(attrs.get(attributes.KEY))]
    hosts = {artifact_id: host for artifact_id, host in hosts.items() if is_artifact_id(artifact_id)}
    return Contents(storage, ids, checkpoint_keys, num_trials, num_imported, hosts)


def delete_experiment(found: Contents, settings: Settings) -> Counter[str]:
    """Deletes what :func:`contents` has listed; workers that still run on it end by themselves.

    Returns how many artifacts are not reached from this machine, by the name of the machine that they were made on.
    """
    delete_studies(found.storage.engine, found.study_ids)
    for key in found.keys:
        CheckpointFolder(settings.checkpoints, key).remove_all()
        # Beside checkpoints that are at an address, a worker of this machine had the folders of its trials in its home.
        shutil.rmtree(TrialFolders(settings.checkpoints, settings.home_path, key).path.parent, ignore_errors=True)
    folder = ArtifactFolder(*settings.artifact_places)
    return Counter(host for artifact_id, host in found.artifact_hosts.items() if not folder.discard(artifact_id))


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
