"""The examples with a user's own training code, launched as their first lines say."""

import json
import shutil
from pathlib import Path

import pytest

from .conftest import REPOSITORY, Hpo


def copy(tmp_path: Path, *names: str) -> None:
    for name in names:
        shutil.copy(REPOSITORY / "examples" / name, tmp_path / name)


def test_an_optuna_objective_unchanged(hpo_command: Hpo, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    copy(tmp_path, "objective.py")
    launched = hpo_command(
        "launch", "objective.py:objective", "--trials", "8", "--pruner", "median", "--workers", "2", HPO_TRAINERS=""
    )
    assert launched.returncode == 0, launched.stderr
    # Nothing of what follows imports the script.
    (tmp_path / "objective.py").rename(tmp_path / "moved.py")
    status = json.loads(hpo_command("status", "objective-objective", "--json", HPO_TRAINERS="").stdout)
    (study,) = status["studies"]
    assert study["states"]["complete"] + study["states"]["pruned"] == 8
    assert study["best"]["value"] > 0.6  # the script's own study is to be maximized
    assert list(study["best"]["config"]) == ["alpha"]
    for command in (("compare", "objective-objective"), ("export", "objective-objective", "--output", "best.toml")):
        assert hpo_command(*command, HPO_TRAINERS="").returncode == 0
    refused = hpo_command("train", "best.toml", HPO_TRAINERS="")
    assert refused.returncode == 1
    assert "hpo train best.toml --trainers" in refused.stderr
    (tmp_path / "moved.py").rename(tmp_path / "objective.py")
    trained = json.loads(hpo_command("train", "best.toml", "--json", HPO_TRAINERS="").stdout)
    assert trained["reproduced"] is True


def test_partial_fit(hpo_command: Hpo, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    copy(tmp_path, "partial_fit.py", "partial_fit.toml")
    launched = hpo_command("launch", "partial_fit.toml", "--trainers", "partial_fit.py", "--launcher", "inline")
    assert launched.returncode == 0, launched.stderr
    status = json.loads(hpo_command("status", "partial-fit", "--json").stdout)
    assert [study["states"]["complete"] + study["states"]["pruned"] for study in status["studies"]] == [10, 10]
    assert min(study["best"]["value"] for study in status["studies"]) > 0.85


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("module", "script"), [("lightning", "lightning_module.py"), ("transformers", "hugging_face.py")]
)
def test_frameworks(hpo_command: Hpo, tmp_path: Path, module: str, script: str) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'hpo-service[frameworks]'")
    copy(tmp_path, script)
    options = ["--trials", "6", "--direction", "minimize", "--sampler", "random", "--pruner", "median"]
    launched = hpo_command("launch", f"{script}:objective", *options, "--workers", "1", HPO_TRAINERS="")
    assert launched.returncode == 0, launched.stderr
    name = f"{script.removesuffix('.py')}-objective"
    (study,) = json.loads(hpo_command("status", name, "--json", HPO_TRAINERS="").stdout)["studies"]
    assert study["states"]["complete"] + study["states"]["pruned"] == 6
    assert study["states"]["complete"] >= 1
    assert study["epochs"] >= 6
