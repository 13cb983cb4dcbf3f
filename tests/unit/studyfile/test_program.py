"""The keys of a study file whose trainer runs a program."""

import sys
from pathlib import Path
from typing import Any

import pytest

import hpo.trainers.program  # noqa: F401 - registers the trainer
from hpo.errors import StudyFileError
from hpo.studyfile.load import parse_study_file, study_file_from_json
from hpo.studyfile.program import check_program

FILE: dict[str, Any] = {
    "name": "p",
    "trainer": "program",
    "metric": "val_accuracy",
    "command": "python train.py",
    "budget": {"trials": 3},
    "space": {"lr": {"low": 0.1, "high": 1.0}, "num-layers": [1, 2], "lambda": [0.5], "model.lr": [1, 2]},
    "fixed": {"epochs": 3},
}


def mistakes(**changes: Any) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        parse_study_file({**FILE, **changes}, "file")
    return caught.value.mistakes


def test_it_comes_back_as_it_was():
    file = parse_study_file({**FILE, "metrics": {"val_accuracy": "acc ([0-9.]+)"}, "stop_grace_seconds": 2}, "file")
    assert study_file_from_json(file.to_json()) == file
    assert file.program_options() == {
        "command": ["python", "train.py"],
        "args": "flags",
        "metrics": {"val_accuracy": "acc ([0-9.]+)"},
        "stop_grace_seconds": 2.0,
        "objective": "val_accuracy",
    }
    assert file.max_epochs() == 3


def test_another_grace_is_no_other_experiment():
    file, slower = (parse_study_file({**FILE, "stop_grace_seconds": n, "keep_folders": "all"}, "f") for n in (1, 2))
    assert slower.is_extension_of(file)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"command": None}, "command: missing"),
        ({"command": []}, "command: is empty"),
        ({"command": ""}, "command: is empty"),
        ({"command": [1]}, "command: [1] is refused; expected text or a list of texts"),
        ({"command": "python 'train.py"}, "cannot be split into words: No closing quotation"),
        ({"command": "t {lr} {num_layers}"}, "placeholder {num_layers} names nothing (did you mean 'num-layers'?)"),
        ({"command": "t {lr}"}, "command: does not pass num-layers, lambda, model.lr: add a placeholder such as"),
        ({"metrics": {"val_accuracy": "acc [0-9.]+"}}, "metrics.val_accuracy: 'acc [0-9.]+' has no group"),
        ({"metrics": {"val_accuracy": "acc ("}}, "'acc (' is no regular expression"),
        ({"metrics": {"val_accuracy": 3}}, "metrics.val_accuracy: 3 is refused"),
        ({"stop_grace_seconds": -1}, "stop_grace_seconds: -1 is refused"),
        ({"args": "posix"}, "args: 'posix' is not known"),
        ({"keep_folders": "some"}, "keep_folders: 'some' is not known"),
        ({"work_in": "home"}, "work_in: 'home' is not known"),
        ({"fixed": {"seed": 1}, "command": "t {lr} {seed}", "args": "flags"}, "{seed} has a meaning of its own"),
        ({"trainer": "classifier"}, 'command: is for trainer = "program" only'),
    ],
)
def test_mistakes(changes: dict[str, Any], expected: str):
    import hpo.trainers.classifier.entry  # noqa: F401

    found = mistakes(**changes)
    assert any(expected in line for line in found), found


def test_an_export_may_lack_a_parameter_that_was_not_active():
    file = {**FILE, "command": "t {lr} {momentum}", "space": {}, "fixed": {"lr": 1}, "provenance": {"seed": 1}}
    assert parse_study_file(file, "file").command is not None


def test_a_program_that_is_not_there_is_refused_where_it_is_to_run(tmp_path: Path):
    with pytest.raises(StudyFileError, match="there is no program 'no-such-program' here that can be executed"):
        check_program(["no-such-program", "{lr}"], "file")
    (tmp_path / "plain.txt").write_text("")
    with pytest.raises(StudyFileError):
        check_program([str(tmp_path / "plain.txt")], "file")
    check_program(["{python}", "train.py"], "file")
    check_program([sys.executable], "file")
