"""A small set of complete configurations of a space: every bound and choice, examples, random draws.

They validate a study file, see :mod:`hpo.studyfile.check_configs`, and a trainer measures memory and speed with them.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hpo.search.space import Categorical, Choice, Space

MOST_DRAWS = 200
"""Random configurations that are tried before a space counts as one in which nothing fits."""


def complete(space: Space, partial: Mapping[str, Any], rng: random.Random | None = None) -> dict[str, Any]:
    """``partial`` with a value for each other parameter that is active with it.

    The value is its fixed value, default or middle; with ``rng`` a random one.
    """
    values: dict[str, Any] = dict(partial)
    for name in space.order:
        if name not in values and space.is_active(name, values):
            parameter, base = space.parameters[name], space.base.get(name)
            if rng is not None:
                values[name] = parameter.draw(rng)
            else:
                values[name] = base if name in space.base and parameter.contains(base) else parameter.middle()
    return values


def values_that_activate(space: Space, name: str) -> dict[str, Choice] | None:
    """Values of its ancestors under which a parameter is active; None if there are none."""
    allowed: dict[str, tuple[Choice, ...]] = {}
    for parent, values in space.conditions[name]:
        allowed[parent] = tuple(value for value in allowed.get(parent, values) if value in values)
    if not all(allowed.values()):
        return None
    return {
        parent: base if (base := space.base.get(parent)) in values else values[0] for parent, values in allowed.items()
    }


def representatives(space: Space) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """For each bound and choice: the parameter, the values chosen for it, all values; before them the middle."""
    yield "", {}, complete(space, {})
    for name, parameter in space.parameters.items():
        parents = values_that_activate(space, name)
        for value in () if parents is None else parameter.ends().values():
            chosen = {**(parents or {}), name: value}
            yield name, chosen, complete(space, chosen)


def first_fitting_draw(
    space: Space, accepts: Callable[[Mapping[str, Any]], bool], most: int = MOST_DRAWS
) -> dict[str, Any] | None:
    """The first of so many random configurations that fits, always the same ones; None if none does."""
    rng = random.Random(0)
    draws = (space.draw(rng) for _ in range(most if space.parameters else 0))
    return next((values for values in draws if accepts(values)), None)


def example_values(space: Space, accepts: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
    """Values of a few configurations in which each choice occurs that can; the first has all numbers at their highest.

    Choices are dealt to a few configurations together; those that are in none that is accepted then come one by one.
    """
    choices = {name: p.choices for name, p in space.parameters.items() if isinstance(p, Categorical)}
    highest = {name: p.high for name, p in space.parameters.items() if not isinstance(p, Categorical) and not p.when}
    candidates = [complete(space, highest), complete(space, {})]
    for index in range(max(map(len, choices.values()), default=0)):
        dealt: dict[str, Any] = {}
        for name in space.order:
            if name in choices and space.is_active(name, dealt):
                dealt[name] = choices[name][index % len(choices[name])]
        candidates.append(complete(space, dealt))
    examples: list[dict[str, Any]] = []
    seen: set[tuple[str, Choice]] = set()

    def take(values: dict[str, Any]) -> None:
        if accepts(values):
            seen.update((name, values[name]) for name in choices if name in values)
            if values not in examples:
                examples.append(values)

    for values in candidates:
        take(values)
    for name in choices:
        for choice in choices[name]:
            parents = values_that_activate(space, name)
            if (name, choice) not in seen and parents is not None:
                take(complete(space, {**parents, name: choice}))
    if not examples and (fitting := first_fitting_draw(space, accepts)) is not None:
        examples.append(fitting)
    return examples
