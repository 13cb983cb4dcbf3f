"""The first screen's numbers without a database: speed of the last trials, small curves, the best of many outcomes."""

import random

import pytest

from hpo.dashboard.progress import per_second
from hpo.dashboard.sparkline import sparklines
from hpo.experiment.results import Outcome, best, ranked


def test_speed_of_the_last_trials():
    assert per_second([]) is None
    assert per_second([3.0]) is None
    assert per_second([0.0, 2.0, 4.0, 6.0]) == pytest.approx(0.5)
    # Nothing has ended for a while: the speed falls.
    assert per_second([60.0, 62.0, 64.0]) == pytest.approx(2 / 64)


def test_speed_leaves_out_the_time_in_which_nothing_ran():
    night = [1.0, 3.0, 5.0, 1500.0, 1502.0]
    assert per_second(night) == pytest.approx(2 / 5)
    assert per_second([10.0, 7200.0]) is None  # more than an hour ago


def outcomes(values, study_id=1):
    return [Outcome(10 * study_id + n, study_id, n, value, f"{study_id}-{n}", n) for n, value in enumerate(values)]


def test_small_curves_are_medians_of_the_best_so_far():
    found = sparklines({"a": [outcomes([0.1, 0.5, 0.3]), outcomes([0.2, 0.2, 0.9], 2)], "b": [[]]}, maximize=True)
    assert found["a"].label == "best so far, median of 2 repeats: from 0.15 to 0.7"
    assert found["a"].path.startswith("M0.0 ")
    assert found["b"].path == ""
    assert found["b"].label == "no complete trial yet"
    one = sparklines({"a": [outcomes([0.4])]}, maximize=False)["a"]
    assert one.label == "best so far: from 0.4 to 0.4"
    assert one.path.endswith("H120")


@pytest.mark.parametrize("maximize", [True, False])
def test_best_is_the_first_of_ranked(maximize):
    draw = random.Random(7)
    for _ in range(200):
        found = [
            Outcome(n, draw.randint(1, 3), n, draw.choice([draw.random(), 0.5, float("nan"), float("inf")]), key, seed)
            for n in range(draw.randint(0, 12))
            for key in [str(draw.randint(0, 6))]
            for seed in [draw.choice([None, 0, 1, 2])]
        ]
        first = ranked(found, maximize)
        assert best(found, maximize) == (first[0] if first else None)
