"""``forbidden``: combinations that are known beforehand to be of no use."""

import pytest

from hpo.search.forbidden import AnyOf, Between, Forbidden
from hpo.studyfile.load import parse_study_file
from tests.unit.study_files import mistakes, read

SPACE = {
    "lr": {"low": 1e-3, "high": 1.0, "log": True, "grid": [0.001, 0.01, 0.1, 1.0]},
    "scheduler": {"choices": ["constant", "step", "cosine"], "grid": ["constant", "step"]},
    "width": {"low": 8, "high": 64, "step": 8, "grid": [8, 64]},
    "step_size": {"low": 1, "high": 4, "when": {"scheduler": "step"}, "grid": [1, 4]},
}


def test_it_is_read_and_comes_back() -> None:
    forbidden = [
        {"scheduler": "step", "width": [8, 16]},
        {"lr": {"low": 0.5}, "scheduler": ["constant", "cosine"]},
        {"step_size": {"high": 2}},
    ]
    study_file = read(space=SPACE, forbidden=forbidden)
    assert study_file.space.forbidden == (
        Forbidden({"scheduler": AnyOf(("step",)), "width": AnyOf((8, 16))}),
        Forbidden({"lr": Between(low=0.5), "scheduler": AnyOf(("constant", "cosine"))}),
        Forbidden({"step_size": Between(high=2)}),
    )
    stored = study_file.to_json()
    assert stored["forbidden"][1] == {"lr": {"low": 0.5}, "scheduler": ["constant", "cosine"]}
    again = parse_study_file(stored, "stored")
    assert again == study_file
    assert again.space.forbidden == study_file.space.forbidden
    assert read(space=SPACE).space.forbidden == ()


def test_what_it_forbids() -> None:
    space = read(
        space=SPACE,
        fixed={"epochs": 8, "step_size": 1},
        forbidden=[
            {"scheduler": "step", "width": 8},
            {"lr": {"low": 0.1, "high": 0.5}},
            {"step_size": [1, 2], "width": 64},
        ],
    ).space
    assert space.allows({"lr": 0.01, "scheduler": "step", "width": 16, "step_size": 1})
    assert not space.allows({"lr": 0.01, "scheduler": "step", "width": 8, "step_size": 1})
    assert not space.allows({"lr": 0.1, "scheduler": "cosine", "width": 16})
    assert not space.allows({"lr": 0.5, "scheduler": "cosine", "width": 16})
    assert space.allows({"lr": 0.51, "scheduler": "cosine", "width": 16})
    # A parameter that is not active has its fixed value.
    assert not space.allows({"lr": 0.01, "scheduler": "cosine", "width": 64})
    assert space.rules_out({"width": 8, "scheduler": "step"})
    assert not space.rules_out({"width": 8})


def test_a_grid_leaves_forbidden_cells_out() -> None:
    everything = read(space=SPACE, samplers=["grid"], budget={"trials": 100})
    some = read(
        space=SPACE,
        samplers=["grid"],
        budget={"trials": 100},
        forbidden=[{"scheduler": "step", "width": 8}, {"lr": 1.0}],
    )
    sampler = some.samplers[0]
    assert len(everything.space.grid()) == 4 * (1 + 2) * 2
    cells = some.space.grid()
    assert len(cells) == 3 * (2 + 2)
    assert all(some.space.allows(cell) for cell in cells)
    assert cells == [cell for cell in everything.space.grid() if some.space.allows(cell)]
    assert some.budget_for(sampler).trials == 12
    assert read(space=SPACE, samplers=["grid"], budget={"trials": 12}, forbidden=some.forbidden).space.size() == 12


