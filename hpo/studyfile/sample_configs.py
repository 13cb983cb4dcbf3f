"""Whole configurations of a space that stand for all of them: what a study file is checked with before anything runs.

They show what single fields cannot: a milestone past the last epoch, a network that does not read the data set.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pydantic

from hpo.search.space import Categorical, Choice, Space
from hpo.studyfile.validation import Mistakes, explain, shown, toml_path

MOST_CELLS_CHECKED = 20_000


def assignment(space: Space, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """``chosen`` and, for every other parameter that is active with it, its fixed value, default or middle."""
    values: dict[str, Any] = dict(chosen)
    for name in space.order:
        if name not in values and space.is_active(name, values):
            parameter = space.parameters[name]
            base = space.base.get(name)
            values[name] = base if parameter.contains(base) else parameter.middle()
    return values


def activating(space: Space, name: str) -> dict[str, Choice] | None:
    """Values of its ancestors under which a parameter is active; None where there are none."""
    allowed: dict[str, tuple[Choice, ...]] = {}
    for parent, values in space.conditions[name]:
        allowed[parent] = tuple(value for value in allowed.get(parent, values) if value in values)
    if not all(allowed.values()):
        return None
    return {
        parent: base if (base := space.base.get(parent)) in values else values[0] for parent, values in allowed.items()
    }


def covering(space: Space, build: Callable[[Mapping[str, Any]], pydantic.BaseModel | None]) -> list[pydantic.BaseModel]:
    """A few configurations in which each choice occurs that can; the first has all numbers at their highest.

    Choices are dealt to a few assignments together; those that are in none that ``build`` accepts then come one by one.
    """
    choices = {name: p.choices for name, p in space.parameters.items() if isinstance(p, Categorical)}
    highest = {name: p.high for name, p in space.parameters.items() if not isinstance(p, Categorical) and not p.when}
    candidates = [assignment(space, highest), assignment(space, {})]
    for index in range(max(map(len, choices.values()), default=0)):
        dealt: dict[str, Any] = {}
        for name in space.order:
            if name in choices and space.is_active(name, dealt):
                dealt[name] = choices[name][index % len(choices[name])]
        candidates.append(assignment(space, dealt))
    found: list[pydantic.BaseModel] = []
    seen: set[tuple[str, Choice]] = set()

    def take(values: dict[str, Any]) -> None:
        config = build(values)
        if config is not None:
            seen.update((name, values[name]) for name in choices if name in values)
            if config not in found:
                found.append(config)

    for values in candidates:
        take(values)
    for name in choices:
        for choice in choices[name]:
            parents = activating(space, name)
            if (name, choice) not in seen and parents is not None:
                take(assignment(space, {**parents, name: choice}))
    return found


def check_configurations(
    space: Space,
    config: type[pydantic.BaseModel],
    fixed: Mapping[str, Any],
    try_first: list[dict[str, Any]],
    cells: Sequence[Mapping[str, Any]],
    mistakes: Mistakes,
) -> None:
    """Adds what the configuration says of the fixed values, of each end and choice, each grid cell, each try_first."""
    said: set[str] = set()

    def check(values: Mapping[str, Any], path: str, prefix: Callable[[], str]) -> None:
        try:
            config.model_validate({**fixed, **values})
        except pydantic.ValidationError as error:
            for item in error.errors(include_url=False):
                name = item["loc"][0] if item["loc"] else None
                what = explain(item)
                if item["type"] == "missing" and name not in space.parameters:
                    where, what = toml_path("fixed", str(name)), "missing; it has no default, so fix or search it"
                elif item["type"] == "missing":
                    where = toml_path("fixed", str(name))
                    what = "missing; it has no default for where it is not sampled, so fix it too"
                elif name is not None and name in fixed and name not in values:
                    where = toml_path("fixed", str(name))
                else:
                    where = path
                if (key := f"{where if where != path else ''}{what}") not in said:
                    said.add(key)
                    mistakes.add(where, what if where != path else f"{prefix()}{what}")
        except Exception as error:  # a validator of the user's own
            what = f"the configuration's validator raised {type(error).__name__}: {error}"
            if what not in said:
                said.add(what)
                mistakes.add(path, f"{prefix()}{what}")

    def listed(values: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} = {shown(value)}" for name, value in values.items())

    check(assignment(space, {}), "fixed", lambda: "")
    for name, parameter in space.parameters.items():
        parents = activating(space, name)
        if parents is None:
            mistakes.add(toml_path("space", name, "when"), "the conditions of it and its parents exclude each other")
            continue
        for value in parameter.ends().values():
            chosen = {**parents, name: value}
            check(assignment(space, chosen), toml_path("space", name), lambda c=chosen: f"with {listed(c)}: ")  # type: ignore[misc]
    for index, entry in enumerate(try_first):
        check(assignment(space, entry), toml_path("try_first", index), lambda: "")
    for cell in cells[:MOST_CELLS_CHECKED]:
        check(cell, "space", lambda c=cell: f"grid cell {listed(c)}: " if c else "")  # type: ignore[misc]
