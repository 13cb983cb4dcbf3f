"""Reads ``[space]``: each entry becomes a parameter that fits the trainer's field, or the mistakes that it has."""

import dataclasses
import decimal
import math
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from hpo.search.space import Categorical, Choice, Float, Int, Parameter, is_among, is_choice, is_number
from hpo.studyfile import hints
from hpo.studyfile.config_fields import ConfigFields
from hpo.studyfile.parse_conditions import check_conditions, read_when
from hpo.studyfile.space_entries import Entry, read_entries
from hpo.studyfile.validation import Mistakes, extent, shown

MOST_POINTS = 10_000
"""Most grid values of one parameter."""

CHOICE = "expected text, a finite number, true or false"


def _number(value: Any) -> Any:
    if not is_number(value):
        raise ValueError(f"{shown(value)} is refused; expected a finite number, whole ones up to 2**53")
    return value


Number = Annotated[Any, pydantic.BeforeValidator(_number)]


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

    choices: list[Any]


def read_space(
    table: Mapping[str, Any], fields: ConfigFields, mistakes: Mistakes
) -> tuple[dict[str, Parameter], set[str]]:
    """The parameters without mistakes, in the file's order, and the names of those with mistakes."""
    entries = read_entries(table, fields, mistakes)
    parameters: dict[str, Parameter] = {}
    for entry in entries.values():
        if (parameter := _read(entry, fields, mistakes)) is not None:
            parameters[entry.name] = parameter
    kept = check_conditions(parameters, entries, fields, mistakes)
    return kept, entries.keys() - kept.keys()


def _read(entry: Entry, fields: ConfigFields, mistakes: Mistakes) -> Parameter | None:
    before = len(mistakes)
    raw = entry.raw
    parameter: Parameter | None = None
    if isinstance(raw, list):
        raw = {"choices": raw}
    if not isinstance(raw, Mapping):
        expected = "expected a list of choices or a table with low and high (a single value belongs in [fixed])"
        if isinstance(raw, str) and (instead := hints.instead_of_text(entry.name, raw)) is not None:
            expected = instead
        mistakes.add(entry.at(), f"{shown(raw)} is no range; {expected}")
    elif (instead := hints.instead_of_entry(entry.name, raw)) is not None:
        mistakes.add(entry.at(), instead)
    elif "choices" in raw:
        choices = mistakes.validate(ChoiceTable, raw, *entry.path)
        if isinstance(choices, ChoiceTable):
            parameter = _choices(entry, choices, fields, mistakes)
    else:
        known = [*RangeTable.model_fields, "choices"]
        bounds = mistakes.validate(RangeTable, raw, *entry.path, known=known)
        if isinstance(bounds, RangeTable):
            parameter = _range(entry, bounds, fields, mistakes)
    return parameter if len(mistakes) == before else None


def _choices(entry: Entry, table: ChoiceTable, fields: ConfigFields, mistakes: Mistakes) -> Categorical | None:
    before = len(mistakes)
    choices = _values(entry, "choices", table.choices, fields, mistakes)
    when = read_when(entry, table.when, fields, mistakes)
    if len(mistakes) > before:
        return None
    grid: tuple[Choice, ...] | None = None
    path = entry.at("grid")
    if table.grid is True:
        grid = choices
    elif isinstance(table.grid, list):
        grid = _values(entry, "grid", table.grid, fields, mistakes)
        for value in grid:
            if not is_among(value, choices):
                mistakes.add(path, f"{shown(value)} is not among the choices {shown(choices)}")
    elif table.grid is not None and table.grid is not False:
        mistakes.add(path, f"{shown(table.grid)} is refused; expected true (all choices) or a list of choices")
    return Categorical(choices, grid, when)


