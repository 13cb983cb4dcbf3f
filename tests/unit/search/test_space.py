"""Search spaces: grids, conditions, and what Optuna is told."""

import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpo.search.space import Categorical, Float, GridTooLargeError, Int, Space, parents_first


def asked(space, values=None):
    """A trial that takes the given values where they are asked for."""
    return space.suggest(optuna.trial.FixedTrial(values or {}))


CHAIN = Space(
    {
        "leaf": Float(0.0, 1.0, when={"branch": (2, 3)}),
        "branch": Int(1, 3, when={"root": ("deep",)}),
        "root": Categorical(("flat", "deep")),
    }
)


def test_points_are_evenly_spaced_on_the_parameters_own_scale():
    assert Float(0.0, 1.0).points(5) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert Float(1e-4, 1.0, log=True).points(5) == (0.0001, 0.001, 0.01, 0.1, 1.0)
    assert Float(0.0, 1.0, step=0.25).points(3) == (0.0, 0.5, 1.0)
    assert Float(0.0, 1.0, step=0.1).every_value() == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert Int(1, 9).points(3) == (1, 5, 9)
    assert Int(1, 1000, log=True).points(4) == (1, 10, 100, 1000)
    assert Int(0, 10, step=5).points(3) == (0, 5, 10)
    assert Int(1, 3).points(7) == (1, 2, 3)
    assert Int(16, 64, step=16).every_value() == (16, 32, 48, 64)


def test_one_point_lies_in_the_middle():
    assert Float(0.0, 1.0).middle() == 0.5
    assert Float(0.01, 1.0, log=True).middle() == 0.1
    assert Int(1, 9).middle() == 5
    assert Int(1, 10_000, log=True).middle() == 100
    assert Categorical(("a", "b")).middle() == "a"


def test_points_never_leave_the_range():
    for low, high in ((0.1 + 0.2, 0.9), (1e-3, 1 / 3), (math.pi, math.tau)):
        for log in (False, True):
            points = Float(low, high, log=log).points(7)
            assert points[0] == low
            assert points[-1] == high
            assert all(low <= point <= high for point in points)
            assert len(points) == 7


def test_contains():
    assert Float(0.0, 1.0).contains(1)
    assert not Float(0.0, 1.0).contains(True)
    assert not Float(0.0, 1.0).contains(math.nan)
    assert Float(0.0, 1.0, step=0.1).contains(0.3)
    assert not Float(0.0, 1.0, step=0.1).contains(0.35)
    assert Int(1, 9, step=4).contains(5)
    assert not Int(1, 9, step=4).contains(4)
    assert not Int(1, 9).contains(5.0)
    assert Categorical(("a", 1, True)).contains("a")
    assert not Categorical(("a",)).contains(["a"])


def test_distributions():
    space = Space(
        {
            "lr": Float(1e-3, 1.0, log=True),
            "beta": Float(0.0, 1.0, step=0.25),
            "width": Int(8, 64, log=True),
            "depth": Int(1, 9, step=2),
            "activation": Categorical(("relu", 2, 0.5, False)),
        }
    )
    assert space.distributions() == {
        "lr": FloatDistribution(1e-3, 1.0, log=True),
        "beta": FloatDistribution(0.0, 1.0, step=0.25),
        "width": IntDistribution(8, 64, log=True),
        "depth": IntDistribution(1, 9, step=2),
        "activation": CategoricalDistribution(("relu", 2, 0.5, False)),
    }


def test_values_come_back_from_optuna_as_they_went_in():
    choices = ("relu", 2, 0.1, False)
    space = Space({"x": Float(0.1, 0.3), "n": Int(1, 2**53), "c": Categorical(choices)})
    for value in choices:
        values = {"x": 0.1 + 0.2 - 0.1, "n": 2**53 - 1, "c": value}
        distributions = space.active_distributions(values)
        back = {
            name: distribution.to_external_repr(distribution.to_internal_repr(values[name]))
            for name, distribution in distributions.items()
        }
        assert back == values
        assert [type(item) for item in back.values()] == [float, int, type(value)]


