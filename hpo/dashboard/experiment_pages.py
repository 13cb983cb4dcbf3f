"""The page of an experiment: its first screen at once, its figures when they come into view, and what changes.

``/hpo/experiment`` is the page; it polls ``/hpo/api/experiment`` for the parts that have changed and takes each figure
from ``/hpo/api/figure``. ``/hpo/tables`` has the numbers of every figure on one page, for those without a script.
"""

import gzip
import importlib.metadata
import shlex
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import bottle  # type: ignore[import-untyped]

from hpo import strict_json
from hpo.compare import tables
from hpo.compare.output import dumps
from hpo.dashboard import figure_data, web
from hpo.dashboard.guard import PREFIX, Access
from hpo.dashboard.live import Live, Standing
from hpo.dashboard.overview import Overview, SamplerRow
from hpo.dashboard.progress import Progress
from hpo.errors import UsageError
from hpo.experiment import status
from hpo.launchers.progress import format_seconds

# Writes the best configuration of an experiment: (experiment, sampler, "toml" or "json") -> text.
Exporter = Callable[[str, str, str], str]
FORMATS = {"toml": "application/toml", "json": "application/json"}
MOST_FAILURES = 20
KEPT_FIGURES = 200
SECTIONS = ("status", "progress", "verdict", "samplers", "pairs", "configs", "failed", "studies")


class ExperimentPages:
    """The views of one experiment; ``routes`` lists them."""

    def __init__(self, live: Live, access: Access, export: Exporter) -> None:
        self._live, self._access, self._export = live, access, export
        self._lock = threading.Lock()
        self._figures: dict[tuple[str, str, str], tuple[str, bytes, str]] = {}
        self.routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (
            ("/experiment", "GET", self.experiment),
            ("/tables", "GET", self.tables),
            ("/best", "GET", self.best),
            ("/api/experiment", "GET", self.api_experiment),
            ("/api/figure", "GET", self.api_figure),
            ("/api/comparison", "GET", self.api_comparison),
        )

    def experiment(self) -> str:
        name = bottle.request.query.name
        standing = self._live.standing(name)
        query = urlencode({"name": name})
        return web.page(
            "experiment.html",
            self._access,
            token=standing.token,
            shape=_shape(standing.overview),
            live_url=f"{PREFIX}/api/experiment?{query}&",
            is_live=standing.overview.state != "finished",
            **self._values(standing),
        )

    def api_experiment(self) -> bytes | str:
        """What has changed since the token ``have``: parts of the page as HTML. How fast it goes changes always."""
        name = bottle.request.query.name
        standing = self._live.standing(name)
        is_live = standing.overview.state != "finished"
        is_same = standing.token == bottle.request.query.have
        if is_same and not is_live:
            return web.as_json({"token": standing.token, "unchanged": True, "live": False})
        parts = web.templates().get_template("parts.html").make_module(self._values(standing))
        if is_same:
            sections = {"progress": str(parts.progress())}
            return web.as_json({"token": standing.token, "unchanged": True, "live": True, "sections": sections})
        sections = {name: str(getattr(parts, name)()) for name in SECTIONS}
        shape = _shape(standing.overview)
        return web.as_json({"token": standing.token, "shape": shape, "sections": sections, "live": is_live})

    def api_figure(self) -> bytes | str:
        """One figure, compressed once for all readers."""
        query = bottle.request.query
        current = self._live.current(query.name)
        key = (query.name, query.figure, query.scope)
        bottle.response.content_type = "application/json"
        with self._lock:
            kept = self._figures.get(key)
        if kept is None or kept[0] != current.token:
            drawn = figure_data.draw(current, query.figure, query.scope)
            text = strict_json.dumps(figure_data.as_json(drawn, current.token, _tables_html))
            kept = current.token, gzip.compress(text.encode(), 5), text
            with self._lock:
                self._figures[key] = kept
                while len(self._figures) > KEPT_FIGURES:
                    del self._figures[next(iter(self._figures))]
        return web.compressed(kept[1], kept[2])

    def api_comparison(self) -> str:
        comparison = self._live.current(bottle.request.query.name).comparison
        bottle.response.content_type = "application/json"
        bottle.response.set_header("Content-Disposition", web.attachment(f"{comparison.experiment}-comparison.json"))
        return dumps(comparison)

    def tables(self) -> str:
        """The numbers of every figure, and the notes on the record of the trials."""
        current = self._live.current(bottle.request.query.name)
        comparison = current.comparison
        found = [
            *tables.all_tables(comparison),
            tables.final_values(comparison),
            tables.best_trials(current.records, comparison.metric),
            *(tables.curve(comparison, axis) for axis in figure_data.SWITCHES["axis"]),  # type: ignore[arg-type]
        ]
        if len(comparison.samplers) == 1:
            found = [table for table in found if table.key != "pairs"]
        name = comparison.experiment
        values = {"name": name, "link": web.experiment_link(name), "notes": comparison.notes, "tables": found}
        return web.page("tables.html", self._access, **values)

    def best(self) -> str:
        query = bottle.request.query
        form = query.format or "toml"
        if form not in FORMATS:
            raise UsageError(f"There is no format {form!r}: toml or json.")
        text = self._export(query.name, query.sampler, form)
        bottle.response.content_type = f"{FORMATS[form]}; charset=utf-8"
        bottle.response.set_header("Content-Disposition", web.attachment(f"{query.name}-{query.sampler}-best.{form}"))
        return text

    def _values(self, standing: Standing) -> dict[str, Any]:
        """What the templates of an experiment need."""
        seen, name = standing.overview, standing.overview.name
        params = list(seen.study_file.get("space") or {})
        return {
            "seen": seen,
            "name": name,
            "query": urlencode({"name": name}),
            "going": self._live.progress(name) if seen.state != "finished" else Progress(0, 0, None, None),
            "rows": seen.rows,
            "spent_of": spent_of,
            "lead": lead(seen),
            "places": [
                *figure_data.pareto_places(seen.study_file),
                *figure_data.places(len(seen.rows), seen.repeats, params, seen.metric),
            ],
            "param_places": figure_data.param_places(params, seen.metric),
            "scopes": _scopes(standing),
            "study_rows": standing.entries,
            "ids": ",".join(str(entry.study_id) for entry in standing.entries),
            "failures": self._failures(standing),
            "retry": shlex.join(["hpo", "retry", name]),
            "plotly_version": importlib.metadata.version("plotly"),
            "prefix": PREFIX,
            "export_query": lambda sampler, form: urlencode({"name": name, "sampler": sampler, "format": form}),
        }

    def _failures(self, standing: Standing) -> list[dict[str, Any]]:
        """The newest failed lineages, with what a person wants to know of each."""
        if not standing.overview.failed:
            return []
        ids = [entry.study_id for entry in standing.entries]

        def read() -> dict[int, list[dict[str, Any]]]:
            with self._live.engine.connect() as connection:
                return status.failures(connection, ids)

        found = self._live.read(read)
        names = {entry.study_id: entry.name for entry in standing.entries}
        listed = [
            {**failure, "study_id": study_id, "study": names[study_id]}
            for study_id, failures in found.items()
            for failure in failures
        ]
        return listed[-MOST_FAILURES:]


