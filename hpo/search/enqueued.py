"""Whether values that a person enqueues for a trial can be used: checked when they are given, and by the worker.

The worker checks again because Optuna's own ``enqueue_trial`` takes anything.
"""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hpo.errors import near_miss
from hpo.search.space import Space


def mistakes_of(space: Space, values: Mapping[str, Any], *, has_cells: bool = False) -> list[str]:
    """What is wrong with the values, a sentence each; [] if they can be used. Those that are missing are drawn.

    ``has_cells``: the study trains the cells of a grid and nothing else.
    """
    if has_cells:
        return [f"grid search trains its own cells, so this enqueued trial is not one of them: {listed(values)}"]
    if space.rules_out(values):
        return [f"the study file forbids the enqueued values {listed(values)}"]
    distributions = space.distributions()
    mistakes = []
    for name, value in values.items():
        if name not in distributions:
            hint = near_miss(name, distributions)
            mistakes.append(f"{name} = {value!r} was enqueued, and {name} is not in [space]{hint}")
        elif not _is_possible(distributions[name], value):
            mistakes.append(f"{name} = {value!r} was enqueued; expected {_expected(distributions[name])}")
    return mistakes


def listed(values: Mapping[str, Any]) -> str:
    """``lr = 0.1, width = 64``."""
    return ", ".join(f"{name} = {value!r}" for name, value in values.items()) or "no values"


def _is_possible(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return any(type(choice) is type(value) and choice == value for choice in distribution.choices)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if isinstance(distribution, IntDistribution) and value != int(value):
        return False
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError, OverflowError):
        return False


def _expected(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(map(repr, distribution.choices))
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    step = "" if distribution.step in (None, 1) else f" in steps of {distribution.step:g}"
    kind = "a whole number" if isinstance(distribution, IntDistribution) else "a number"
    return f"{kind} from {distribution.low:g} to {distribution.high:g}{step}"
