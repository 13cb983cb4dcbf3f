"""Reads finished trials of a CSV file: a column for each parameter, one for the value, others as Optuna exports them.

The header names parameters as the study file does, or as ``study.trials_dataframe()`` does (``params_lr``). Fixed
values may have columns too. The value is in the column of the metric's name or in ``value``; ``state`` is optional. All
mistakes come at once, each with its line.
"""

import collections
import csv
import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.database.imported import State
from hpo.errors import UsageError, near_miss
from hpo.search.parameters import Categorical, Int, is_among
from hpo.studyfile.config_fields import OpenFields
from hpo.studyfile.model import StudyFile
from hpo.studyfile.validation import shown

PREFIX = "params_"
NOT_USED = re.compile(r"number|trial|trial_id|study|datetime_(start|complete)|duration|(user|system)_attrs_.*|")
"""Columns of Optuna's that say nothing of a configuration; so does the index that pandas writes without a name."""

STATES: dict[str, State | None] = {"complete": "complete", "pruned": "pruned"}
STATES |= dict.fromkeys(("fail", "failed", "running", "waiting"))
MOST_MISTAKES = 20


@dataclass(frozen=True)
class Row:
    """One finished trial: ``values`` of the configuration by their names, those that the file gives."""

    content: str
    state: State
    value: float | None
    values: dict[str, Any]


def read_rows(path: Path, study_file: StudyFile) -> tuple[list[Row], "collections.Counter[str]"]:
    """The finished trials of the file, and why others are left out.

    Raises:
        UsageError: with the file's mistakes.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            table = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text (byte {error.object[error.start]:#04x})") from None
    except csv.Error as error:
        raise UsageError(f"{path}: is no CSV: {error}") from None
    if not table:
        raise UsageError(f"{path}: is empty; expected a header with names of parameters and {study_file.metric!r}")
    mistakes: list[str] = []
    columns = _columns([cell.strip() for cell in table[0][1]], study_file, mistakes)
    rows: list[Row] = []
    left_out: collections.Counter[str] = collections.Counter()
    for line, cells in table[1:] if not mistakes else ():
        if len(cells) != len(columns):
            mistakes.append(f"line {line}: has {len(cells)} cells; expected {len(columns)}, as the header has")
            continue
        row = _row(dict(zip(columns, (cell.strip() for cell in cells), strict=True)), study_file, line, mistakes)
        if isinstance(row, Row):
            rows.append(row)
        elif row is not None:
            left_out[row] += 1
    if mistakes:
        more = [] if len(mistakes) <= MOST_MISTAKES else [f"and {len(mistakes) - MOST_MISTAKES} more"]
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise UsageError("\n".join([f"{path}: {count}", *(f"  {m}" for m in [*mistakes[:MOST_MISTAKES], *more])]))
    return rows, left_out


def _columns(header: list[str], study_file: StudyFile, mistakes: list[str]) -> list[str]:
    """What each column is: ``value``, ``state``, the name of a parameter or field, or "" for one that is not used."""
    space, fields = study_file.space, study_file.fields
    known = [*space.parameters, *study_file.fixed, study_file.metric, "state"]
    columns: list[str] = []
    for name in header:
        bare = name.removeprefix(PREFIX) if name.removeprefix(PREFIX) in known else name
        if bare in ("value", study_file.metric) and bare not in space.parameters:
            column = "value"
        elif bare in known:
            column = bare
        elif NOT_USED.fullmatch(name):
            column = ""
        elif not isinstance(fields, OpenFields) and fields.find(name.removeprefix(PREFIX)) is not None:
            column = name.removeprefix(PREFIX)
        else:
            hint = near_miss(name, known) or f"; expected {', '.join(known)}"
            if len(header) == 1 and ";" in name:
                hint = "; separate the columns by commas"
            mistakes.append(f"the column {shown(name)} is no parameter of {study_file.name!r}{hint}")
            continue
        if column and column in columns:
            mistakes.append(f"the column {shown(name)} is there twice: {column} can be given once")
        columns.append(column)
    if not mistakes and (missing := [name for name in space.parameters if name not in columns]):
        mistakes.append(f"there is no column for {', '.join(missing)}; expected one for each parameter of [space]")
    if "value" not in columns and not mistakes:
        mistakes.append(f"there is no column with the values; expected {study_file.metric!r} or 'value'")
    return columns


def _row(cells: dict[str, str], study_file: StudyFile, line: int, mistakes: list[str]) -> Row | str | None:
    """The finished trial of a line; why it is left out, as text; None after a mistake."""
    before = len(mistakes)
    word = cells.get("state", "") or "complete"
    word = word.removeprefix("TrialState.").lower()
    if word not in STATES:
        mistakes.append(f"line {line}: state {shown(cells['state'])} is not known; expected complete or pruned")
    state = STATES.get(word)
    value = _number(cells["value"])
    if value is None and cells["value"] and state is not None:
        mistakes.append(f"line {line}: {study_file.metric} {shown(cells['value'])} is no number")
    values = {}
    for name, text in cells.items():
        if name in ("", "value", "state") or text == "":
            continue
        read, wrong = _read(study_file, name, text)
        if wrong is not None:
            mistakes.append(f"line {line}: {name} {shown(text)} {wrong}")
        values[name] = read
    if len(mistakes) > before:
        return None
    if state is None:
        return f"its state is {word}"
    if value is None and state == "complete":
        return "it has no value"
    if value is not None and not math.isfinite(value):
        state, value = "pruned", None
    text = json.dumps([state, value, sorted(values.items(), key=lambda item: item[0])], default=str)
    return Row(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), state, value, values)


def _read(study_file: StudyFile, name: str, text: str) -> tuple[Any, str | None]:
    """The value of a cell, and what is wrong with it."""
    parameter = study_file.space.parameters.get(name)
    if isinstance(parameter, Categorical):
        literal = _literal(text)
        for choice in parameter.choices:
            if text == str(choice) or is_among(literal, (choice,)) or text.lower() == str(choice).lower():
                return choice, None
        numeric = all(isinstance(choice, int | float) and not isinstance(choice, bool) for choice in parameter.choices)
        wrong = f"is no number; expected one of {shown(list(parameter.choices))}" if numeric else None
        return literal, wrong if isinstance(literal, str) else None
    if parameter is not None:
        number = _number(text)
        if number is None:
            return None, "is no number"
        if isinstance(parameter, Int) and not float(number).is_integer():
            return None, "is no whole number"
        return (int(number) if isinstance(parameter, Int) else number), None
    value = _literal(text)
    given, wrong = study_file.fields.read(name, value)
    if wrong is not None and not isinstance(value, str):
        given, wrong = study_file.fields.read(name, text)  # such as a name that is spelled with digits
    return given, wrong


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    number = _number(text)
    if number is None:
        return text
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else number


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
