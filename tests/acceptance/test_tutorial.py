"""The study files of the README and of the tutorial, exactly as they are printed there, with the tutorial's script."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from .conftest import REPOSITORY, Hpo

PAGES = ("README.md", "docs/tutorial/your-script.md", "docs/how-to/your-code.md")


def study_file(page: str) -> str:
    """The first study file of a page."""
    match = re.search(r"^```toml\n(.*?)^```", (REPOSITORY / page).read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None, page
    return match[1]


@pytest.mark.parametrize("page", PAGES)
def test_launched_exported_trained_again(hpo_command: Hpo, tmp_path: Path, page: str) -> None:
    text, trials = study_file(page), re.search(r"trials = (\d+)", study_file(page))
    assert trials is not None
    (tmp_path / "study.toml").write_text(text)
    shutil.copy(REPOSITORY / "examples" / "tutorial" / "train.py", tmp_path)
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HPO_TRAINERS": ""}
    launched = hpo_command("launch", "study.toml", "--workers", "2", **path)
    assert launched.returncode == 0, launched.stderr
    (study,) = json.loads(hpo_command("status", "my-script", "--json").stdout)["studies"]
    assert study["states"]["complete"] + study["states"]["pruned"] == int(trials[1])
    assert study["states"]["complete"] >= 1
    assert study["best"]["value"] > 0.7
    assert hpo_command("export", "my-script", "--output", "best.toml").returncode == 0
    trained = hpo_command("train", "best.toml", "--json", **path)
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert result["reproduced"] is True
    log = hpo_command("logs", "my-script", "0").stdout
    assert "epoch 1, val acc: " in log
