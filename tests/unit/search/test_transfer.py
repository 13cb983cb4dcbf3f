"""Configurations of one space in another: what stays, what moves to the nearest value, what does not fit."""

import pytest

from hpo.search.forbidden import Forbidden
from hpo.search.parameters import Categorical, Float, Int
from hpo.search.space import Space
from hpo.search.transfer import Translated, fitting, translate

SPACE = Space(
    {
        "lr": Float(0.01, 1.0, log=True),
        "momentum": Float(0.5, 0.9, step=0.1),
        "width": Int(16, 64, step=16),
        "batch_size": Categorical((32, 64, 128)),
        "scheduler": Categorical(("constant", "step")),
        "gamma": Float(0.1, 0.9, when={"scheduler": ("step",)}),
    },
    forbidden=(Forbidden.from_table({"batch_size": [128], "width": [64]}),),
)


@pytest.mark.parametrize(
    ("known", "values", "moved", "dropped"),
    [
        ({"lr": 0.1}, {"lr": 0.1}, [], []),
        ({"lr": 1.4}, {"lr": 1.0}, ["lr"], []),  # within a tenth of two decades
        ({"lr": 2.0}, {}, [], ["lr"]),
        ({"lr": -1.0}, {}, [], ["lr"]),
        ({"lr": "fast"}, {}, [], ["lr"]),
        ({"momentum": 0.63}, {"momentum": 0.6}, ["momentum"], []),
        ({"width": 40}, {"width": 48}, ["width"], []),
        ({"width": 32.0}, {"width": 32}, [], []),
        ({"width": 68}, {"width": 64}, ["width"], []),
        ({"batch_size": 100}, {"batch_size": 128}, ["batch_size"], []),  # by ratio
        ({"batch_size": 16}, {}, [], ["batch_size"]),
        ({"batch_size": True}, {}, [], ["batch_size"]),
        ({"scheduler": "cosine"}, {}, [], ["scheduler"]),
        ({"scheduler": "constant", "gamma": 0.5}, {"scheduler": "constant"}, [], []),
        ({"scheduler": "step", "gamma": 0.5}, {"scheduler": "step", "gamma": 0.5}, [], []),
        ({"gamma": 0.5}, {"gamma": 0.5}, [], []),  # active if the scheduler that is drawn wants it
        ({"other": 1, "lr": None}, {}, [], []),
    ],
)
def test_translation(known: dict, values: dict, moved: list, dropped: list) -> None:
    found = translate(SPACE, known)
    assert found == Translated(values, {name: known[name] for name in moved}, {name: known[name] for name in dropped})
    assert all(SPACE.parameters[name].contains(value) for name, value in found.values.items())


COMPLETE = {"lr": 0.1, "momentum": 0.7, "width": 32, "batch_size": 64, "scheduler": "constant"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"width": 32.0}, None),
        ({"gamma": 5.0}, None),  # not active
        ({"scheduler": "step", "gamma": 0.5}, None),
        ({"scheduler": "step"}, "gamma has no value"),
        ({"lr": 1.0001}, "lr is outside of its range"),
        ({"momentum": 0.63}, "momentum is outside of its range"),
        ({"batch_size": 65}, "batch_size is none of its choices"),
        ({"batch_size": 128, "width": 64}, "the combination is forbidden"),
    ],
)
def test_a_trial_with_its_value_must_be_a_point_of_the_space(change: dict, reason: str | None) -> None:
    values, why = fitting(SPACE, {**COMPLETE, **change})
    assert why == reason
    assert bool(values) == (reason is None)