def test_a_combination_that_the_trainer_refuses_may_be_forbidden() -> None:
    """Then it is no mistake of the space: ``step_size`` must be less than the epochs."""
    space = {
        "lr": SPACE["lr"],
        "scheduler": ["step", "cosine"],
        "step_size": {"low": 1, "high": 9, "when": {"scheduler": "step"}},
    }
    study_file = read(space=space, forbidden=[{"scheduler": "step", "step_size": {"low": 8}}])
    assert not study_file.accepts({"lr": 0.1, "scheduler": "step", "step_size": 8})
    assert study_file.accepts({"lr": 0.1, "scheduler": "step", "step_size": 7})
    assert all(study_file.accepts(config_values(config)) for config in study_file.example_configs())


def config_values(config) -> dict:
    return {"lr": config.lr, "scheduler": config.scheduler, "step_size": config.step_size}


def test_another_experiment() -> None:
    """Trials of a file that forbids something else are not trials of this file."""
    old, new = read(space=SPACE), read(space=SPACE, forbidden=[{"width": 8}])
    assert not new.is_extension_of(old)
    assert "forbidden[0].width: not given -> [8]" in new.differences(old)
    assert old.is_extension_of(parse_study_file({**old.to_json(), "forbidden": []}, "stored"))


@pytest.mark.parametrize(
    ("forbidden", "expected"),
    [
        ("scheduler", ["forbidden: 'scheduler' is refused; expected a list of tables, parameter = value or values"]),
        ([["lr"]], ["forbidden: [['lr']] is refused"]),
        ([{}], ["forbidden[0]: is empty and forbids everything; expected parameter = values"]),
        ([{"schedule": "step"}], ["forbidden[0].schedule: unknown parameter of [space]: 'schedule'"]),
        ([{"epochs": 8}], ["forbidden[0].epochs: unknown"]),
        ([{"scheduler": "linear"}], ["forbidden[0].scheduler: 'linear' is outside the space; expected one of"]),
        ([{"scheduler": []}], ["forbidden[0].scheduler: is empty; expected at least one value"]),
        ([{"width": [8, 9]}], ["forbidden[0].width[1]: 9 is outside the space; expected a whole number from 8 to 64"]),
        ([{"width": "wide"}], ["forbidden[0].width: 'wide' is outside the space"]),
        ([{"width": {"above": 9}}], ["forbidden[0].width: {above = 9} is refused; expected numbers low, high or both"]),
        ([{"width": {"low": "a"}}], ["forbidden[0].width: {low = 'a'} is refused"]),
        ([{"width": {"low": 32, "high": 16}}], ["forbidden[0].width: {low = 32, high = 16} holds no value"]),
        ([{"lr": {"low": 2.0}}], ["forbidden[0].lr: {low = 2.0} holds no value; expected a number from 0.001 to 1.0"]),
        ([{"scheduler": {"low": 1}}], ["forbidden[0].scheduler: has no range; expected one of"]),
        ([{"lr": {"low": 0.001}}], ["forbidden: forbids everything: none of 2,000 random configurations"]),
        (
            [{"scheduler": ["step"]}, {"scheduler": ["constant", "cosine"]}],
            ["forbidden: forbids everything: none of 2,000 random configurations"],
        ),
    ],
)
def test_mistakes(forbidden, expected) -> None:
    found = mistakes(space=SPACE, forbidden=forbidden)
    assert len(found) == len(expected)
    for line, start in zip(found, expected, strict=True):
        assert line.replace('"', "'").startswith(start)


def test_what_is_tried_first_must_not_be_forbidden() -> None:
    forbidden = [{"scheduler": "step", "width": 8}]
    first = [{"scheduler": "step", "width": 8, "lr": 0.1}, {"scheduler": "step"}]
    assert mistakes(space=SPACE, forbidden=forbidden, try_first=first) == [
        "try_first[0]: is forbidden; leave it out, or change forbidden"
    ]


def test_a_grid_of_which_nothing_is_left() -> None:
    found = mistakes(
        space=SPACE, samplers=["grid"], budget={"trials": 100}, forbidden=[{"scheduler": ["constant", "step"]}]
    )
    assert found == ["space: each of the grid's cells is forbidden; forbid less, or give other grid values"]
