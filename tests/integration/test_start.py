"""What a process imports until it has opened a storage, read an experiment and can claim."""

import subprocess
import sys
from pathlib import Path

import optuna
from optuna.artifacts import ArtifactMeta
from optuna.storages._rdb.storage import _VersionManager

from hpo.database.schema_version import newest_revision
from hpo.database.storage import Storage
from hpo.files.artifacts import ArtifactFolder, attach

NOT_NEEDED = ("alembic", "boto3", "botocore", "mako", "torch", "sklearn", "optuna_dashboard", "hpo.trainers.classifier")


def test_a_worker_and_a_launch_import_no_more_than_they_need(address: str) -> None:
    script = (
        "import sys\n"
        "import hpo.api, hpo.worker.worker, hpo.launchers.local, hpo.compare.publish\n"
        "from hpo.search.optuna_internals import dashboard_figures, dashboard_module\n"
        "assert dashboard_figures({}) == {} and dashboard_module('_note').save_note\n"
        "from hpo.database.storage import open_storage\n"
        "storage = open_storage(sys.argv[1])\n"
        f"print(sorted(set({NOT_NEEDED!r}) & set(sys.modules)))\n"
        "assert storage.get_current_version() == storage.get_head_version()  # with alembic, if somebody asks\n"
    )
    Storage(address).engine.dispose()
    done = subprocess.run([sys.executable, "-c", script, address], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_newest_revision_is_the_one_that_alembic_finds(storage: Storage) -> None:
    assert newest_revision() == storage.get_head_version()
    assert isinstance(storage._version_manager, _VersionManager)


def test_an_artifacts_note_is_one_of_optunas(storage: Storage, tmp_path: Path) -> None:
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    file = tmp_path / "curve.csv"
    file.write_text("a,b\n")
    artifact_id = attach(storage, trial._trial_id, file, tmp_path / "artifacts")
    (meta,) = optuna.artifacts.get_all_artifact_meta(trial, storage=storage)
    assert meta == ArtifactMeta(artifact_id, "curve.csv", "text/csv", None)
    with ArtifactFolder(tmp_path / "artifacts").open_reader(artifact_id) as opened:
        assert opened.read() == b"a,b\n"
