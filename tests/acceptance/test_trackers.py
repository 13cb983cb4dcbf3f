"""The examples of Hydra, TensorBoard and MLflow, launched as their first lines say."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import REPOSITORY, Hpo

EXAMPLES = REPOSITORY / "examples"


def best_study(hpo_command: Hpo, name: str) -> dict[str, object]:
    (study,) = json.loads(hpo_command("status", name, "--json", HPO_TRAINERS="").stdout)["studies"]
    return dict(study)


def test_hydra(hpo_command: Hpo, tmp_path: Path) -> None:
    pytest.importorskip("hydra", reason="Hydra is not installed: pip install hydra-core")
    pytest.importorskip("sklearn")
    shutil.copytree(EXAMPLES / "hydra", tmp_path, dirs_exist_ok=True)
    launched = hpo_command("launch", "study.toml", "--workers", "2")
    assert launched.returncode == 0, launched.stderr
    study = best_study(hpo_command, "digits-hydra")
    assert study["states"]["complete"] + study["states"]["pruned"] == 8  # type: ignore[index]
    assert hpo_command("export", "digits-hydra", "--output", "best.toml").returncode == 0
    trained = hpo_command("train", "best.toml", "--folder", "again", "--json")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["reproduced"] is True
    values = json.loads(hpo_command("export", "digits-hydra", "--format", "json").stdout)
    assert set(values) == {"optimizer.lr", "model.alpha", "model.loss", "epochs"}
    # What Hydra itself made of the overrides, in the trial's folder and nowhere else.
    (overrides,) = (tmp_path / "again").rglob("hydra/.hydra/overrides.yaml")
    assert f"- optimizer.lr={values['optimizer.lr']}" in overrides.read_text()
    assert not (tmp_path / "outputs").exists()


@pytest.mark.frameworks
def test_tensorboard(hpo_command: Hpo, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'hpo-service[trackers]'")
    for name in ("with_tensorboard.py", "with_tensorboard.toml"):
        shutil.copy(EXAMPLES / "trackers" / name, tmp_path)
    launched = hpo_command("launch", "with_tensorboard.toml", "--trainers", "with_tensorboard.py", "--workers", "2")
    assert launched.returncode == 0, launched.stderr
    runs = list((tmp_path / "home" / "checkpoints").glob("*/trials/*/tensorboard/*"))
    assert sorted(run.name for run in runs) == [f"with-tensorboard-random-0-{number}" for number in range(6)]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for run in runs:
        events = EventAccumulator(str(run))
        events.Reload()
        assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]


@pytest.mark.frameworks
def test_mlflow(hpo_command: Hpo, environment: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'hpo-service[trackers]'")
    for name in ("with_mlflow.py", "with_mlflow.toml"):
        shutil.copy(EXAMPLES / "trackers" / name, tmp_path)
    # As the example says: once by hand, which makes the database.
    subprocess.run([sys.executable, "with_mlflow.py"], cwd=tmp_path, env=environment, check=True, timeout=120)
    launched = hpo_command("launch", "with_mlflow.toml", "--workers", "2", HPO_TRAINERS="")
    assert launched.returncode == 0, launched.stderr
    study = best_study(hpo_command, "with-mlflow")
    assert study["states"]["complete"] == 4, launched.stderr  # type: ignore[index]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        names = [name for (name,) in database.execute("SELECT name FROM runs ORDER BY name")]
        losses = database.execute(
            "SELECT count(*), count(DISTINCT run_uuid) FROM metrics WHERE key = 'loss'"
        ).fetchone()
        (lowest,) = database.execute(
            "SELECT min(value) FROM metrics WHERE key = 'loss' AND step = 5 AND run_uuid IN "
            "(SELECT run_uuid FROM runs WHERE name != 'by-hand')"
        ).fetchone()
    database.close()
    assert names == ["by-hand"] + [f"with-mlflow/random/0-{number}" for number in range(4)]
    assert losses == (25, 5)
    assert lowest == pytest.approx(study["best"]["value"])  # type: ignore[index]
