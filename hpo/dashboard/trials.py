"""The table of all trials: ``/hpo/trials`` in pages, ``/hpo/trials.csv`` all that the filters leave.

It is a form and links, so it works without a script.
"""

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any

import bottle  # type: ignore[import-untyped]

from hpo.dashboard import web
from hpo.dashboard.guard import Access
from hpo.dashboard.opened import answering, link, named_experiment, page
from hpo.database.storage import Storage
from hpo.errors import UsageError
from hpo.experiment.trial_list import COLUMNS, PAGE, SHOWN, STATES, TrialRow, TrialTable, Wanted

MOST_PARAMETERS = 12
"""Hyperparameters that are shown if a person chooses no columns."""


class TrialsPages:
    """The views of the table; ``routes`` lists them."""

    def __init__(self, storage: Storage, access: Access) -> None:
        self._storage, self._access = storage, access
        self.routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (
            ("/trials", "GET", answering(self.trials)),
            ("/trials.csv", "GET", answering(self.as_csv)),
        )

    def trials(self) -> str:
        query, experiment = bottle.request.query, named_experiment(self._storage)
        problem = ""
        wanted = _wanted()
        try:
            table = TrialTable(experiment, wanted)
        except UsageError as error:
            # What a person has typed stays in the form beside what is wrong with it.
            problem, table = str(error), TrialTable(experiment, Wanted())
        counts = table.count_states()
        total = sum(counts.values())
        last = max(1, -(-total // PAGE))
        number = min(max(1, int(query.page) if query.page.isdecimal() else 1), last)
        names = table.parameters
        chosen = _chosen(names)
        given = _given(wanted, chosen if query.getall("column") else [])

        def sort_link(column: str) -> str:
            is_same = wanted.sort == column
            descending = not wanted.descending if is_same else column == "value" and experiment.maximize
            return link("trials", **{**given, "sort": column, "desc": "1" if descending else ""})

        return page(
            "trials.html",
            self._access,
            experiment,
            rows=table.page(number),
            total=total,
            counts=counts,
            problem=problem,
            wanted=wanted,
            states=STATES,
            samplers=list(dict.fromkeys(study.sampler.label for study in experiment.studies)),
            repeats=sorted({study.repeat for study in experiment.studies}),
            all_columns=COLUMNS,
            columns=[column for column in chosen if column in COLUMNS],
            parameters=names,
            shown_parameters=[column.removeprefix("param:") for column in chosen if column.startswith("param:")],
            chosen=chosen,
            metric=experiment.metric,
            number=number,
            last=last,
            first_of_page=(number - 1) * PAGE + 1,
            sort_link=sort_link,
            page_link=lambda to: link("trials", **{**given, "page": to}),
            csv_link=link("trials.csv", **given),
        )

    def as_csv(self) -> Any:
        experiment = named_experiment(self._storage)
        table = TrialTable(experiment, _wanted())
        bottle.response.content_type = "text/csv; charset=utf-8"
        bottle.response.set_header("Content-Disposition", web.attachment(f"{experiment.name}-trials.csv"))
        return csv_lines(table)


def csv_lines(table: TrialTable) -> Iterator[bytes]:
    """The table as CSV: the trial's name and number, every column, every hyperparameter."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)

    def taken() -> bytes:
        text = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return text.encode("utf-8", "backslashreplace")

    writer.writerow(["trial", "number", *COLUMNS, *table.parameters])
    for index, row in enumerate(table.all()):
        writer.writerow(
            [
                row.name,
                row.number,
                *(_csv_cell(row, column) for column in COLUMNS),
                *(_safe(row.params.get(name, "")) for name in table.parameters),
            ]
        )
        if index % 200 == 199:
            yield taken()
    yield taken()


def _csv_cell(row: TrialRow, column: str) -> Any:
    value = row.cell(column)
    return "" if value is None else _safe(value)


def _safe(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _wanted() -> Wanted:
    query = bottle.request.query
    states = tuple(state for state in query.getall("state") if state)
    return Wanted(states, query.sampler, query.repeat, query.search, query.sort or "trial", query.desc == "1")


def _chosen(parameters: list[str]) -> list[str]:
    """The columns that a person has chosen, in the order of the table."""
    known = [*COLUMNS, *(f"param:{name}" for name in parameters)]
    # Bottle gives bytes as Latin-1; a hyperparameter may have any name.
    given = {text.encode("latin-1").decode("utf-8", "replace") for text in bottle.request.query.getall("column")}
    chosen = [column for column in known if column in given]
    return chosen or [*SHOWN, *(f"param:{name}" for name in parameters[:MOST_PARAMETERS])]


def _given(wanted: Wanted, columns: list[str]) -> dict[str, Any]:
    """The values of a link that shows the same."""
    return {
        "name": bottle.request.query.name,
        "state": list(wanted.states),
        "sampler": wanted.sampler,
        "repeat": wanted.repeat,
        "search": wanted.search,
        "sort": wanted.sort if wanted.sort != "trial" else "",
        "desc": "1" if wanted.descending else "",
        "column": columns,
    }
