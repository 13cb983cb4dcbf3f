"""The live view of a launch on a terminal: samplers, workers, their warnings, the newest failures, elapsed and left.

It never takes more lines than the terminal has: the table goes first, then failures and workers if there is room.
"""

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from hpo.launchers.status_table import format_seconds, status_table, summary_line
from hpo.launchers.time_left import Speed
from hpo.worker.failures import normalise

MOST_WORKERS = 8
MOST_FAILURES = 3
MOST_WARNINGS = 2
ROWS_AROUND_TABLE = 3
"""The table's title and head, and the line with what is left."""


class LiveProgress:
    """A view that is drawn over and over, on a terminal.

    It is erased at the end, when the whole result follows, and stays if the run was interrupted or failed.
    """

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._speed = Speed()
        self._known: set[tuple[str, int]] | None = None
        self._failures: dict[str, list[str]] = {}
        """Kind of reason -> a line for each trial that failed so, the newest kind last."""
        self._verbose = verbose
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveProgress":
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._live.transient = kind is None
        self._live.stop()

    def update(self, status: dict[str, Any]) -> None:
        """Draws the status in place of the one before."""
        self._note_failures(status)
        self._live.update(self._view(status))

    def line(self, text: str) -> None:
        """Prints an event above the view, where it stays."""
        self._live.console.print(Text(text))

    def _view(self, status: dict[str, Any]) -> RenderableType:
        width, height = self._live.console.width, max(8, self._live.console.height - 1)
        line = summary_line(status, self._speed)
        # After the first, which starts the clock.
        last = Text(f"{format_seconds(self._speed.elapsed_seconds)}: {line}")
        taken = ROWS_AROUND_TABLE + (len(last.plain) - 1) // max(1, width)
        table = status_table(status, verbose=self._verbose, most_rows=height - taken)
        room = height - taken - table.row_count
        lines = [folded(alike) for alike in self._failures.values()]
        failures = [_cut(text, width, "red") for text in lines[-min(MOST_FAILURES, max(0, room)) :] if room > 0]
        room -= len(failures)
        warnings = [f"warning: {text}" for text in status.get("warnings", ())[: min(MOST_WARNINGS, max(0, room))]]
        workers = worker_lines(status.get("running", []), width, min(MOST_WORKERS, room - len(warnings)))
        return Group(table, *workers, *(_cut(text, width, "yellow") for text in warnings), *failures, last)

    def _note_failures(self, status: dict[str, Any]) -> None:
        """Keeps a line for each trial that has failed since the first look, by what it failed of."""
        found = {
            (study["name"], failure["trial"]): (study, failure)
            for study in status["studies"]
            for failure in study.get("failures", ())
        }
        if self._known is None:
            self._known = set(found)
        for key in [key for key in found if key not in self._known]:
            study, failure = found[key]
            self._known.add(key)
            reason = (failure["reason"].splitlines() or [""])[0]
            log = f"; log {failure['log'].partition(':')[2] or failure['log']}" if failure["log"] else ""
            kind = normalise(reason)
            line = f"{study['sampler']}/{study['repeat']} trial {failure['trial']} failed: {reason}{log}"
            self._failures[kind] = [*self._failures.pop(kind, []), line]


def worker_lines(running: list[dict[str, Any]], width: int, most: int) -> list[Text]:
    """A line for each worker: its process, how many trials it holds, and these with the epochs that they have done."""
    held: dict[str, list[dict[str, Any]]] = {}
    for trial in running:
        held.setdefault(trial["worker"] or "?", []).append(trial)
    if most < 1 or not held:
        return []
    shown = list(held.items()) if len(held) <= most else list(held.items())[: most - 1]
    hosts = {name.partition(":")[0] for name in held}
    lines = []
    for name, trials in shown:
        host, _, rest = name.partition(":")
        pid = rest.partition(":")[0]
        place = f"worker {pid}" + (f" on {host}" if len(hosts) > 1 else "")
        listed = ", ".join(f"{trial['study']} #{trial['trial']} epoch {trial['epochs']}" for trial in trials)
        count = f"{len(trials)} trials: " if len(trials) > 1 else ""
        lines.append(Text(_cut_list(f"{place}  {count}{listed}", width), style="dim"))
    if len(held) > len(shown):
        lines.append(Text(f"and {len(held) - len(shown)} more workers", style="dim"))
    return lines


def _cut_list(text: str, width: int) -> str:
    """At most ``width`` characters, cut after a whole entry."""
    if len(text) <= width:
        return text
    return text[: width - 2].rpartition(",")[0] + ", …"


def folded(alike: list[str]) -> str:
    """One line for trials that failed of the same error; of several that of the newest, with their number."""
    if len(alike) == 1:
        return alike[0]
    trial, _, reason = alike[-1].partition(" failed: ")
    return f"{trial} failed: the same error again ({len(alike)} times): {reason}"


def _cut(text: str, width: int, style: str) -> Text:
    """One line; of a long one the beginning and the end stay, where the file name of the log is."""
    if len(text) > width:
        tail = min(len(text.rpartition("; log ")[2]) if "; log " in text else 0, width // 2)
        text = text[: width - tail - 1] + "…" + text[len(text) - tail :]
    return Text(text, style=style)