def test_parents_come_before_children():
    assert CHAIN.order == ("root", "branch", "leaf")
    assert parents_first({"a": ["b"], "b": [], "c": ["c"], "d": ["c"]}) == ("b", "a")


def test_inactive_parameters_are_not_asked_for():
    assert asked(CHAIN, {"root": "flat"}) == {"root": "flat"}
    assert asked(CHAIN, {"root": "deep", "branch": 1}) == {"root": "deep", "branch": 1}
    assert asked(CHAIN, {"root": "deep", "branch": 3, "leaf": 0.5}) == {"root": "deep", "branch": 3, "leaf": 0.5}


def test_a_child_of_an_inactive_parent_is_inactive_whatever_the_parent_is_fixed_to():
    space = Space(CHAIN.parameters, {"branch": 2})
    assert not space.is_active("leaf", {"root": "flat"})
    assert space.is_active("leaf", {"root": "deep"})


def test_all_conditions_must_hold():
    space = Space(
        {
            "a": Categorical((1, 2)),
            "b": Categorical((1, 2)),
            "c": Int(1, 2, when={"a": (1,), "b": (2,)}),
        }
    )
    active = [(a, b) for a in (1, 2) for b in (1, 2) if space.is_active("c", {"a": a, "b": b})]
    assert active == [(1, 2)]


def test_active_distributions_are_those_of_given_active_values_in_range():
    assert CHAIN.active_distributions({"root": "flat", "branch": 2}).keys() == {"root"}
    assert CHAIN.active_distributions({"root": "deep", "branch": 2}).keys() == {"root", "branch"}
    assert CHAIN.active_distributions({"root": "deep", "branch": 9}).keys() == {"root"}


def test_grid_cells_in_order():
    space = Space({"a": Int(1, 9, grid=(1, 9)), "b": Categorical(("x", "y"), grid=("x", "y")), "c": Float(0.0, 1.0)})
    assert space.grid() == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 9, "b": "x"},
        {"a": 9, "b": "y"},
    ]
    assert space.size() == 4


def test_grid_drops_inactive_children_and_the_cells_that_then_repeat():
    space = Space(
        {
            "scheduler": Categorical(("constant", "step"), grid=("constant", "step")),
            "step_size": Int(1, 5, grid=(1, 3, 5), when={"scheduler": ("step",)}),
        }
    )
    assert space.grid() == [
        {"scheduler": "constant"},
        {"scheduler": "step", "step_size": 1},
        {"scheduler": "step", "step_size": 3},
        {"scheduler": "step", "step_size": 5},
    ]
    assert space.size() == 4


def test_grid_follows_the_fixed_value_of_a_parent_without_grid_values():
    parameters = {
        "scheduler": Categorical(("constant", "step")),
        "step_size": Int(1, 5, grid=(1, 5), when={"scheduler": ("step",)}),
    }
    assert Space(parameters, {"scheduler": "constant"}).grid() == [{}]
    assert Space(parameters, {"scheduler": "step"}).grid() == [{"step_size": 1}, {"step_size": 5}]


def test_size_of_no_grid_and_of_no_space():
    assert Space({"a": Int(1, 2)}).size() is None
    assert Space({}).size() == 1
    assert Space({}).grid() == [{}]


def test_a_grid_of_too_many_cells_is_refused_without_making_them():
    space = Space({name: Int(1, 100, grid=tuple(range(1, 101))) for name in "abcdefgh"})
    with pytest.raises(GridTooLargeError, match="more than 1000000 cells"):
        space.size()


def test_grid_is_a_copy():
    space = Space({"a": Int(1, 2, grid=(1, 2))})
    space.grid().clear()
    assert len(space.grid()) == 2
