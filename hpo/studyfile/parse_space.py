"""Reads ``[space]``: each entry becomes a parameter that fits the trainer's field, or the mistakes that it has."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from hpo.errors import near_miss
from hpo.search.space import Categorical, Choice, Float, Int, Parameter, is_number, parents_first
from hpo.studyfile.config_fields import Fields
from hpo.studyfile.validation import Mistakes, shown, toml_path

MOST_POINTS = 10_000
"""Most grid values of one parameter."""


def _number(value: Any) -> Any:
    if not is_number(value):
        raise ValueError(f"{shown(value)} is refused; expected a finite number, whole ones up to 2**53")
    return value


def _choice(value: Any) -> Any:
    if not isinstance(value, str | bool) and not is_number(value):
        raise ValueError(f"{shown(value)} is refused; expected text, a finite number, true or false")
    return value


Number = Annotated[Any, pydantic.BeforeValidator(_number)]
OneChoice = Annotated[Any, pydantic.BeforeValidator(_choice)]


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    grid: Any = None
    when: dict[str, Any] = {}


class RangeTable(_Table):
    """``{ low, high, log, step, grid, when }``."""

    low: Number
    high: Number
    log: bool = False
    step: Number = None


class ChoiceTable(_Table):
    """``{ choices, grid, when }``; a list alone is short for the choices."""

    choices: list[OneChoice]


def read_space(table: Mapping[str, Any], fields: Fields | None, mistakes: Mistakes) -> dict[str, Parameter]:
    """The parameters without mistakes, in the file's order; ``fields`` is None where the trainer is not known."""
    found: dict[str, Parameter] = {}
    for name, raw in table.items():
        if fields is not None and name not in fields:
            mistakes.unknown(toml_path("space", name), "parameter of the trainer's configuration:", name, fields.names)
            continue
        parameter = _read(name, raw, fields, mistakes)
        if parameter is not None:
            found[name] = parameter
    return _check_conditions(found, table, fields, mistakes)


def _read(name: str, raw: Any, fields: Fields | None, mistakes: Mistakes) -> Parameter | None:
    before = len(mistakes)
    path = ("space", name)
    parameter: Parameter | None = None
    if isinstance(raw, list):
        raw = {"choices": raw}
    if not isinstance(raw, Mapping):
        mistakes.add(
            toml_path(*path),
            f"{shown(raw)} is no range; expected a list of choices or a table with low and high "
            "(a single value belongs in [fixed])",
        )
    elif "choices" in raw:
        choices = mistakes.validate(ChoiceTable, raw, *path)
        if isinstance(choices, ChoiceTable):
            parameter = _choices(name, choices, fields, mistakes)
    else:
        known = [*RangeTable.model_fields, "choices"]
        bounds = mistakes.validate(RangeTable, raw, *path, known=known)
        if isinstance(bounds, RangeTable):
            parameter = _range(name, bounds, fields, mistakes)
    return parameter if len(mistakes) == before else None


def _choices(name: str, table: ChoiceTable, fields: Fields | None, mistakes: Mistakes) -> Categorical | None:
    before = len(mistakes)
    choices = _values(("space", name, "choices"), name, table.choices, fields, mistakes)
    when = _when(name, table.when, mistakes)
    if len(mistakes) > before:
        return None
    grid: tuple[Choice, ...] | None = None
    path = toml_path("space", name, "grid")
    if table.grid is True:
        grid = choices
    elif isinstance(table.grid, list):
        grid = _values(("space", name, "grid"), name, table.grid, fields, mistakes)
        for value in grid:
            if value not in choices:
                mistakes.add(path, f"{shown(value)} is not among the choices {shown(choices)}")
    elif table.grid is not None and table.grid is not False:
        mistakes.add(path, f"{shown(table.grid)} is refused; expected true (all choices) or a list of choices")
    return Categorical(choices, grid, when)


