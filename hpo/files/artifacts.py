"""Files that belong to a trial or study, kept where the dashboard finds them."""

import csv
import dataclasses
import io
import json
import mimetypes
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore, upload_artifact
from optuna.storages import BaseStorage

from hpo.search.optuna_internals import storage_of, study_id_of

# The key prefix under which Optuna and its dashboard look for artifacts among the system attributes.
PREFIX = "artifacts:"


def artifact_store(folder: Path) -> FileSystemArtifactStore:
    """The store in ``folder``, which is made where it is absent."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(str(folder))


def attach(storage: BaseStorage, trial_id: int, path: Path, folder: Path) -> None:
    """Copies the file at ``path`` into the store and notes it on the trial, which must be running.

    Optuna's own call notes it first, and where the file then cannot be copied (gone, disk full) the note leads nowhere.
    Raises OSError where it cannot be copied; nothing is left behind then.
    """
    store = artifact_store(folder)
    artifact_id = str(uuid.uuid4())
    try:
        with path.open("rb") as file:
            store.write(artifact_id, file)
    except OSError:
        (folder / artifact_id).unlink(missing_ok=True)
        raise
    mimetype, encoding = mimetypes.guess_type(path.name)
    note = ArtifactMeta(artifact_id, path.name, mimetype or "application/octet-stream", encoding)
    storage.set_trial_system_attr(trial_id, PREFIX + artifact_id, json.dumps(dataclasses.asdict(note)))


def attach_text(storage: BaseStorage, trial_id: int, name: str, text: str, folder: Path) -> None:
    """Attaches a file of that name and content to a running trial."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        attach(storage, trial_id, path, folder)


def epochs_table(history: Sequence[Mapping[str, float]]) -> str:
    """A trial's curves as CSV, which the dashboard shows as a table: a row an epoch, a column a metric."""
    names = list(dict.fromkeys(name for metrics in history for name in metrics))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["epoch", *names])
    for epoch, metrics in enumerate(history, start=1):
        writer.writerow([epoch, *(repr(metrics[name]) if name in metrics else "" for name in names)])
    return table.getvalue()


def attach_to_study(study: optuna.Study, path: Path, folder: Path) -> None:
    """Copies the file at ``path`` into the store and notes it on the study; one of the same name is replaced."""
    store = artifact_store(folder)
    for key, value in storage_of(study).get_study_system_attrs(study_id_of(study)).items():
        if key.startswith(PREFIX) and value and json.loads(value).get("filename") == path.name:
            shutil.copyfile(path, folder / key.removeprefix(PREFIX))
            return
    upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study)
