"""How progress is printed: a live view in a terminal, plain lines elsewhere, JSON lines for machines."""

import json
import math
import sys
import time
from typing import Any, TextIO

from rich.console import Console

from hpo import strict_json
from hpo.launchers.live_view import LiveProgress
from hpo.launchers.status_table import format_seconds, status_table, summary_line
from hpo.launchers.time_left import Speed
from hpo.worker.failures import normalise

__all__ = ["JsonProgress", "LiveProgress", "NewFailures", "PlainProgress", "Speed", "choose_progress"]
__all__ += ["format_seconds", "status_table", "summary_line"]

PLAIN_SECONDS = 5.0
MOST_REASONS = 5


class NewFailures:
    """The lines of trials that have failed since the look before: one for each reason, at most MOST_REASONS in all.

    Reasons that differ in numbers, addresses or paths alone count as one.
    """

    def __init__(self) -> None:
        self._reasons: set[str] | None = None
        self._num_lines = 0

    def lines(self, status: dict[str, Any]) -> list[str]:
        """What to print; the failures of earlier launches, which the first look finds, are left out."""
        found = [(study, failure) for study in status["studies"] for failure in study.get("failures", ())]
        reasons = {normalise(failure["reason"]) for _, failure in found}
        if self._reasons is None:
            self._reasons = reasons
            return []
        lines = []
        for study, failure in found:
            reason, kind = failure["reason"], normalise(failure["reason"])
            if kind in self._reasons or self._num_lines >= MOST_REASONS:
                continue
            self._reasons.add(kind)
            self._num_lines += 1
            first = (reason.splitlines() or [""])[0]
            log = f" (log: {failure['log']})" if failure["log"] else ""
            lines.append(f"{study['sampler']}/{study['repeat']}, trial {failure['trial']} failed: {first}{log}")
        return lines


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
        # The time left changes while nothing else does.
        changed = json.dumps([line.partition(",")[0], [study["states"] for study in status["studies"]], bests])
        if changed != self._shown[0] and now - self._shown[1] >= PLAIN_SECONDS:
            self.line(line)
            self._shown = (changed, now)

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