def _values(
    path: tuple[str, ...], name: str, raw: list[Any], fields: Fields | None, mistakes: Mistakes
) -> tuple[Choice, ...]:
    """Listed values that the field takes; a whole number for a real field becomes a real one."""
    if not raw:
        mistakes.add(toml_path(*path), "is empty; expected at least one value")
    values: list[Choice] = []
    for index, value in enumerate(raw):
        where = toml_path(*path, index)
        if not isinstance(value, str | bool) and not is_number(value):
            mistakes.add(where, f"{shown(value)} is refused; expected text, a finite number, true or false")
            continue
        if fields is not None:
            held, wrong = fields.check(name, value)
            if wrong is not None:
                mistakes.add(where, wrong)
                continue
            value = held if isinstance(held, float) and not isinstance(value, bool) else value
        if value in values:
            mistakes.add(where, f"{shown(value)} is there twice; each value once")
        values.append(value)
    return tuple(values)


def _range(name: str, table: RangeTable, fields: Fields | None, mistakes: Mistakes) -> Float | Int | None:
    before = len(mistakes)
    when = _when(name, table.when, mistakes)
    is_whole = _is_whole(name, table, fields, mistakes)
    if is_whole and table.step is not None and not isinstance(table.step, int):
        mistakes.add(toml_path("space", name, "step"), f"{shown(table.step)} is refused; expected a whole number")
    if table.low > table.high:
        mistakes.add(toml_path("space", name), f"low {shown(table.low)} is above high {shown(table.high)}")
    if table.log and table.low <= 0:
        least = "1" if is_whole else "a small number above 0"
        mistakes.add(
            toml_path("space", name, "low"), f"a log range cannot start at {shown(table.low)}; expected {least}"
        )
    if table.log and table.step is not None and not (is_whole and table.step == 1):
        mistakes.add(toml_path("space", name, "step"), "a log range has no step; give one of the two")
    elif table.step is not None and table.step <= 0:
        mistakes.add(toml_path("space", name, "step"), f"{shown(table.step)} is refused; expected a number above 0")
    if len(mistakes) > before:
        return None
    parameter: Float | Int
    if is_whole:
        parameter = Int(table.low, table.high, table.log, table.step or 1, None, when)
    else:
        step = None if table.step is None else float(table.step)
        parameter = Float(float(table.low), float(table.high), table.log, step, None, when)
    if not parameter.contains(parameter.high):
        step = parameter.step or 1
        last = parameter.low + step * math.floor((parameter.high - parameter.low) / step)
        mistakes.add(
            toml_path("space", name, "high"),
            f"{shown(parameter.high)} is not reached from {shown(parameter.low)} in steps of {shown(step)}; "
            f"expected {last:.10g} or {last + step:.10g}",
        )
        return None
    grid = _points(name, parameter, table.grid, mistakes)
    return type(parameter)(**{**vars(parameter), "grid": grid})


def _is_whole(name: str, table: RangeTable, fields: Fields | None, mistakes: Mistakes) -> bool:
    """Whether the parameter is an Int, by its field; without a known field, by how the bounds are written."""
    written_whole = isinstance(table.low, int) and isinstance(table.high, int)
    if fields is None:
        return written_whole
    if (listed := fields.literals(name)) is not None:
        mistakes.add(
            toml_path("space", name), f"takes listed values only, no range; expected a list of {shown(listed)}"
        )
        return written_whole
    held: dict[str, Any] = {}
    for key in ("low", "high"):
        value = getattr(table, key)
        held[key], wrong = fields.check(name, value)
        if wrong is None and isinstance(held[key], int) and isinstance(value, float):
            wrong = f"{shown(value)} is refused; {name} is a whole number, so expected {value:.0f}"
        if wrong is None and not is_number(held[key]):
            wrong = f"{shown(value)} is refused; {name} is no number, so expected a list of choices"
        if wrong is not None:
            mistakes.add(toml_path("space", name, key), wrong)
    return written_whole and isinstance(held["low"], int) and isinstance(held["high"], int)


