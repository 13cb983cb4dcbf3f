"""Budgets: what they come to in seconds, which one goes on from which."""

import pytest

from hpo.search.sampler_registry import SAMPLERS, SamplerSpec
from hpo.studyfile.budget import Budget
from hpo.studyfile.notes import notes_on
from tests.unit.study_files import read


@pytest.mark.parametrize(
    ("old", "new", "goes_on"),
    [
        ({"hours": 1}, {"hours": 2}, True),
        ({"hours": 1}, {"seconds": 3600}, True),
        ({"hours": 1}, {"seconds": 3599}, False),
        ({"trials": 20, "seconds": 5}, {"trials": 20, "seconds": 60}, True),
        ({"trials": 20, "seconds": 5}, {"trials": 30, "seconds": 5}, True),
        ({"trials": 20, "seconds": 5}, {"trials": 19, "seconds": 60}, False),
        ({"trials": 20, "seconds": 5}, {"trials": 20}, True),
        ({"trials": 20}, {"trials": 30, "hours": 9}, False),
        ({"trials": 20}, {"hours": 9}, False),
        ({"hours": 9}, {"trials": 20}, False),
        ({"epochs": 20, "hours": 1}, {"epochs": 40, "hours": 1}, True),
        ({"epochs": 20, "hours": 1}, {"trials": 40, "hours": 1}, False),
        ({"gpu_hours": 1}, {"gpu_hours": 2}, True),
        ({"gpu_hours": 1}, {"hours": 2}, False),
        ({"hours": 1}, {"gpu_hours": 2}, False),
        ({"trials": 20, "gpu_hours": 1}, {"trials": 20}, True),
    ],
)
def test_a_larger_time_is_an_extension(old: dict[str, float], new: dict[str, float], goes_on: bool) -> None:
    assert Budget(**new).includes(Budget(**old)) is goes_on
    assert read(budget=new).is_extension_of(read(budget=old)) is goes_on


def test_the_time_in_seconds() -> None:
    assert Budget(hours=0.5).time == 1800
    assert Budget(trials=3, seconds=7).time == 7
    assert Budget(trials=3).time is None
    assert Budget(trials=3, hours=1).times(2) == Budget(trials=6, hours=2)


def test_a_grid_within_a_time_trains_its_cells() -> None:
    grid = SamplerSpec("grid", "grid", SAMPLERS["grid"].options())
    space = {"lr": {"low": 0.1, "high": 0.9, "grid": 5}}
    found = read(budget={"hours": 1}, samplers=["grid"], space=space)
    assert found.budget_for(grid) == Budget(trials=5, hours=1)


def test_a_launch_says_what_trials_come_to_under_a_pruner() -> None:
    (note,) = notes_on(read(budget={"trials": 20}, pruner="asha", fixed={"epochs": 27}))
    assert note.startswith("budget: with asha, 20 trials train about 11")
    assert "of 540 epochs, and about 3 of them to the end" in note
    assert "such as { epochs = 540 }" in note
    for keys in ({"budget": {"epochs": 540}}, {"pruner": "median"}, {"pruner": "none"}):
        assert notes_on(read(**{"budget": {"trials": 20}, "pruner": "asha", "fixed": {"epochs": 27}, **keys})) == []
