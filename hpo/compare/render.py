"""Pages from templates: one set of sections for the self-contained file and for the dashboard.

Templates escape everything by default; data for scripts goes through :func:`script_json`.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import jinja2

from hpo import strict_json
from hpo.compare import figures, pareto_figure, tables
from hpo.compare.comparison import Comparison
from hpo.compare.pairs import headline
from hpo.compare.records import CURVE_AXES
from hpo.compare.report import Report

HERE = "hpo.compare"


@functools.cache
def environment() -> jinja2.Environment:
    """Templates of the comparison and, under their own names, those of the dashboard."""
    loader = jinja2.ChoiceLoader(
        [jinja2.PackageLoader(HERE, "page"), jinja2.PackageLoader("hpo.dashboard", "templates")]
    )
    made = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.undefined = jinja2.StrictUndefined
    made.filters["cell"] = tables.text
    return made


@functools.cache
def static_text(name: str) -> str:
    """A style sheet or script of the page."""
    return (files(HERE) / "page" / name).read_text(encoding="utf-8")


@functools.cache
def plotly_script() -> str:
    """Plotly's own script, from its package."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no ``<`` can end it."""
    text = strict_json.dumps(value)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@dataclass(frozen=True)
class FigureView:
    """A place for a figure; ``key`` names what is drawn first, ``tables`` say it to those who cannot see it."""

    key: str
    title: str
    label: str
    tables: Sequence[tables.Table]
    switches: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ExperimentView:
    """What the sections show of one experiment, in order."""

    comparison: Comparison
    prefix: str
    headline: str
    verdicts: Sequence[tuple[str, str]]
    curves: FigureView
    final: FigureView
    pairs: FigureView
    cost: Sequence[tables.Table]
    importance: FigureView | None
    pareto: FigureView | None
    retrained: tables.Table | None
    counts: str


def experiment_view(c: Comparison, prefix: str = "") -> ExperimentView:
    """The view of one experiment; ``prefix`` tells its figures from another experiment's on the same page."""
    finished = sum(s.cost.complete + s.cost.pruned for s in c.samplers.values())
    repeats = max((len(s.repeats) for s in c.samplers.values()), default=0)
    bars = tables.importance(c.importance)
    return ExperimentView(
        comparison=c,
        prefix=prefix,
        headline=headline({name: s.final for name, s in c.samplers.items()}, c.pairs, c.maximize),
        verdicts=[(_verdict_class(p.verdict, p.resolvable), p.sentence) for p in c.pairs],
        curves=FigureView(
            f"{prefix}curve_trials_median_value",
            "Best so far",
            f"Best {c.metric} so far of each sampler with a 95 % band over the repeats",
            [tables.curve(c, axis) for axis in CURVE_AXES],
            {
                "axis": {"trials": "trials", "epochs": "epochs", "seconds": "worker-time", "wall": "wall-clock"},
                "statistic": {"median": "median", "iqm": "IQM"},
                "scale": {"value": "value", "distance": "log distance"},
            },
        ),
        final=FigureView(
            f"{prefix}final",
            "Final values",
            f"Final {c.metric} of each repeat and their mean with a 95 % interval, for each sampler",
            [tables.samplers(c), tables.final_values(c)],
        ),
        pairs=FigureView(
            f"{prefix}pairs",
            "Pairwise differences",
            "Mean difference of each pair of samplers with a 95 % interval; the grey strip is the noise floor",
            [tables.pairs(c)],
        ),
        cost=[t for t in (tables.cost(c), tables.speed_up(c), tables.target(c)) if t is not None],
        importance=None
        if bars is None
        else FigureView(f"{prefix}importance", bars.title, "Share of importance of each hyperparameter", [bars]),
        pareto=pareto_view(c, prefix),
        retrained=tables.retrained(c),
        counts=f"{finished:,} finished trials, {len(c.samplers)} samplers, {repeats} repeats",
    )


def pareto_view(c: Comparison, prefix: str = "") -> FigureView | None:
    """The place of the Pareto front; None for one objective."""
    if (table := tables.front(c)) is None:
        return None
    return FigureView(
        f"{prefix}pareto", table.title, "The complete trials and the Pareto front of each sampler", [table]
    )


def _verdict_class(verdict: str, resolvable: bool | None) -> str:
    if verdict not in ("better", "worse"):
        return "none"
    return verdict if resolvable is not False else "unresolved"


def standalone(report: Report, written: str) -> str:
    """One page that needs nothing else: plotly's script, the figures and their tables are inside."""
    drawn: dict[str, Any] = {}
    for index, c in enumerate(report.experiments):
        drawn |= {f"{index}-{key}": figure for key, figure in figures.all_figures(c).items()}
        if c.pareto is not None:
            drawn[f"{index}-pareto"] = pareto_figure.front(c, c.pareto)
    if report.tasks is not None:
        drawn["ranks"] = figures.critical_difference(report.tasks)
    return (
        environment()
        .get_template("standalone.html")
        .render(
            views=[experiment_view(c, prefix=f"{index}-") for index, c in enumerate(report.experiments)],
            tasks=report.tasks,
            ranks=None if report.tasks is None else tables.ranks(report.tasks),
            figures=script_json(drawn),
            css=static_text("app.css"),
            theme=static_text("theme.js"),
            script=static_text("figures.js"),
            plotly=plotly_script(),
            written=written,
        )
    )
