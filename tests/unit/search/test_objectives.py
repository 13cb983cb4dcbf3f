"""Pareto fronts and hypervolumes against Optuna's own, on random points."""

import random

import numpy as np
import optuna
import pytest
from optuna._hypervolume import compute_hypervolume

from hpo.search.objectives import Objective, Point, objectives_of, pareto_front, scale_of

BOTH = (Objective("accuracy", "maximize"), Objective("size", "minimize"))


def points(seed: int, count: int = 40) -> list[Point]:
    rng = random.Random(seed)
    return [(round(rng.random(), 1), float(rng.randint(1, 20))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_optunas(seed: int) -> None:
    found = points(seed)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for point in found:
        study.add_trial(optuna.trial.create_trial(values=list(point)))
    assert {found[i] for i in pareto_front(found, BOTH)} == {tuple(trial.values) for trial in study.best_trials}
    front = [found[i] for i in pareto_front(found, BOTH)]
    assert front == sorted(set(front), reverse=True)  # each once, the most accurate first


@pytest.mark.parametrize("seed", range(5))
def test_the_hypervolume_is_optunas(seed: int) -> None:
    found = points(seed)
    scale = scale_of(found, BOTH)
    assert scale is not None
    (best_a, best_s), (at_a, at_s) = scale.best, scale.reference
    losses = np.array([[-a, s] for a, s in found if a > at_a and s < at_s])  # what Optuna expects
    area = compute_hypervolume(losses, np.array([-at_a, at_s]))
    assert scale.hypervolume(found) == pytest.approx(area / ((best_a - at_a) * (at_s - best_s)))
    volumes = scale.volumes(found)
    assert volumes == sorted(volumes)
    assert volumes[9] == pytest.approx(scale.hypervolume(found[:10]))


def test_an_infinite_value_dominates_nothing() -> None:
    assert pareto_front([(float("inf"), 1.0), (0.5, 2.0), (0.5, 2.0), (0.4, 3.0)], BOTH) == [1]


def test_a_front_of_one_point_has_a_scale() -> None:
    scale = scale_of([(0.9, 10.0), (0.5, 30.0)], BOTH)
    assert scale is not None
    assert scale.reference == pytest.approx((0.9 - 1.1 * 0.4, 10 + 1.1 * 20))
    assert scale.hypervolume([(0.9, 10.0)]) == pytest.approx(1.0)
    equal = scale_of([(0.9, 10.0)], BOTH)
    assert equal is not None
    assert equal.hypervolume([(0.9, 10.0)]) == pytest.approx(1.0)
    assert scale_of([], BOTH) is None


def test_a_file_of_one_metric_has_one_objective() -> None:
    assert objectives_of({"metric": "loss", "direction": "minimize"}) == (Objective("loss", "minimize"),)
    stored = {"metric": "accuracy", "direction": "maximize", "second_metric": "size", "second_direction": "minimize"}
    assert objectives_of(stored) == BOTH
