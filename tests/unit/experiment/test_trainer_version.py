"""The version of a trainer's code: which files count, and what is said of their repository."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.experiment.trainer_version import (
    TrainerVersion,
    short_source,
    source_files,
    trainer_version,
    versions_from_json,
)
from hpo.trainers.loading import load_trainers
from hpo.trainers.registry import TRAINERS

TRAINER = """
import hpo

class Config(hpo.Config):
    x: float = 1.0

@hpo.trainer("{name}", metrics={{"loss": "minimize"}})
def train(config: Config, run: hpo.Run):
    yield {{"loss": config.x}}
"""


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    load_trainers(())
    before = dict(TRAINERS)
    yield
    TRAINERS.clear()
    TRAINERS.update(before)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_users_file_and_its_repository(tmp_path: Path) -> None:
    path = tmp_path / "versioned_trainer_a.py"
    path.write_text(TRAINER.format(name="versioned-a"))
    load_trainers((str(path),))
    assert source_files("versioned-a") == [path]
    outside = trainer_version("versioned-a")
    assert (outside.files, outside.commit, outside.uncommitted) == (("versioned_trainer_a.py",), None, False)

    git(tmp_path, "init")
    git(tmp_path, "add", path.name)
    git(tmp_path, "commit", "-m", "first")
    (tmp_path / ".git" / "info" / "exclude").write_text("__pycache__\n")
    clean = trainer_version("versioned-a")
    assert (clean.source, clean.commit, clean.uncommitted) == (
        outside.source,
        git(tmp_path, "rev-parse", "HEAD"),
        False,
    )
    path.write_text(path.read_text() + "# edited\n")
    edited = trainer_version("versioned-a")
    assert edited.source != clean.source
    assert (edited.commit, edited.uncommitted) == (clean.commit, True)
    assert str(edited).endswith(f"(commit {edited.commit[:8]} and uncommitted changes)" if edited.commit else "")


def test_the_classifier_is_the_version_of_the_package() -> None:
    assert source_files("classifier") == []
    assert trainer_version("classifier", with_commit=False).source.startswith("hpo-service ")


def test_a_program_counts_by_the_files_in_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print(1)")
    study_file = {"command": ["python", "train.py", "--lr={lr}"]}
    assert source_files("program", study_file) == [tmp_path / "train.py"]
    before = trainer_version("program", study_file, with_commit=False).source
    (tmp_path / "train.py").write_text("print(2)")
    assert trainer_version("program", study_file, with_commit=False).source != before


def test_what_a_person_wrote_into_the_attribute_is_left_out() -> None:
    good = {"source": "sha256:abc", "files": ["a.py"], "commit": "1234", "uncommitted": True}
    assert versions_from_json([good, {"source": 3}, "x", None]) == [
        TrainerVersion("sha256:abc", ("a.py",), "1234", True)
    ]
    assert versions_from_json({"source": "x"}) == []


def test_a_hash_is_shown_by_its_first_digits() -> None:
    assert short_source("sha256:0123456789abcdef") == "sha256:01234567"
    assert short_source("hpo-service 0.2.0 sha256:0123456789abcdef") == "hpo-service 0.2.0 sha256:01234567"
    assert short_source("hpo-service 0.2.0") == "hpo-service 0.2.0"
