"""Which configurations are likely to be refused, estimated from those that were.

Optuna's TPE counts an infeasible trial among the worse ones and forgets why: on a space of which a third is infeasible
its draws are refused as often as random ones. Here a logistic regression on the parameters, their squares and their
products estimates the probability that a configuration is feasible. It finds bounds, sums and combinations of choices
("width times depth at most …", "not a with b") from some fifty draws.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.search.history import is_infeasible
from hpo.search.optuna_internals import CONSTRAINT_PREFIX, UnitCube
from hpo.search.space import Space

Floats = NDArray[np.float64]

RIDGE = 0.02
"""Penalty of squared weights: small, so that the model becomes certain where some dozens of trials agree."""

MOST_TRIALS = 500
"""The latest so many trials are used."""

MOST_PRODUCTS_OF = 16
"""With more columns than this there are no products: the regression would cost more than a draw."""


class Feasibility:
    """The probability that a configuration is feasible, from trials that have all parameters of the space."""

    def __init__(
        self, space: Mapping[str, BaseDistribution], feasible: Sequence[FrozenTrial], infeasible: Sequence[FrozenTrial]
    ) -> None:
        self._space = space
        self._cubes = {
            name: UnitCube({name: distribution})
            for name, distribution in space.items()
            if not isinstance(distribution, CategoricalDistribution)
        }
        rows = self._features([trial.params for trial in (*feasible, *infeasible)])
        self._weights = _fit(rows, np.repeat([1.0, 0.0], [len(feasible), len(infeasible)]))

    def probabilities(self, configurations: Sequence[Mapping[str, Any]]) -> Floats:
        """Of each configuration; shape (len(configurations),)."""
        return _sigmoid(self._features(configurations) @ self._weights)

    def _features(self, configurations: Sequence[Mapping[str, Any]]) -> Floats:
        """1, the columns, and their products with each other and themselves; shape (configurations, features)."""
        columns = [np.ones(len(configurations))]
        for name, distribution in self._space.items():
            values = [configuration[name] for configuration in configurations]
            if isinstance(distribution, CategoricalDistribution):
                columns += [np.array([float(value == choice) for value in values]) for choice in distribution.choices]
            else:
                columns.append(np.array([2 * self._cubes[name].point({name: value})[0] - 1 for value in values]))
        table = np.array(columns).T
        if table.shape[1] > MOST_PRODUCTS_OF:
            return np.concatenate([table, table[:, 1:] ** 2], axis=1)
        first, second = np.triu_indices(table.shape[1])
        products: Floats = table[:, first] * table[:, second]  # with the column of ones: the columns themselves
        return products


def estimate(
    space: Mapping[str, BaseDistribution], trials: Sequence[FrozenTrial], least: int = 2
) -> Feasibility | None:
    """The model of the trials that have all parameters of ``space``.

    None if fewer than ``least`` of them are known to be feasible or not, or if all are the one or all the other.
    """
    usable = [trial for trial in trials if space.keys() <= trial.params.keys()]
    infeasible = [trial for trial in usable if is_infeasible(trial)][-MOST_TRIALS:]
    if not infeasible:
        return None
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    feasible = [trial for trial in usable if trial.state in ended and not is_infeasible(trial)][-MOST_TRIALS:]
    if not feasible or len(feasible) + len(infeasible) < least:
        return None
    return Feasibility(space, feasible, infeasible)


def forbidden_examples(space: Space, count: int = 20) -> list[FrozenTrial]:
    """Up to ``count`` infeasible trials with random configurations that the space forbids, always the same ones."""
    if not space.forbidden:
        return []
    rng = random.Random(0)
    draws = (space.draw(rng) for _ in range(50 * count))
    forbidden = itertools.islice((values for values in draws if not space.allows(values)), count)
    return [
        create_trial(
            state=TrialState.PRUNED,
            params=dict(values),
            distributions={name: space.parameters[name].distribution() for name in values},
            system_attrs={CONSTRAINT_PREFIX + "feasible": 1.0},
        )
        for values in forbidden
    ]


def _fit(rows: Floats, labels: Floats) -> Floats:
    """The weights of a logistic regression, by Newton's method; the constant has no penalty."""
    penalty = np.full(rows.shape[1], RIDGE)
    penalty[0] = 1e-6
    weights = np.zeros(rows.shape[1])
    for _ in range(25):
        probabilities = _sigmoid(rows @ weights)
        gradient = rows.T @ (probabilities - labels) + penalty * weights
        curvature = (rows * (probabilities * (1 - probabilities) + 1e-9)[:, None]).T @ rows + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-4:
            break
    return weights


def _sigmoid(logits: Floats) -> Floats:
    bounded: Floats = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return bounded
