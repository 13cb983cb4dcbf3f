"""Files that belong to a trial or study, kept where the dashboard finds them.

They lie beside the checkpoints: below ``--checkpoint-dir`` (a shared folder, or an fsspec address such as
``s3://bucket/folder``) if one is given, so that a dashboard and ``hpo delete`` on another machine reach them, else in
the home of the worker's own machine. Older files of a home are still found when a shared place is named later, and so
are those that a worker has not sent to the address yet (:mod:`hpo.worker.uploads`).

``optuna.artifacts`` is imported only for its exception: it imports boto3 where that is installed, which takes 0.2 s.
"""

import contextlib
import csv
import io
import json
import mimetypes
import re
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import optuna
from optuna.storages import BaseStorage

from hpo.files.store import open_place
from hpo.search.optuna_internals import storage_of, study_id_of

PREFIX = "artifacts:"
"""The key prefix under which Optuna and its dashboard look for artifacts among the system attributes."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_artifact_id(text: object) -> bool:
    """Whether it is an id as Optuna makes them. One of the database is never part of a path without this check."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


class ArtifactFolder:
    """Artifacts by their id below ``root``, then below ``others``; what Optuna calls an artifact store."""

    def __init__(self, root: str | Path, *others: str | Path) -> None:
        self._places = [open_place(place) for place in dict.fromkeys((str(root), *map(str, others)))]

    def find(self, artifact_id: str) -> BinaryIO | None:
        """The opened file; None if there is no such file, or for a text that is no id."""
        if is_artifact_id(artifact_id):
            for place in self._places:
                with contextlib.suppress(FileNotFoundError):
                    opened: BinaryIO = place.files.open(place.path(artifact_id), "rb")
                    return opened
        return None

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """As :meth:`find`; raises Optuna's ArtifactNotFound if there is none."""
        if (opened := self.find(artifact_id)) is None:
            raise _not_found(artifact_id)
        return opened

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Writes the file: it appears whole or not at all. Raises OSError if it cannot be written."""
        _checked(artifact_id)
        place = self._places[0]
        if not place.is_local:
            with place.files.open(place.path(artifact_id), "wb") as target:
                shutil.copyfileobj(content_body, target)
            return
        path = Path(place.path(artifact_id))
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{artifact_id}.{secrets.token_hex(4)}")
        try:
            with aside.open("wb") as target:
                shutil.copyfileobj(content_body, target)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def remove(self, artifact_id: str) -> None:
        """Removes the file. Raises ArtifactNotFound if there is none, or for a text that is no id."""
        if not self.discard(artifact_id):
            raise _not_found(artifact_id)

    def discard(self, artifact_id: str) -> bool:
        """Removes the file if it is here; returns whether it was."""
        removed = False
        if is_artifact_id(artifact_id):
            for place in self._places:
                path = place.path(artifact_id)
                with contextlib.suppress(FileNotFoundError):
                    # An object store says nothing of a file that it does not have.
                    if place.is_local or place.files.exists(path):
                        place.files.rm_file(path)
                        removed = True
        return removed


def _not_found(artifact_id: str) -> Exception:
    from optuna.artifacts.exceptions import ArtifactNotFound

    return ArtifactNotFound(f"there is no artifact {artifact_id!r} here")


def _checked(artifact_id: str) -> str:
    if not is_artifact_id(artifact_id):
        raise ValueError(f"{artifact_id!r} is no id of an artifact")
    return artifact_id


def attach(storage: BaseStorage, trial_id: int, path: Path, folder: str | Path) -> str:
    """Copies the file at ``path`` into the store below ``folder`` and notes it on the trial, which must be running.

    Optuna's own call notes it first, and where the file then cannot be copied (gone, disk full) the note leads nowhere.
    Returns its id. Raises OSError if it cannot be copied; nothing is left behind then.
    """
    artifact_id = str(uuid.uuid4())
    with path.open("rb") as file:
        ArtifactFolder(folder).write(artifact_id, file)
    storage.set_trial_system_attr(trial_id, PREFIX + artifact_id, _note(artifact_id, path.name))
    return artifact_id


def _note(artifact_id: str, name: str) -> str:
    """The fields of Optuna's ``ArtifactMeta``."""
    mimetype, encoding = mimetypes.guess_type(name)
    kind = mimetype or "application/octet-stream"
    return json.dumps({"artifact_id": artifact_id, "filename": name, "mimetype": kind, "encoding": encoding})


def attach_text(storage: BaseStorage, trial_id: int, name: str, text: str, folder: str | Path) -> str:
    """Attaches a file of that name and content to a running trial; returns its id."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return attach(storage, trial_id, path, folder)


def epochs_table(history: Sequence[Mapping[str, float]]) -> str:
    """A trial's curves as CSV, which the dashboard shows as a table: a row an epoch, a column a metric."""
    names = list(dict.fromkeys(name for metrics in history for name in metrics))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["epoch", *names])
    for epoch, metrics in enumerate(history, start=1):
        writer.writerow([epoch, *(repr(metrics[name]) if name in metrics else "" for name in names)])
    return table.getvalue()


def attach_to_study(study: optuna.Study, path: Path, folder: str | Path) -> None:
    """Copies the file at ``path`` into the store and notes it on the study; one of the same name is replaced."""
    artifact_id = None
    storage, study_id = storage_of(study), study_id_of(study)
    for key, value in storage.get_study_system_attrs(study_id).items():
        noted = key.removeprefix(PREFIX)
        if key.startswith(PREFIX) and is_artifact_id(noted) and (json.loads(value) or {}).get("filename") == path.name:
            artifact_id = noted
    new_id = artifact_id or str(uuid.uuid4())
    with path.open("rb") as file:
        ArtifactFolder(folder).write(new_id, file)
    if artifact_id is None:
        storage.set_study_system_attr(study_id, PREFIX + new_id, _note(new_id, path.name))
