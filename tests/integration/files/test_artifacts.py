"""Files of trials: what a trainer attaches is there for any Optuna client, whatever its name is."""

import csv
import io
import json
import os
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound

import hpo
from hpo.database.storage import Storage
from hpo.files.artifacts import ArtifactFolder, attach, attach_text, attach_to_study, epochs_table
from hpo.launchers.progress import PlainProgress
from hpo.worker.trial_cache import TrialCache
from tests.integration.trials_support import claim_one, new_study

NAMES = [
    "notes.txt",
    "a name with spaces.txt",
    ".hidden",
    "-rf",
    "no_ending",
    "ü\U0001f600 ‮txt.exe",
    "two\nlines\t.txt",
    "quotes '\"`$(x).txt",
    "'; DROP TABLE trials; --",
    "<script>alert(1)<!--.html",
    "..%2f..%2fetc%2fpasswd",
    "back\\slash.txt",
    "{brace} %s %(x)s :name.txt",
    "null",
    os.fsdecode(b"not utf-8 \xff.bin"),
    "x" * 255,
]

TRAINER = """
from collections.abc import Iterator
from pathlib import Path

import hpo


class Config(hpo.Config):
    folder: str
    epochs: int = 2


@hpo.trainer("attaching", metrics={"value": "maximize"})
def attaching(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    for epoch in range(config.epochs):
        if epoch == 0:
            for path in sorted(Path(config.folder).iterdir()):
                run.artifact(path)
        else:
            run.artifact(f"{config.folder}/../written/late.png")
        yield {"value": 0.5, 'loss, "train"': 1.0 / (epoch + 1)}
"""


def contents(storage: Storage, trial_id: int, folder: Path, tmp_path: Path) -> dict[str, bytes]:
    """Name -> content of a trial's artifacts, read as any Optuna client would."""
    found = {}
    trial = storage.get_trial(trial_id)
    for meta in get_all_artifact_meta(trial, storage=storage):
        target = tmp_path / f"download-{meta.artifact_id}"
        store = FileSystemArtifactStore(str(folder))
        download_artifact(artifact_store=store, file_path=str(target), artifact_id=meta.artifact_id)
        assert meta.filename not in found
        found[meta.filename] = target.read_bytes()
    return found


def test_what_a_trainer_attaches(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "written"
    folder.mkdir()
    expected = {name: os.urandom(index * 100) for index, name in enumerate(NAMES)}
    for name, content in expected.items():
        (folder / name).write_bytes(content)
    (folder / "late.png").write_bytes(b"png")
    (folder / "link").symlink_to(folder / "notes.txt")
    (tmp_path / "attaching_trainer.py").write_text(TRAINER)
    file = tmp_path / "study.json"
    table = {"name": "files", "trainer": "attaching", "metric": "value", "fixed": {"folder": str(folder)}}
    file.write_text(json.dumps(table))
    settings = hpo.Settings(home=home, trainers=str(tmp_path / "attaching_trainer.py"))
    loaded = hpo.launch(file, launcher="inline", gpus="none", settings=settings, progress=PlainProgress(io.StringIO()))
    storage = loaded._experiment.storage
    (study,) = loaded.studies.values()
    (trial,) = study.get_trials(deepcopy=False)
    assert trial.state is optuna.trial.TrialState.COMPLETE, trial.user_attrs.get("reason")
    # What the trainer had not yet written, or attached twice, is as it was when the trial ended.
    names = [meta.filename for meta in get_all_artifact_meta(trial, storage=storage)]
    assert sorted(names) == sorted([*expected, "late.png", "late.png", "link", "epochs.csv"])
    by_name = {meta.filename: meta for meta in get_all_artifact_meta(trial, storage=storage)}
    for name, content in {**expected, "late.png": b"png", "link": expected["notes.txt"]}.items():
        assert (home / "artifacts" / by_name[name].artifact_id).read_bytes() == content
    assert by_name["late.png"].mimetype == "image/png"
    assert by_name["no_ending"].mimetype == "application/octet-stream"
    # Nothing in the store has a name that a trainer chose.
    assert {path.name for path in (home / "artifacts").iterdir()} == {
        meta.artifact_id for meta in get_all_artifact_meta(trial, storage=storage)
    }
    curves = (home / "artifacts" / by_name["epochs.csv"].artifact_id).read_text()
    assert list(csv.reader(io.StringIO(curves))) == [
        ["epoch", "value", 'loss, "train"'],
        ["1", "0.5", "1.0"],
        ["2", "0.5", "0.5"],
    ]
    storage.engine.dispose()


def test_a_file_that_is_not_there_is_told_to_the_trainer(tmp_path: Path) -> None:
    run = hpo.Run()
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileNotFoundError, match="no file to attach at"):
            run.artifact(path)
    assert run.artifacts == []


