"""Checkpoints: what a lineage continues from after its worker died.

A file is a line of JSON (format, SHA-256 of the rest, epoch) and the state. It appears whole or not at all: written
aside and renamed on a file system, put in one request on an object store. A file that was cut short or altered does
not match its checksum or its name, and the one before it is used; nothing is unpickled: the state is JSON, or what
``torch.load(weights_only=True)`` reads. Two files are kept for a lineage, none once it has ended.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import secrets
from collections import Counter, OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import CheckpointError
from hpo.files.store import open_place

log = logging.getLogger("hpo")

KEPT = 2
PLAIN = (bool, int, float, complex, str, bytes, bytearray, type(None))


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after ``epoch`` epochs: the trainer's state and the value of each epoch so far."""

    epoch: int
    state: dict[str, Any]
    history: list[dict[str, float]]


_KEY = re.compile(r"[0-9A-Za-z_-]{1,64}")


def is_study_key(text: object) -> bool:
    """Whether it is a key as studies get them. One of the database is never part of a path without this check."""
    return isinstance(text, str) and _KEY.fullmatch(text) is not None


class CheckpointFolder:
    """All checkpoints of one study, below ``root`` (a path, or an fsspec address such as ``s3://bucket/folder``).

    Attributes:
        path: the study's folder there.
        is_local: whether it is a folder of a file system.
    """

    def __init__(self, root: str | Path, study_key: str) -> None:
        """Raises CheckpointError for a ``study_key`` that is not one of ours: it becomes a folder's name."""
        if not is_study_key(study_key):
            raise CheckpointError(
                f"the attribute hpo:key of a study is {study_key!r}, which is no name of a folder of checkpoints "
                "(letters, digits, - and _): somebody has changed it in the database"
            )
        place = open_place(root)
        self._files, self.is_local, self.path = place.files, place.is_local, place.path(study_key)

    def lineage_path(self, lineage: int) -> str:
        return f"{self.path}/{lineage:06d}"

    def _epoch_path(self, lineage: int, epoch: int) -> str:
        return f"{self.lineage_path(lineage)}/{epoch:06d}.ckpt"

    def save(self, lineage: int, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint and removes all but the newest two of the lineage.

        Raises:
            CheckpointError: where it cannot be written (disk full, no rights); the ones before it stay.
            TypeError: where the state holds what could be read back only by unpickling.
        """
        self.write(lineage, checkpoint.epoch, encoded(checkpoint))

    def write(self, lineage: int, epoch: int, data: bytes) -> None:
        """:meth:`save` of what :func:`encoded` has made; raises CheckpointError as it does."""
        path = self._epoch_path(lineage, epoch)
        try:
            if self.is_local:
                os.makedirs(self.lineage_path(lineage), exist_ok=True)
                # Process ids are the same in every container; a name of its own keeps two writers apart.
                aside = f"{path}.{secrets.token_hex(4)}"
                try:
                    with open(aside, "wb") as file:
                        file.write(data)
                    os.replace(aside, path)
                except FileNotFoundError:
                    # Removed under our hands: we were stopped, and the lineage has another worker or has ended.
                    log.warning("the checkpoint %s is not written: its folder was cleared meanwhile", path)
                    return
                except BaseException:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(aside)
                    raise
            else:
                self._files.pipe_file(path, data)
        except OSError as error:
            reason = error.strerror or str(error)
            raise CheckpointError(f"the checkpoint {path} cannot be written: {reason}") from error
        for old in self._epochs(lineage)[KEPT:]:
            self._remove(self._epoch_path(lineage, old))

    def latest(self, lineage: int) -> Checkpoint | None:
        """The newest whole checkpoint of the lineage, or None.

        Damaged ones are removed, and so is what a writer that was killed left half written.
        """
        names = self._names(lineage)
        for name in names:
            if ".ckpt." in name:
                self._remove(f"{self.lineage_path(lineage)}/{name}")
        for epoch in _epochs_in(names):
            path = self._epoch_path(lineage, epoch)
            try:
                return _decoded(self._files.cat_file(path), epoch)
            except OSError as error:
                log.warning("the checkpoint %s cannot be read: %s", path, error.strerror or error)
            except CheckpointError as error:
                log.warning("the checkpoint %s is not used: %s", path, error)
                # It would count among the two that are kept, in place of what is saved next.
                self._remove(path)
        return None

    def remove(self, lineage: int) -> None:
        """Removes the lineage's checkpoints; none at all is fine."""
        path = self.lineage_path(lineage)
        self._forget_listing()
        if self._files.exists(path):
            self._remove(path, recursive=True)

    def remove_all(self) -> None:
        """Removes the study's checkpoints."""
        self._forget_listing()
        if self._files.exists(self.path):
            self._remove(self.path, recursive=True)

    def size_bytes(self) -> int:
        """Bytes that the study's checkpoints take now."""
        self._forget_listing()
        return int(self._files.du(self.path)) if self._files.exists(self.path) else 0

    def _epochs(self, lineage: int) -> list[int]:
        """Epochs of the lineage's checkpoints, newest first."""
        return _epochs_in(self._names(lineage))

    def _names(self, lineage: int) -> list[str]:
        """Names of the files in the lineage's folder."""
        self._forget_listing()
        try:
            paths = self._files.ls(self.lineage_path(lineage), detail=False)
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("the checkpoints in %s are not used: %s", self.lineage_path(lineage), error.strerror or error)
            return []
        return [path.rpartition("/")[2] for path in paths]

    def _remove(self, path: str, recursive: bool = False) -> None:
        try:
            self._files.rm(path, recursive=recursive)
        except OSError:
            # Somebody else removed it, or will; what is left over costs disk, not results.
            return

    def _forget_listing(self) -> None:
        self._files.invalidate_cache()


def _epochs_in(names: list[str]) -> list[int]:
    stems = [name.removesuffix(".ckpt") for name in names if name.endswith(".ckpt")]
    return sorted((int(stem) for stem in stems if stem.isdigit()), reverse=True)


def encoded(checkpoint: Checkpoint) -> bytes:
    """The contents of a checkpoint's file; raises TypeError as :meth:`CheckpointFolder.save` does."""
    body = {"state": checkpoint.state, "history": checkpoint.history}
    form, data = "json", _as_json(body)
    if data is None:
        _check(checkpoint.state, "the state")
        import torch

        buffer = io.BytesIO()
        torch.save(body, buffer)
        form, data = "torch", buffer.getvalue()
    header = {"format": form, "sha256": hashlib.sha256(data).hexdigest(), "epoch": checkpoint.epoch}
    return json.dumps(header).encode() + b"\n" + data


def _as_json(body: dict[str, Any]) -> bytes | None:
    """The state as JSON where that loses nothing (no tensors, no tuples, no keys but strings), else None."""
    try:
        text = json.dumps(body)
        if "NaN" not in text:
            return text.encode() if json.loads(text) == body else None
        # A NaN equals nothing, itself included; a word in its place can be compared.
        again = json.loads(text, parse_constant=lambda word: word if word == "NaN" else float(word))
        return text.encode() if again == _with_words(body) else None
    except (TypeError, ValueError, RecursionError):
        return None


def _with_words(value: Any) -> Any:
    """The same with a word in place of each NaN."""
    if isinstance(value, dict):
        return {key: _with_words(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_words(item) for item in value]
    return "NaN" if isinstance(value, float) and value != value else value


def _check(value: Any, place: str) -> None:
    """Raises TypeError, naming the place, for what ``torch.load(weights_only=True)`` would not read back."""
    import torch

    if type(value) in (dict, OrderedDict, Counter):
        for key, item in value.items():
            _check(key, f"a key of {place}")
            _check(item, f"{place}[{key!r}]")
    elif type(value) in (list, tuple, set):
        for index, item in enumerate(value):
            _check(item, f"{place}[{index}]")
    elif type(value) not in (*PLAIN, torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"{place} is a {kind}; a checkpoint holds dicts, lists, numbers, strings, bytes, None and torch tensors "
            "(torch.from_numpy(array) makes one)"
        )


def _decoded(data: bytes, expected_epoch: int) -> Checkpoint:
    line, _, body = data.partition(b"\n")
    try:
        header = json.loads(line)
        form, digest, epoch = header["format"], header["sha256"], int(header["epoch"])
    except (ValueError, KeyError, TypeError):
        raise CheckpointError("it is no checkpoint of ours") from None
    if hashlib.sha256(body).hexdigest() != digest or epoch != expected_epoch:
        raise CheckpointError("it was cut short or altered")
    if form not in ("json", "torch"):
        raise CheckpointError(f"this version does not know its format {form!r}")
    try:
        content = json.loads(body) if form == "json" else _loaded(body)
        return Checkpoint(epoch, content["state"], content["history"])
    except Exception as error:
        # Its checksum is right, so somebody wrote it on purpose: what torch refuses to unpickle ends here.
        raise CheckpointError(f"it holds what no checkpoint of ours holds ({type(error).__name__})") from error


def _loaded(body: bytes) -> Any:
    import torch

    return torch.load(io.BytesIO(body), weights_only=True, map_location="cpu")
