"""``metric = [first, second]`` in a study file, and what does not go with it."""

from typing import Any

import pytest

from hpo.errors import StudyFileError
from hpo.search.sampler_registry import SAMPLERS
from hpo.studyfile.load import parse_study_file, study_file_from_json
from hpo.studyfile.objectives import joined_objectives
from tests.unit import study_files  # noqa: F401  (registers the trainer)

TWO: dict[str, Any] = {
    "name": "two",
    "trainer": "toy",
    "metric": ["val_accuracy", "val_loss"],
    "budget": {"trials": 10},
    "space": {"lr": {"low": 0.01, "high": 1.0}},
}


def mistakes(**changes: Any) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        parse_study_file({**TWO, **changes}, "the file")
    return caught.value.mistakes


def test_directions_follow_from_the_trainer() -> None:
    file = parse_study_file(TWO, "the file")
    assert [(o.metric, o.direction) for o in file.objectives] == [
        ("val_accuracy", "maximize"),
        ("val_loss", "minimize"),
    ]
    assert study_file_from_json(file.to_json()) == file
    given = parse_study_file(
        {**TWO, "metric": ["val_loss", "speed"], "direction": ["minimize", "maximize"]}, "the file"
    )
    assert [o.direction for o in given.objectives] == ["minimize", "maximize"]
    again = parse_study_file(joined_objectives(given.to_json()), "the file")
    assert again == given


def test_a_file_of_one_metric_is_recorded_as_before() -> None:
    stored = parse_study_file({**TWO, "metric": "val_loss"}, "the file").to_json()
    assert not {"second_metric", "second_direction"} & stored.keys()
    assert parse_study_file({**TWO, "metric": ["val_loss"]}, "the file").to_json() == stored


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pruner": "median"}, "pruner: median judges a trial by one metric, and two are optimized"),
        ({"samplers": ["cmaes"]}, "samplers[0]: cmaes optimizes one metric, and there are two; expected one of grid,"),
        ({"samplers": ["gp"]}, "samplers[0]: gp optimizes one metric"),
        ({"target": 0.9}, "target: is for one metric, and two are optimized"),
        ({"metric": ["val_loss", "val_loss"]}, "metric: 'val_loss' is given twice"),
        (
            {"metric": ["a", "b", "c"]},
            "metric: ['a', 'b', 'c'] is refused; expected the name of a metric, or a list of",
        ),
        ({"metric": ["val_loss", "val_acuracy"]}, "metric: unknown metric of the trainer 'toy': 'val_acuracy'"),
        ({"direction": "minimize"}, "direction: 'minimize' is one direction for two metrics; expected a list of two"),
        ({"direction": ["minimize"]}, "direction: ['minimize'] has 1 directions for 2 metrics"),
        ({"metric": ["val_loss", "speed"]}, "direction: missing; it does not follow from the name 'speed'"),
    ],
)
def test_bad_files(changes: dict[str, Any], expected: str) -> None:
    found = mistakes(**changes)
    assert any(line.startswith(expected) for line in found), found


def test_every_sampler_that_says_so_is_accepted() -> None:
    able = [name for name, entry in SAMPLERS.items() if entry.two_objectives]
    assert {"random", "grid", "qmc", "tpe", "nsgaii", "auto"} <= set(able)
    space = {"lr": {"low": 0.01, "high": 1.0, "grid": [0.1, 0.2]}}
    assert parse_study_file({**TWO, "samplers": able, "space": space}, "the file").samplers


@pytest.mark.parametrize(
    ("constraints", "expected"),
    [
        ({"val_los": {"at_most": 1}}, "constraints.val_los: unknown metric of the trainer 'toy': 'val_los'"),
        ({"val_loss": {}}, "constraints.val_loss: {} is refused; expected { at_most = … }, { at_least = … } or both"),
        ({"val_loss": {"at_most": 1, "at_least": 2}}, "constraints.val_loss: at_least = 2 is above at_most = 1"),
        ({"val_loss": {"atmost": 1}}, "constraints.val_loss.atmost: unknown name"),
        ({"val_loss": 5}, "constraints.val_loss: 5 is refused"),
        ({"val_loss": {"at_most": "5"}}, "constraints.val_loss.at_most: '5' is refused; expected a valid number"),
        ({"test_loss": {"at_most": 5}}, "constraints.test_loss: does not exist in a search"),
    ],
)
def test_bad_constraints(constraints: dict[str, Any], expected: str) -> None:
    found = mistakes(metric="val_loss", constraints=constraints)
    assert any(line.startswith(expected) for line in found), found


def test_constraints_are_recorded_only_if_they_are_given() -> None:
    given = parse_study_file({**TWO, "constraints": {"speed": {"at_least": 3}}}, "the file")
    assert given.to_json()["constraints"] == {"speed": {"at_least": 3}}
    assert study_file_from_json(given.to_json()) == given
    assert "constraints" not in parse_study_file(TWO, "the file").to_json()
