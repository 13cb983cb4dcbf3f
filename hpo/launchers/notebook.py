"""How an experiment shows itself in a notebook: one line that is updated while it runs, a table when it has ended.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import html
import sys
from typing import Any

from rich.table import Table

from hpo.launchers.progress import Speed, status_table, summary_line


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    import IPython

    shell = IPython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


class NotebookProgress:
    """Shows the status as one line below the cell, in place of the line before; see :class:`Progress`."""

    def __init__(self) -> None:
        self._speed = Speed()
        self._shown = ""
        self._display: Any = None

    def update(self, status: dict[str, Any]) -> None:
        """Replaces the line if it has changed."""
        line = f"{status['experiment']}: {summary_line(status, self._speed)}"
        if line == self._shown:
            return
        self._shown = line
        content = {"text/plain": line}
        if self._display is None:
            from IPython.display import display

            self._display = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._display.update(content, raw=True)

    def line(self, text: str) -> None:
        """Prints an event."""
        print(text)


def status_html(status: dict[str, Any]) -> str:
    """The status as a table of HTML, a row for each study."""
    return table_html(status_table(status, verbose=True))


def table_html(table: Table) -> str:
    """A table of rich's as HTML; what it holds is text, whatever it looks like."""
    heads = "".join(f"<th>{html.escape(str(column.header))}</th>" for column in table.columns)
    rows = zip(*(list(column.cells) for column in table.columns), strict=True)
    lines = ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    title = f"<caption>{html.escape(str(table.title))}</caption>" if table.title else ""
    return f"<table>{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