def _values(entry: Entry, key: str, raw: list[Any], fields: ConfigFields, mistakes: Mistakes) -> tuple[Choice, ...]:
    """Listed values that the field accepts; a whole number for a real field becomes a real one."""
    if not raw:
        mistakes.add(entry.at(key), "is empty; expected at least one value")
    values: list[Choice] = []
    for index, listed in enumerate(raw):
        where = entry.at(key, index)
        if not is_choice(listed):
            mistakes.add(where, f"{shown(listed)} is refused; {CHOICE}")
            continue
        value, wrong = fields.read(entry.name, listed)
        if wrong is not None or not is_choice(value):
            mistakes.add(where, wrong or f"{shown(listed)} is refused; {CHOICE}")
            continue
        if is_number(value) and isinstance(fields.held(entry.name, value), float):
            value = float(value)
        if value in values:  # true and 1 too: Optuna does not keep them apart
            mistakes.add(where, f"{shown(value)} is there twice; each value once")
        values.append(value)
    return tuple(values)


def _range(entry: Entry, table: RangeTable, fields: ConfigFields, mistakes: Mistakes) -> Float | Int | None:
    before = len(mistakes)
    when = read_when(entry, table.when, fields, mistakes)
    is_whole = _is_whole(entry, table, fields, mistakes)
    if is_whole and table.step is not None and not isinstance(table.step, int):
        mistakes.add(entry.at("step"), f"{shown(table.step)} is refused; expected a whole number")
    if table.low > table.high:
        mistakes.add(entry.at(), f"low {shown(table.low)} is above high {shown(table.high)}")
    if table.log and table.low <= 0:
        least = "1" if is_whole else "a small number above 0"
        mistakes.add(entry.at("low"), f"a log range cannot start at {shown(table.low)}; expected {least}")
    if table.log and table.step is not None and not (is_whole and table.step == 1):
        mistakes.add(entry.at("step"), "a log range has no step; give one of the two")
    elif table.step is not None and table.step <= 0:
        mistakes.add(entry.at("step"), f"{shown(table.step)} is refused; expected a number above 0")
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
            entry.at("high"),
            f"{shown(parameter.high)} is not reached from {shown(parameter.low)} in steps of {shown(step)}; "
            f"expected {last:.10g} or {last + step:.10g}",
        )
        return None
    return dataclasses.replace(parameter, grid=_points(entry, parameter, table.grid, mistakes))


def _is_whole(entry: Entry, table: RangeTable, fields: ConfigFields, mistakes: Mistakes) -> bool:
    """Whether the parameter is an Int: by its field, or as the bounds are written if the field accepts both."""
    written_whole = isinstance(table.low, int) and isinstance(table.high, int)
    if (listed := fields.literals(entry.name)) is not None:
        mistakes.add(entry.at(), f"takes listed values only, no range; expected a list of {shown(listed)}")
        return written_whole
    held: dict[str, Any] = {}
    for key in ("low", "high"):
        value = getattr(table, key)
        wrong = fields.read(entry.name, value)[1]
        held[key] = fields.held(entry.name, value)
        if wrong is None and isinstance(held[key], int) and isinstance(value, float):
            wrong = f"{shown(value)} is refused; {entry.name} is a whole number, so expected {value:.0f}"
        if wrong is None and not is_number(held[key]) and not isinstance(held[key], decimal.Decimal):
            wrong = f"{shown(value)} is refused; {entry.name} is no number, so expected a list of choices"
        if wrong is not None:
            mistakes.add(entry.at(key), wrong)
    return written_whole and isinstance(held["low"], int) and isinstance(held["high"], int)


def _points(entry: Entry, parameter: Float | Int, grid: Any, mistakes: Mistakes) -> tuple[Any, ...] | None:
    path = entry.at("grid")
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
        where = entry.at("grid", index)
        if not parameter.contains(value):
            mistakes.add(where, f"{shown(value)} is refused; expected {extent(parameter)}")
            continue
        value = parameter.on_step(value) if isinstance(parameter, Float) else value
        if value in values:
            mistakes.add(where, f"{shown(value)} is there twice; each value once")
        values.append(value)
    return tuple(values)
