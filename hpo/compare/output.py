"""Writers of a comparison: JSON, terminal tables, CSV files, an HTML page.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import csv
import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table as RichTable

from hpo import strict_json
from hpo.compare import tables
from hpo.compare.comparison import Comparison, SamplerComparison
from hpo.compare.pairs import headline
from hpo.compare.report import Report
from hpo.compare.stats import Interval


def to_json(report: Report | Comparison) -> dict[str, Any]:
    """Every number of the comparison; infinities and missing values are null.

    One experiment: its keys ``samplers``, ``pairwise``, ``importance``, ``noise`` and more; several: ``experiments`` by
    name, and ``tasks``.
    """
    if isinstance(report, Report):
        if report.tasks is None:
            return to_json(report.experiments[0])
        content = {"experiments": {c.experiment: to_json(c) for c in report.experiments}, "tasks": report.tasks}
        return dict(_plain(content))
    c = report
    pairwise = []
    for pair in c.pairs:
        content = _plain(pair)
        content["smallest_difference"] = content.pop("smallest")
        pairwise.append(content)
    return {
        "experiment": c.experiment,
        "metric": c.metric,
        "direction": "maximize" if c.maximize else "minimize",
        "confidence": c.confidence,
        "finished": c.finished,
        "verdict": headline({name: s.final for name, s in c.samplers.items()}, c.pairs, c.maximize),
        "notes": list(c.notes),
        "samplers": {name: _sampler(s) for name, s in c.samplers.items()},
        "pairwise": pairwise,
        "importance": _plain(c.importance),
        "noise": _plain(c.noise),
        "objectives": _plain(c.objectives),
        "front": None if c.pareto is None else _plain(c.pareto.front),
        "reference": None if c.pareto is None else _plain(c.pareto.scale.reference),
    }


def _sampler(s: SamplerComparison) -> dict[str, Any]:
    content: dict[str, Any] = _plain(s)
    if s.best is not None:
        content["best"] = {
            "study": s.best.study,
            "study_id": s.best.study_id,
            "trial": s.best.number,
            "repeat": s.best.repeat,
            "value": s.best.value,
            "mean": s.best.mean,
            "runs": s.best.runs,
            "config": _plain(s.best.config),
            "params": _plain(s.best.params),
        }
    summary = content.pop("summary") or {}
    content["final"] = {"values": content["final"], **summary}
    return content


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_tables(report: Report, console: Console) -> None:
    """The verdicts and tables for a terminal."""
    for c in report.experiments:
        state = "finished" if c.finished else "not finished"
        console.print(f"[bold]{_escape(c.experiment)}[/bold]  {_escape(c.metric)}, {state}")
        for note in c.notes:
            console.print(f"  [yellow]{_escape(note)}[/yellow]")
        for pair in c.pairs:
            console.print(f"  {_escape(pair.sentence)}")
        for table in tables.all_tables(c):
            _print_table(table, console)
        if c.noise is not None:
            spread, source = tables.text(c.noise.spread), c.noise.source
            console.print(f"noise floor: {spread} (standard deviation, from {source})\n")
    if report.tasks is not None:
        _print_table(tables.ranks(report.tasks), console)
        for group in report.tasks.groups:
            console.print(f"no significant difference: {_escape(', '.join(group))}")


def _print_table(table: tables.Table, console: Console) -> None:
    """Prints a table; one that is too wide comes in parts, each with the first column, so that no number is cut."""
    if not table.rows:
        return
    cells = [[tables.text(cell) for cell in row] for row in table.rows]
    parts = _parts(table.columns, cells, console.width)
    for number, columns in enumerate(parts):
        shown = RichTable(
            title=table.title if number == 0 else None,
            title_justify="left",
        )
        for i in columns:
            shown.add_column(_escape(table.columns[i]), justify="left" if i == 0 else "right", overflow="fold")
        for row in cells:
            shown.add_row(*(_escape(row[i]) for i in columns))
        console.print(shown)
    if table.note:
        console.print(f"[dim]{_escape(table.note)}[/dim]\n", highlight=False)


def _parts(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """The columns of each part of a table: as many as fit ``width``; an interval stays beside its value.

    Columns of words that name the row, the first one and ``against``, begin each part.
    """
    widths = [max(len(text) for text in (column, *(row[i] for row in cells))) for i, column in enumerate(columns)]
    names = [i for i, column in enumerate(columns) if i == 0 or column == "against"]
    groups: list[list[int]] = []
    for i, column in enumerate(columns):
        if i in names:
            continue
        if column.startswith("95") and groups:
            groups[-1].append(i)
        else:
            groups.append([i])

    def needed(chosen: Sequence[int]) -> int:
        return sum(widths[i] + 3 for i in chosen) + 1

    parts = [list(names)]
    for group in groups:
        if needed([*parts[-1], *group]) > width and len(parts[-1]) > len(names):
            parts.append(list(names))
        parts[-1] += group
    return parts


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def write_csv(report: Report, folder: Path) -> list[Path]:
    """Writes every table, curves included, as ``<experiment>-<table>.csv``; an interval becomes two columns."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for c in report.experiments:
        for table in [*tables.all_tables(c), tables.final_values(c)]:
            written.append(_write_table(table, folder / f"{_file_name(c.experiment)}-{table.key}.csv"))
        written.append(_write_curves(c, folder / f"{_file_name(c.experiment)}-curves.csv"))
    if report.tasks is not None:
        written.append(_write_table(tables.ranks(report.tasks), folder / "ranks.csv"))
    return written


def _write_table(table: tables.Table, path: Path) -> Path:
    wide = [any(isinstance(row[i], Interval) for row in table.rows) for i in range(len(table.columns))]
    header: list[str] = []
    for i, column in enumerate(table.columns):
        # "95 %" alone says nothing in a file: it belongs to the column before it.
        name = f"{table.columns[i - 1]} {column}" if column.startswith("95") else column
        header += [f"{name} low", f"{name} high"] if wide[i] else [name]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in table.rows:
            cells: list[Any] = []
            for i, cell in enumerate(row):
                if isinstance(cell, Interval):
                    cells += [cell.low, cell.high]
                else:
                    cells += [cell, None] if wide[i] else [cell]
            writer.writerow(cells)
    return path


def _write_curves(c: Comparison, path: Path) -> Path:
    columns = ["median", "median_low", "median_high", "iqm", "iqm_low", "iqm_high"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sampler", "axis", "x", *columns, "carried"])
        for s in c.samplers.values():
            for axis, line in s.curves.items():
                for i, x in enumerate(line.x.tolist()):
                    found = (getattr(line, column) for column in columns)
                    values = [
                        None if array is None or not math.isfinite(array[i]) else float(array[i]) for array in found
                    ]
                    writer.writerow([s.name, axis, x, *values, int(x > line.ended_at * (1 + 1e-9))])
    return path


def _file_name(experiment: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in experiment)


def write_html(report: Report, path: Path) -> None:
    """Writes one page that needs nothing else."""
    from hpo.compare.render import standalone

    written = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    path.write_text(standalone(report, written), encoding="utf-8")


def dumps(report: Report | Comparison) -> str:
    """:func:`to_json` as text."""
    return strict_json.dumps(to_json(report), indent=2)
