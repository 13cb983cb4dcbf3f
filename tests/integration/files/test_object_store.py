"""Checkpoints and artifacts in an object store that speaks S3, with a real client over HTTP."""

import io
import uuid
from pathlib import Path

import pytest

from hpo.files.artifacts import ArtifactFolder
from hpo.files.checkpoints import Checkpoint, CheckpointFolder
from hpo.settings import Settings

s3fs = pytest.importorskip("s3fs", reason="a development dependency: s3fs")


def test_checkpoints(bucket: str) -> None:
    store = CheckpointFolder(bucket, "study")
    for epoch in (1, 2, 3):
        store.save(7, Checkpoint(epoch, {"epoch": epoch}, [{"value": 0.5}] * epoch))
    # As on another machine, which has listed nothing yet.
    s3fs.S3FileSystem.clear_instance_cache()
    found = CheckpointFolder(bucket, "study").latest(7)
    assert found is not None
    assert (found.epoch, found.state) == (3, {"epoch": 3})
    assert len(s3fs.S3FileSystem().find(f"{bucket}/study")) == 2
    assert store.size_bytes() > 0
    store.remove(7)
    assert store.latest(7) is None


def test_artifacts_lie_beside_them(bucket: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, checkpoint_dir=bucket)
    artifact = str(uuid.uuid4())
    ArtifactFolder(settings.artifact_root).write(artifact, io.BytesIO(b"content"))
    s3fs.S3FileSystem.clear_instance_cache()
    with ArtifactFolder(settings.artifact_root, settings.artifacts).open_reader(artifact) as file:
        assert file.read() == b"content"
    assert s3fs.S3FileSystem().exists(f"{bucket}/artifacts/{artifact}")
