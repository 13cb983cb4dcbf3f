"""What a training again says: means without what is not finite, and a verdict in words that fit."""

import json
import math
from typing import Any

import pytest

from hpo.export.train_result import TrainResult


def own(expected: float | None, obtained: float, **others: Any) -> TrainResult:
    return TrainResult({}, "loss", [{"seed": 7, "loss": obtained}], expected=expected, own_seed=True, **others)


@pytest.mark.parametrize(
    ("expected", "obtained", "verdict"),
    [
        (0.5, 0.5, "reproduced: expected 0.5, obtained 0.5 (seed 7)"),
        (0.01, 5.01, "not reproduced, off by 5, 500 times the value: expected 0.01, obtained 5.01 (seed 7)"),
        (0.983, 0.982, "not reproduced, off by 0.001, 0.10% of the value: expected 0.983, obtained 0.982 (seed 7)"),
        (0.0, 1.0, "not reproduced, off by 1: expected 0.0, obtained 1.0 (seed 7)"),
        (0.5, math.nan, "not reproduced: expected 0.5, obtained nan (seed 7)"),
    ],
)
def test_the_verdict(expected: float, obtained: float, verdict: str):
    result = own(expected, obtained)
    assert result.verdict() == verdict
    assert result.is_right == (expected == obtained) == result.reproduced


def test_the_last_bits_are_called_rounding():
    result = own(0.1, 0.1 + 1e-16 * 2)
    assert str(result.verdict()).startswith("the same but for rounding (off by 1.9e-16, 2e-15 of the value): ")
    assert not result.is_right


def test_what_differs_is_named_with_a_value_that_does_not_come_out():
    result = own(1.0, 2.0, differences=["torch: 2.13 there, 2.14 here"])
    assert str(result.verdict()).endswith("; different from where it was found: torch: 2.13 there, 2.14 here")
    assert "different" not in str(own(1.0, 1.0, differences=["x"]).verdict())


def test_nothing_is_expected_without_a_value():
    assert own(None, 1.0).verdict() is None
    assert own(None, 1.0).is_right
    assert TrainResult({}, "loss", [{"seed": 0, "loss": 1.0}], expected=1.0).reproduced is None


def test_what_is_not_finite_is_left_out_and_counted():
    runs = [
        {"seed": 0, "loss": 1.0, "grad_norm": math.inf},
        {"seed": 1, "loss": math.nan, "grad_norm": math.nan},
        {"seed": 2, "error": "ValueError: broken"},
        {"seed": 3, "loss": 3.0, "grad_norm": -math.inf, "extra": 1e308},
        {"seed": 4, "loss": 2.0, "extra": 1e308},
    ]
    result = TrainResult({}, "loss", runs)
    assert (result.mean("loss"), result.std("loss")) == (2.0, 1.0)
    assert (result.mean("grad_norm"), result.std("grad_norm")) == (None, None)
    assert result.mean("extra") == 1e308
    assert not result.is_right
    text = json.dumps(result.as_dict(), allow_nan=False)
    assert json.loads(text)["not_finite"] == {"loss": 2, "grad_norm": 5, "extra": 3}
    assert json.loads(text)["runs"][1] == {"seed": 1, "loss": None, "grad_norm": None}
