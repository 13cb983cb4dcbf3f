"""The table that ``hpo status`` and a launch print, and the line below it.

The table has a row for each sampler, or, with ``verbose``, for each study of it. If a terminal is too narrow, names are
cut, never numbers.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

from rich.table import Table
from rich.text import Text

from hpo.launchers.time_left import Speed, ended


def format_seconds(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 07 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def status_table(status: dict[str, Any], *, verbose: bool = False, most_rows: int | None = None) -> Table:
    """The table that ``hpo status`` and a launch print: a row for each sampler, with ``verbose`` for each study.

    With ``most_rows``, what does not fit is left out, finished ones first, and counted in the last row.
    """
    table = Table(
        title=Text(status["experiment"]), title_justify="left", box=None, pad_edge=False, collapse_padding=True
    )
    by_sampler: dict[str, list[dict[str, Any]]] = {}
    for study in status["studies"]:
        by_sampler.setdefault(study["sampler"], []).append(study)
    folds = not verbose and any(len(studies) > 1 for studies in by_sampler.values())
    table.add_column("sampler" if folds else "study", overflow="ellipsis")
    names = ("complete", "pruned", "running", "failed", "budget", "epochs", "best")
    for name in (*(("finished",) if folds else ()), *names):
        table.add_column(name, justify="right", no_wrap=name != "budget")
    rows: list[tuple[bool, list[str]]] = []
    for sampler, studies in by_sampler.items():
        if folds:
            num_finished = sum(study["finished"] for study in studies)
            cells = [sampler, f"{num_finished}/{len(studies)}", *_numbers(studies, _direction(status))]
            rows.append((num_finished == len(studies), cells))
            continue
        for study in studies:
            cells = [f"{sampler}/{study['repeat']}", *_numbers([study], _direction(status))]
            rows.append((study["finished"], cells))
    shown = list(range(len(rows)))
    if most_rows is not None and len(rows) > most_rows:
        first = sorted(shown, key=lambda index: rows[index][0])[: max(1, most_rows - 1)]
        shown = sorted(first)
    for index in shown:
        table.add_row(*map(Text, rows[index][1]))
    if (left_out := len(rows) - len(shown)) > 0:
        table.add_row(Text(f"{left_out} more"))
    return table


def _numbers(studies: list[dict[str, Any]], better: Callable[[Iterable[float]], float]) -> list[str]:
    """The cells of one or several studies: trials by state, budget, epochs, best value."""
    states = [
        str(sum(study["states"][name] for study in studies)) for name in ("complete", "pruned", "running", "failed")
    ]
    budget: dict[str, float] = {}
    for study in studies:
        for unit, count in study["budget"].items():
            budget[unit] = budget.get(unit, 0) + count
    values = [study["best"]["value"] for study in studies if study["best"] is not None]
    spent = " ".join(
        {"seconds": format_seconds(count), "gpu_seconds": f"{count / 3600:.3g} GPU hours"}.get(unit, f"{count} {unit}")
        for unit, count in budget.items()
    )
    best = f"{better(values):.6g}" if values else "-"
    return [*states, spent, str(sum(study["epochs"] for study in studies)), best]


def _direction(status: dict[str, Any]) -> Callable[[Iterable[float]], float]:
    return min if status.get("direction") == "minimize" else max


def summary_line(status: dict[str, Any], speed: Speed) -> str:
    """One line: finished, pruned, running, best, trials per minute, time left."""
    totals = {name: sum(study["states"][name] for study in status["studies"]) for name in ("pruned", "running")}
    done = sum(ended(study) for study in status["studies"])
    per_minute, left = speed.measure(status)
    parts = [f"{done} finished ({totals['pruned']} pruned), {totals['running']} running"]
    if per_minute is not None:
        parts.append(f"{per_minute:.1f} trials/min")
    if left is not None and math.isfinite(left):
        parts.append(f"{format_seconds(left)} left")
    return ", ".join(parts)
