"""A worker whose trainer is not the version that the experiment was made with does not take part."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.database.storage import Storage

from .conftest import Hpo
from .outcomes import one_line, trials_of

VERSIONED = """
from collections.abc import Iterator

import pydantic

import hpo


class Config(hpo.Config):
    lr: float = pydantic.Field(0.1, gt=0, le=1)
    width: int = pydantic.Field(64, ge=1, le=512, description="units")
    epochs: int = 2


@hpo.trainer("versioned", metrics={"loss": "minimize"})
def versioned(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    for epoch in range(config.epochs):
        yield {"loss": config.lr / (epoch + 1)}
"""

VERSIONED_STUDY = """
name = "versions"
trainer = "versioned"
metric = "loss"
samplers = ["random"]
budget = { trials = 3 }
[space]
lr = { low = 0.001, high = 1.0 }
"""

MAKE = """
import sys
from hpo.studyfile.load import load_study_file
from hpo.database.storage import open_storage
from hpo.experiment.experiment import create_experiment
create_experiment(open_storage(), load_study_file("versions.toml", "versioned.py"))
"""


@pytest.fixture
def module(environment: dict[str, str], address: str, tmp_path: Path) -> Path:
    """The trainer's module; the experiment was made with it and waits for workers."""
    path = tmp_path / "versioned.py"
    path.write_text(VERSIONED)
    (tmp_path / "versions.toml").write_text(VERSIONED_STUDY)
    environment |= {"HPO_STORAGE": address, "HPO_TRAINERS": "versioned.py"}
    subprocess.run([sys.executable, "-c", MAKE], env=environment, cwd=tmp_path, check=True)
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr: float", "rate: float", "lr: float, gt=0, le=1, default 0.1 -> not there; rate: not there -> float"),
        ("64, ge=1", "32, ge=1", "width: int, ge=1, le=512, default 64 -> int, ge=1, le=512, default 32"),
    ],
    ids=["renamed", "default"],
)
def test_another_version_is_refused(
    old: str, new: str, said: str, module: Path, hpo_command: Hpo, tmp_path: Path, address: str
) -> None:
    module.write_text(VERSIONED.replace(old, new))
    expected = (
        "error: the trainer 'versioned' here is another version than the one that the experiment 'versions' was "
        f"made with: {said}"
    )
    assert one_line(hpo_command("worker", "versions")).startswith(expected)
    if "rate" not in new:
        # To look at it is another matter; to go on is not.
        assert hpo_command("status", "versions").returncode == 0
        assert one_line(hpo_command("launch", "versions.toml")).startswith(expected)
    assert trials_of(Storage(address), "versions/random/0") == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("le=1)", "le=10)"), ("epochs: int = 2", "epochs: int = 2\n    seed: int = 0")],
    ids=["wider bound", "new field with a default"],
)
def test_older_trials_are_what_the_default_says(
    old: str, new: str, module: Path, hpo_command: Hpo, address: str
) -> None:
    module.write_text(VERSIONED.replace(old, new))
    done = hpo_command("launch", "versions.toml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert [trial.state for trial in trials_of(Storage(address), "versions/random/0")] == [TrialState.COMPLETE] * 3


def test_edited_code_is_noticed_and_recorded(module: Path, hpo_command: Hpo, address: str, tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init")
    git("add", "versioned.py", "versions.toml")
    git("commit", "-m", "first")
    first = git("rev-parse", "HEAD")
    study = tmp_path / "versions.toml"
    done = hpo_command("launch", "versions.toml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "has changed" not in done.stderr

    # The body gives other values, and they are the worse ones: the best trial stays one of the first.
    module.write_text(VERSIONED.replace('"loss": config.lr', '"loss": 10 + config.lr'))
    study.write_text(VERSIONED_STUDY.replace("trials = 3", "trials = 5"))
    done = hpo_command("launch", "versions.toml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "has changed" in line]
    assert re.fullmatch(
        rf"versions: the code of the trainer 'versioned' \(versioned.py\) has changed since the experiment was last "
        rf"launched: sha256:\w{{8}} \(commit {first[:8]}[^)]*\) before, sha256:\w{{8}} "
        rf"\(commit {first[:8]} and uncommitted changes\) now; its trials come from both versions",
        line,
    )
    compared = json.loads(hpo_command("compare", "versions", "--json").stdout)
    (note,) = [note for note in compared["notes"] if "versions of the trainer's code" in note]
    assert re.search(r"sha256:\w{8} trained 3 trials \(versions/random/0: 0-2\), sha256:\w{8} trained 2 trials", note)
    # The commit is that of the user's repository when the best trial's version was first launched.
    exported = json.loads(hpo_command("export", "versions", "--format", "json").stdout)
    assert exported["provenance"]["git_commit"] == first
    trials = trials_of(Storage(address), "versions/random/0")
    assert len({trial.user_attrs["trained_on"]["source"] for trial in trials}) == 2


def test_another_version_can_be_accepted(module: Path, hpo_command: Hpo, tmp_path: Path, address: str) -> None:
    assert hpo_command("launch", "versions.toml", "--workers", "1").returncode == 0
    module.write_text(VERSIONED.replace("64, ge=1", "32, ge=1").replace('"loss"', '"cost"'))
    (tmp_path / "versions.toml").write_text(
        VERSIONED_STUDY.replace("trials = 3", "trials = 4").replace('"loss"', '"cost"')
    )
    refused = hpo_command("launch", "versions.toml", "--workers", "1")
    assert refused.returncode == 1
    assert "metric" in refused.stderr
    accepted = hpo_command("launch", "versions.toml", "--workers", "1", "--accept-trainer")
    assert accepted.returncode == 0, accepted.stderr
    assert len(trials_of(Storage(address), "versions/random/0")) == 4
    # Accepted once, it is the experiment's version.
    again = hpo_command("launch", "versions.toml", "--workers", "1")
    assert again.returncode == 0, again.stderr


def test_it_is_the_same_where_only_words_changed(module: Path, hpo_command: Hpo, address: str) -> None:
    module.write_text(VERSIONED.replace('"units"', '"units of the hidden layer"') + "\n# more\n")
    moved = module.rename(module.with_name("moved.py"))
    done = hpo_command("worker", "versions", "--trainers", str(moved))
    assert done.returncode == 0, done.stderr
    trials = trials_of(Storage(address), "versions/random/0")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