def test_a_file_that_is_gone_leaves_no_note(storage: Storage, tmp_path: Path) -> None:
    view = TrialCache(storage, auto_refresh=False)
    claim = claim_one(storage, new_study(storage, 1))
    view.track(claim)
    folder = tmp_path / "artifacts"
    with pytest.raises(FileNotFoundError):
        attach(view, claim.trial_id, tmp_path / "gone.txt", folder)
    assert get_all_artifact_meta(view.get_trial(claim.trial_id), storage=view) == []
    assert not folder.exists() or list(folder.iterdir()) == []


def test_text_in_any_characters(storage: Storage, tmp_path: Path) -> None:
    trial_id = claim_one(storage, new_study(storage, 1)).trial_id
    table = epochs_table([{"loss\udcff": 1.0}, {"ü,": float("nan"), "loss\udcff": 1e-300}])
    attach_text(storage, trial_id, "epochs.csv", table, tmp_path / "artifacts")
    (content,) = contents(storage, trial_id, tmp_path / "artifacts", tmp_path).values()
    assert content.decode() == 'epoch,loss\\udcff,"ü,"\n1,1.0,\n2,1e-300,nan\n'


def test_a_file_of_a_study_is_replaced_by_one_of_the_same_name(storage: Storage, tmp_path: Path) -> None:
    study = optuna.create_study(storage=storage)
    folder = tmp_path / "artifacts"
    ArtifactFolder(folder)
    for text in ("first", "second"):
        for name in ("a.txt", "b.txt"):
            (tmp_path / name).write_text(f"{text} {name}")
            attach_to_study(study, tmp_path / name, folder)
    found = get_all_artifact_meta(study)
    assert sorted((meta.filename, (folder / meta.artifact_id).read_text()) for meta in found) == [
        ("a.txt", "second a.txt"),
        ("b.txt", "second b.txt"),
    ]


@pytest.mark.parametrize("shared", ["memory://shared/artifacts", "folder"])
def test_a_shared_place_goes_before_the_home(tmp_path: Path, shared: str) -> None:
    """New files go to the shared place, an object store or a folder; those of the home are found as before."""
    root = shared if "://" in shared else str(tmp_path / shared)
    new, old = "11111111-2222-3333-4444-555555555555", "66666666-2222-3333-4444-555555555555"
    ArtifactFolder(tmp_path / "home").write(old, io.BytesIO(b"old"))
    folder = ArtifactFolder(root, tmp_path / "home")
    folder.write(new, io.BytesIO(b"new"))
    assert folder.open_reader(new).read() == b"new"
    assert folder.open_reader(old).read() == b"old"
    assert [path.name for path in (tmp_path / "home").iterdir()] == [old]
    # Another machine reaches the shared one only.
    elsewhere = ArtifactFolder(root, tmp_path / "another home")
    assert elsewhere.open_reader(new).read() == b"new"
    with pytest.raises(ArtifactNotFound):
        elsewhere.open_reader(old)
    assert (elsewhere.discard(new), elsewhere.discard(new), elsewhere.discard(old)) == (True, False, False)
    folder.remove(old)
    with pytest.raises(ArtifactNotFound):
        folder.remove(old)


@pytest.mark.parametrize("text", ["../../precious", "/etc/passwd", "", "..", "a" * 36, 5, None])
def test_what_is_no_id_is_no_path(tmp_path: Path, text: str) -> None:
    folder = ArtifactFolder(tmp_path / "artifacts")
    with pytest.raises(ArtifactNotFound):
        folder.open_reader(text)
    with pytest.raises(ArtifactNotFound):
        folder.remove(text)
    with pytest.raises(ValueError, match="no id"):
        folder.write(text, io.BytesIO(b"x"))
    assert list(tmp_path.iterdir()) == []
