"""Checkpoints: what a lineage continues from after its worker died.

A file is a line of JSON (format, SHA-256 of the rest, epoch) and the state. It appears whole or not at all: written
aside and renamed on a file system, put in one request on an object store. A file that was cut short or altered does
not match its checksum, and the one before it is used; nothing is unpickled: the state is JSON, or what
``torch.load(weights_only=True)`` reads. Two files are kept for a lineage, none once it has ended.
"""

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from hpo.errors import CheckpointError

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after ``epoch`` epochs: the trainer's state and the value of each epoch so far."""

    epoch: int
    state: dict[str, Any]
    history: list[dict[str, float]]


class CheckpointFolder:
    """All checkpoints of one study, below ``root`` (a path, or an fsspec address such as ``s3://bucket/folder``)."""

    def __init__(self, root: str | Path, study_key: str) -> None:
        self._files, base = fsspec.core.url_to_fs(str(root))
        self._local = isinstance(self._files, fsspec.implementations.local.LocalFileSystem)
        self.path = f"{base.rstrip('/')}/{study_key}"

    def lineage_path(self, lineage: int) -> str:
        return f"{self.path}/{lineage:06d}"

    def _epoch_path(self, lineage: int, epoch: int) -> str:
        return f"{self.lineage_path(lineage)}/{epoch:06d}.ckpt"

    def save(self, lineage: int, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint and removes all but the newest two of the lineage.

        Raises:
            CheckpointError: where it cannot be written (disk full, no rights); the ones before it stay.
        """
        path = self._epoch_path(lineage, checkpoint.epoch)
        data = _encoded(checkpoint)
        try:
            if self._local:
                os.makedirs(self.lineage_path(lineage), exist_ok=True)
                aside = f"{path}.{os.getpid()}"
                try:
                    with open(aside, "wb") as file:
                        file.write(data)
                    os.replace(aside, path)
                except BaseException:
                    if os.path.exists(aside):
                        os.unlink(aside)
                    raise
            else:
                self._files.pipe_file(path, data)
        except OSError as error:
            reason = error.strerror or str(error)
            raise CheckpointError(f"the checkpoint {path} cannot be written: {reason}") from error
        for epoch in self._epochs(lineage)[KEPT:]:
            self._remove(self._epoch_path(lineage, epoch))

    def latest(self, lineage: int) -> Checkpoint | None:
        """The newest whole checkpoint of the lineage, or None."""
        for epoch in self._epochs(lineage):
            try:
                data = self._files.cat_file(self._epoch_path(lineage, epoch))
                return _decoded(data)
            except (OSError, CheckpointError):
                continue
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
        self._forget_listing()
        try:
            names = self._files.ls(self.lineage_path(lineage), detail=False)
        except OSError:
            return []
        stems = [name.rpartition("/")[2].removesuffix(".ckpt") for name in names if name.endswith(".ckpt")]
        return sorted((int(stem) for stem in stems if stem.isdigit()), reverse=True)

    def _remove(self, path: str, recursive: bool = False) -> None:
        try:
            self._files.rm(path, recursive=recursive)
        except OSError:
            # Somebody else removed it, or will; what is left over costs disk, not results.
            return

    def _forget_listing(self) -> None:
        self._files.invalidate_cache()


def _encoded(checkpoint: Checkpoint) -> bytes:
    body = {"state": checkpoint.state, "history": checkpoint.history}
    form, data = "json", _as_json(body)
    if data is None:
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
        return text.encode() if "NaN" in text or json.loads(text) == body else None
    except (TypeError, ValueError):
        return None


def _decoded(data: bytes) -> Checkpoint:
    line, _, body = data.partition(b"\n")
    try:
        header = json.loads(line)
        form, digest, epoch = header["format"], header["sha256"], int(header["epoch"])
    except (ValueError, KeyError, TypeError):
        raise CheckpointError("no checkpoint of ours") from None
    if hashlib.sha256(body).hexdigest() != digest:
        raise CheckpointError("cut short or altered")
    if form == "json":
        content = json.loads(body)
    elif form == "torch":
        import torch

        content = torch.load(io.BytesIO(body), weights_only=True, map_location="cpu")
    else:
        raise CheckpointError(f"a format that this version does not know: {form!r}")
    return Checkpoint(epoch, content["state"], content["history"])
