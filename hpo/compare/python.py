"""``hpo.compare("digits")`` in Python: the comparison as an object that shows itself as tables."""

import html
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from hpo.compare import output, tables
from hpo.compare.report import Report
from hpo.compare.report import compare as compare_in
from hpo.database.storage import open_storage
from hpo.settings import Settings


class ComparisonResult:
    """What ``hpo compare`` shows; ``report`` holds the numbers."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def to_dict(self) -> dict[str, Any]:
        """What ``hpo compare --json`` prints."""
        return output.to_json(self.report)

    def write_html(self, path: str | Path) -> None:
        """Writes one self-contained page."""
        output.write_html(self.report, Path(path))

    def __repr__(self) -> str:
        text = io.StringIO()
        output.print_tables(self.report, Console(file=text, width=160))
        return text.getvalue()

    def _repr_html_(self) -> str:
        parts = []
        for comparison in self.report.experiments:
            parts.append(f"<b>{html.escape(comparison.experiment)}</b>")
            parts += [f"<p>{html.escape(line)}</p>" for line in comparison.notes]
            parts += [f"<p>{html.escape(pair.sentence)}</p>" for pair in comparison.pairs]
            parts += [_table(table) for table in tables.all_tables(comparison)]
        return "".join(parts)


def _table(table: tables.Table) -> str:
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    lines = ["".join(f"<td>{html.escape(tables.text(cell))}</td>" for cell in row) for row in table.rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{html.escape(table.title)}</caption><tr>{heads}</tr>{body}</table>"


def compare(
    *experiments: str,
    storage: str | None = None,
    home: str | Path | None = None,
    settings: Settings | None = None,
) -> ComparisonResult:
    """Compares the samplers of an experiment; several experiments are ranked over tasks. Needs none of their trainers.

    Raises:
        ExperimentError: for an unknown experiment, or studies that cannot be compared.
        StorageError: if the database does not answer.
    """
    chosen = (settings or Settings()).replaced(storage=storage, home=home)
    return ComparisonResult(compare_in(open_storage(chosen.storage, home=chosen.home), experiments))