def lead(seen: Overview) -> str:
    """The sentence at the top if there is no verdict: one sampler, or nothing to compare yet."""
    best = seen.best
    if best is None:
        return "No trial has completed yet."
    sentence = f"Best {seen.metric} {tables.text(best.value)}"
    if len(seen.rows) == 1 and seen.repeats > 1 and (summary := seen.rows[0].summary) is not None:
        mean, interval = tables.text(summary.mean), summary.mean_interval
        over = f"{summary.n} repeats" + (f" (95 %: {tables.text(interval)})" if interval is not None else "")
        sentence += f"; mean best {mean} over {over}"
    return f"{sentence}, found by {best.sampler} in trial {best.number} of {best.study}."


def spent_of(row: SamplerRow | Overview) -> str:
    """What is finished of the budget: ``58 of 60``, or epochs or time of a budget in those."""
    if "trials" in row.budget:
        return f"{row.finished:,} of {row.budget['trials']:,.0f}"
    if isinstance(row, SamplerRow) and "epochs" in row.budget:
        return f"{row.finished:,} ({row.epochs:,} of {row.budget['epochs']:,.0f} epochs)"
    if "seconds" in row.budget:
        return f"{row.finished:,} in {format_seconds(row.budget['seconds'])}"
    return f"{row.finished:,}"


def _scopes(standing: Standing) -> list[tuple[str, str]]:
    """What the figures can be about: value and label of each choice."""
    rows = standing.overview.rows
    found = [("", "all studies" if len(standing.entries) > 1 else standing.entries[0].name)]
    if len(standing.entries) == 1:
        return found
    if len(rows) > 1:
        found += [(f"sampler:{row.name}", f"{row.name}, all repeats") for row in rows]
    return found + [(f"study:{entry.study_id}", entry.name) for entry in standing.entries]


def _shape(seen: Overview) -> str:
    """Differs if the page needs other places than it has: the browser then loads it again."""
    return "|".join([*(f"{row.name}:{row.repeats}" for row in seen.rows), *(seen.study_file.get("space") or {})])


def _tables_html(found: Any) -> str:
    sections = web.templates().get_template("sections.html").make_module()
    return "".join(str(sections.table(table)) for table in found)
