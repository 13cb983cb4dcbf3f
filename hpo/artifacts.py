"""Files that belong to a trial or study, kept where the dashboard finds them."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.storages import BaseStorage

# The key prefix under which Optuna and its dashboard look for artifacts among the system attributes.
PREFIX = "artifacts:"


def artifact_store(folder: Path) -> FileSystemArtifactStore:
    """The store in ``folder``, which is made where it is absent."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(str(folder))


def attach(storage: BaseStorage, trial_id: int, path: Path, folder: Path) -> None:
    """Copies the file at ``path`` into the store and notes it on the trial, which must be running."""
    upload_artifact(
        artifact_store=artifact_store(folder),
        file_path=str(path),
        study_or_trial=storage.get_trial(trial_id),
        storage=storage,
    )


def attach_text(storage: BaseStorage, trial_id: int, name: str, text: str, folder: Path) -> None:
    """Attaches a file of that name and content to a running trial."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        path.write_text(text)
        attach(storage, trial_id, path, folder)


def epochs_table(history: Sequence[Mapping[str, float]]) -> str:
    """A trial's curves as CSV, which the dashboard shows as a table: a row an epoch, a column a metric."""
    names = list(dict.fromkeys(name for metrics in history for name in metrics))
    rows = [",".join(["epoch", *names])]
    for epoch, metrics in enumerate(history, start=1):
        rows.append(",".join([str(epoch), *(repr(metrics[name]) if name in metrics else "" for name in names)]))
    return "\n".join(rows) + "\n"


def attach_to_study(study: optuna.Study, path: Path, folder: Path) -> None:
    """Copies the file at ``path`` into the store and notes it on the study; one of the same name is replaced."""
    store = artifact_store(folder)
    for key, value in study._storage.get_study_system_attrs(study._study_id).items():
        if key.startswith(PREFIX) and value and json.loads(value).get("filename") == path.name:
            shutil.copyfile(path, folder / key.removeprefix(PREFIX))
            return
    upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study)
