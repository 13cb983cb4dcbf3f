"""The devices of a trial, and which trials' folders stay."""

from pathlib import Path

import pytest

from hpo.errors import ExperimentError
from hpo.files.trial_folders import TrialFolders, local_root
from hpo.worker.run_context import trial_devices


def test_devices_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial_devices("cpu", 2) == ("cpu", "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert trial_devices("cuda:0", 2) == ("cuda:0", "cuda:1")
    assert trial_devices("cuda:1", 1) == ("cuda:1",)
    with pytest.raises(ExperimentError, match="gpus_per_trial = 3, but this worker sees 2 GPUs"):
        trial_devices("cuda:0", 3)


def test_folders(tmp_path: Path) -> None:
    folders = TrialFolders(tmp_path / "checkpoints", tmp_path, "key")
    assert folders.lineages() == []
    for lineage in range(4):
        folders.of(lineage).mkdir(parents=True)
    (folders.path / "notes").mkdir()
    folders.keep_best(1, [0, 1, 2])
    assert folders.lineages() == [1, 3]
    folders.keep_best(None, [1])
    assert folders.lineages() == [3]
    folders.clear(3)
    folders.clear(3)
    assert folders.lineages() == []
    assert (folders.path / "notes").is_dir()


def test_checkpoints_of_an_object_store_leave_folders_in_the_home(tmp_path: Path) -> None:
    assert local_root("memory://bucket/folder", tmp_path) == tmp_path / "checkpoints"
    assert local_root(str(tmp_path / "shared"), Path("/home")) == tmp_path / "shared"
