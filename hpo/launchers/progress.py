"""How an experiment's progress is printed: a live table in a terminal, plain lines elsewhere, JSON lines for machines.

The table has a row for each sampler, or, with ``verbose``, for each study of it.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpo import strict_json

PLAIN_SECONDS = 5.0
MOST_REASONS = 5


def format_seconds(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 07 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Speed:
    """Trials per minute and time left, from what has finished since the first look."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    @property
    def elapsed_seconds(self) -> float:
        """Since the first look."""
        return 0.0 if self._first is None else time.monotonic() - self._first[0]

    def measure(self, status: dict[str, Any]) -> tuple[float | None, float | None]:
        """Returns (trials per minute, seconds left); None if nothing has finished since the first look.

        What is left of a budget in time is known before.
        """
        done = sum(_done(study) for study in status["studies"])
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        elapsed, gained = now - self._first[0], done - self._first[1]
        most = _time_left(status["studies"])
        if gained < 1 or elapsed <= 0:
            return None, most
        epochs_per_trial = max(1.0, sum(study["epochs"] for study in status["studies"]) / done)
        left = sum(_trials_left(study, epochs_per_trial) for study in status["studies"])
        estimate = left * elapsed / gained
        return 60 * gained / elapsed, estimate if most is None else min(most, estimate)


def _done(study: dict[str, Any]) -> int:
    states = study["states"]
    return int(states["complete"] + states["pruned"] + states["failed"])


def _trials_left(study: dict[str, Any], epochs_per_trial: float) -> float:
    """Trials that a study has still to finish; an estimate if its budget is in epochs."""
    if study["finished"]:
        return 0.0
    budget = study["budget"]
    if "trials" in budget:
        return max(0.0, int(budget["trials"]) - _done(study))
    if "epochs" in budget:
        return max(0.0, int(budget["epochs"]) - int(study["epochs"])) / epochs_per_trial
    return math.inf


def _time_left(studies: list[dict[str, Any]]) -> float | None:
    """The most seconds that the studies can take; None if time ends not all of them.

    The clocks of those that run go at the same time; the others follow one by one at worst.
    """
    together, others = 0.0, 0.0
    unfinished = [study for study in studies if not study["finished"]]
    for study in unfinished:
        if (left := study.get("seconds_left")) is None:
            return None
        if study["states"]["running"]:
            together = max(together, left)
        else:
            others += left
    return together + others if unfinished else None


def status_table(status: dict[str, Any], *, verbose: bool = False) -> Table:
    """The table that ``hpo status`` and a launch print: a row for each sampler, with ``verbose`` for each study."""
    table = Table(title=status["experiment"], title_justify="left", box=None, pad_edge=False)
    by_sampler: dict[str, list[dict[str, Any]]] = {}
    for study in status["studies"]:
        by_sampler.setdefault(study["sampler"], []).append(study)
    folds = not verbose and any(len(studies) > 1 for studies in by_sampler.values())
    table.add_column("sampler" if folds else "study", no_wrap=True)
    names = ("complete", "pruned", "running", "failed", "budget", "epochs", "best")
    for name in (*(("finished",) if folds else ()), *names):
        table.add_column(name, justify="right", no_wrap=True)
    for sampler, studies in by_sampler.items():
        if folds:
            finished = sum(study["finished"] for study in studies)
            table.add_row(Text(sampler), f"{finished}/{len(studies)}", *_numbers(studies, _direction(status)))
            continue
        for study in studies:
            table.add_row(Text(f"{sampler}/{study['repeat']}"), *_numbers([study], _direction(status)))
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
    done = sum(_done(study) for study in status["studies"])
    per_minute, left = speed.measure(status)
    parts = [f"{done} finished ({totals['pruned']} pruned), {totals['running']} running"]
    if per_minute is not None:
        parts.append(f"{per_minute:.1f} trials/min")
    if left is not None and math.isfinite(left):
        parts.append(f"{format_seconds(left)} left")
    return ", ".join(parts)


class NewFailures:
    """The lines of trials that have failed since the look before: one for each reason, at most MOST_REASONS in all."""

    def __init__(self) -> None:
        self._reasons: set[str] | None = None
        self._num_lines = 0

    def lines(self, status: dict[str, Any]) -> list[str]:
        """What to print; the failures of earlier launches, which the first look finds, are left out."""
        found = [(study, failure) for study in status["studies"] for failure in study.get("failures", ())]
        reasons = {failure["reason"] for _, failure in found}
        if self._reasons is None:
            self._reasons = reasons
            return []
        lines = []
        for study, failure in found:
            reason = failure["reason"]
            if reason in self._reasons or self._num_lines >= MOST_REASONS:
                continue
            self._reasons.add(reason)
            self._num_lines += 1
            first = (reason.splitlines() or [""])[0]
            log = f" (log: {failure['log']})" if failure["log"] else ""
            lines.append(f"{study['sampler']}/{study['repeat']}, trial {failure['trial']} failed: {first}{log}")
        return lines


class LiveProgress:
    """A table that is drawn over and over, on a terminal.

    It is erased at the end, when the whole result follows, and stays if the run was interrupted or failed.
    """

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._speed = Speed()
        self._failures = NewFailures()
        self._verbose = verbose
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveProgress":
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._live.transient = kind is None
        self._live.stop()

    def update(self, status: dict[str, Any]) -> None:
        for failure in self._failures.lines(status):
            self.line(failure)
        line = summary_line(status, self._speed)
        # After the first, which starts the clock.
        elapsed = f"{format_seconds(self._speed.elapsed_seconds)}: "
        table = status_table(status, verbose=self._verbose)
        room = self._live.console.height - 4
        if table.row_count > room > 0:
            # What does not fit would push the line below it off the screen.
            table = status_table(status)
        self._live.update(Group(table, Text(elapsed + line)))

    def line(self, text: str) -> None:
        self._live.console.print(Text(text))


class PlainProgress:
    """A line every few seconds if something changed, for logs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._speed = Speed()
        self._failures = NewFailures()
        self._stream = stream or sys.stderr
        self._shown: tuple[str, float] = ("", -math.inf)

    def __enter__(self) -> "PlainProgress":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def update(self, status: dict[str, Any]) -> None:
        for failure in self._failures.lines(status):
            self.line(failure)
        line = summary_line(status, self._speed)
        bests = [study["best"]["value"] for study in status["studies"] if study["best"] is not None]
        if bests:
            spread = f"{min(bests):.6g}" if min(bests) == max(bests) else f"{min(bests):.6g} to {max(bests):.6g}"
            line += f", best of the studies {spread}"
        now = time.monotonic()
        if line != self._shown[0] and now - self._shown[1] >= PLAIN_SECONDS:
            self.line(line)
            self._shown = (line, now)

    def line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class JsonProgress(PlainProgress):
    """A JSON object a line on standard output: each status, and each event as ``{"event": ...}``."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self._last = ""

    def update(self, status: dict[str, Any]) -> None:
        text = strict_json.dumps(status)
        if text != self._last:
            print(text, file=self._stream, flush=True)
            self._last = text

    def line(self, text: str) -> None:
        print(json.dumps({"event": text}), file=self._stream, flush=True)


def choose_progress(*, as_json: bool, verbose: bool = False) -> LiveProgress | PlainProgress:
    """JSON if asked for, a live table on a terminal, plain lines elsewhere."""
    if as_json:
        return JsonProgress()
    console = Console(stderr=True)
    return LiveProgress(console, verbose=verbose) if console.is_terminal else PlainProgress()