def _points(name: str, parameter: Float | Int, grid: Any, mistakes: Mistakes) -> tuple[Any, ...] | None:
    path = toml_path("space", name, "grid")
    if grid is None or grid is False:
        return None
    if grid is True:
        every = parameter.every_value()
        if every is None:
            mistakes.add(path, "true means all values, of which there are too many; expected a number of points")
        return every
    if isinstance(grid, int):
        if not 1 <= grid <= MOST_POINTS:
            mistakes.add(path, f"{shown(grid)} points are refused; expected 1 to {MOST_POINTS}")
            return None
        return parameter.points(grid)
    if not isinstance(grid, list) or not grid:
        mistakes.add(path, f"{shown(grid)} is refused; expected a list of values or a number of points")
        return None
    values: list[Any] = []
    for index, value in enumerate(grid):
        where = toml_path("space", name, "grid", index)
        if not parameter.contains(value):
            kind = "a whole number" if isinstance(parameter, Int) else "a number"
            steps = f" in steps of {parameter.step}" if parameter.step not in (None, 1) else ""
            within = f"{kind} from {shown(parameter.low)} to {shown(parameter.high)}{steps}"
            mistakes.add(where, f"{shown(value)} is refused; expected {within}")
            continue
        value = float(value) if isinstance(parameter, Float) else value
        if value in values:
            mistakes.add(where, f"{shown(value)} is there twice; each value once")
        values.append(value)
    return tuple(values)


def _when(name: str, raw: Mapping[str, Any], mistakes: Mistakes) -> dict[str, tuple[Choice, ...]]:
    when: dict[str, tuple[Choice, ...]] = {}
    for parent, allowed in raw.items():
        values = allowed if isinstance(allowed, list) else [allowed]
        path = toml_path("space", name, "when", parent)
        if not values:
            mistakes.add(path, "is empty; expected a value or a list of values")
        for value in values:
            if not isinstance(value, str | bool) and not is_number(value):
                mistakes.add(path, f"{shown(value)} is refused; expected a value of {parent}")
        when[parent] = tuple(value for value in values if isinstance(value, str | bool) or is_number(value))
    return when


def _check_conditions(
    found: Mapping[str, Parameter], table: Mapping[str, Any], fields: Fields | None, mistakes: Mistakes
) -> dict[str, Parameter]:
    """Checks what conditions name; returns the parameters whose conditions and parents make sense."""
    broken: set[str] = set()
    for name, parameter in found.items():
        for parent, allowed in parameter.when.items():
            path = toml_path("space", name, "when", parent)
            if parent not in table:
                known = [*table, *(fields.names if fields else ())]
                hint = "" if parent in known else near_miss(parent, known)
                mistakes.add(path, f"{parent} is not in [space]{hint}; a condition names another searched parameter")
                broken.add(name)
            elif parent not in found:
                broken.add(name)  # the parent has mistakes of its own
            else:
                for value in allowed:
                    if wrong := _impossible(found[parent], parent, value):
                        mistakes.add(path, wrong)
                        broken.add(name)
    parents = {name: tuple(p for p in parameter.when if p in found) for name, parameter in found.items()}
    placed = parents_first(parents)
    for name in found:
        if name not in placed:
            mistakes.add(
                toml_path("space", name, "when"),
                f"the conditions go round in a circle ({_circle(name, parents)}); leave one of them out",
            )
    kept: dict[str, Parameter] = {}
    for name in placed:
        if name not in broken and all(parent in kept for parent in parents[name]):
            kept[name] = found[name]
    return {name: parameter for name, parameter in found.items() if name in kept}


def _impossible(parent: Parameter, name: str, value: Choice) -> str | None:
    if isinstance(parent, Float) and parent.step is None:
        return f"{name} is a range of real numbers, which never equals {shown(value)}; name a list or a whole number"
    if parent.contains(value):
        return None
    if isinstance(parent, Categorical):
        texts = [choice for choice in parent.choices if isinstance(choice, str)]
        return f"{name} is never {shown(value)}{near_miss(str(value), texts)}; it is one of {shown(parent.choices)}"
    return f"{name} is never {shown(value)}; it goes from {shown(parent.low)} to {shown(parent.high)}"


def _circle(start: str, parents: Mapping[str, tuple[str, ...]]) -> str:
    """A cycle that can be reached from a name, as ``a -> b -> a``."""
    placed = set(parents_first(parents))
    trail = [start]
    while True:
        following = next(parent for parent in parents[trail[-1]] if parent not in placed)
        if following in trail:
            return " -> ".join([*trail[trail.index(following) :], following])
        trail.append(following)
