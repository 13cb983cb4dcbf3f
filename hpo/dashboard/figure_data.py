"""The figures of an experiment's page, each made when it comes into view, for all studies or a part of them.

FIGURES lists them; a figure of one hyperparameter has the key ``param:NAME``. Each comes with tables that say the same
to those who cannot see it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hpo.compare import figures, landscape, pareto_figure, tables, trial_figures
from hpo.compare.comparison import Comparison, compare_studies
from hpo.compare.figures import CURVE_KEYS, Figure
from hpo.compare.importance import FEWEST_TRIALS, importance
from hpo.compare.records import StudyRecord
from hpo.compare.scope import param_names, select
from hpo.dashboard.live import Current
from hpo.errors import UsageError

SWITCHES: Mapping[str, Mapping[str, str]] = {
    "axis": {"trials": "trials", "epochs": "epochs", "seconds": "worker-time", "wall": "wall-clock"},
    "statistic": {"median": "median", "iqm": "IQM"},
    "scale": {"value": "value", "distance": "log distance"},
}


@dataclass(frozen=True)
class Place:
    """Where a figure stands on the page: its key, its heading, what it shows in words, its switches."""

    key: str
    title: str
    label: str
    switches: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    figure: Figure
    note: str
    tables: tuple[tables.Table, ...]


def places(samplers: int, repeats: int, params: Sequence[str], metric: str) -> list[Place]:
    """The figures of a page, in order; those that compare only if there is something to compare."""
    switches = {name: choices for name, choices in SWITCHES.items() if name != "statistic" or repeats > 1}
    of = "of each sampler " if samplers > 1 else ""
    band = " with a 95 % band over the repeats" if repeats > 1 else ""
    found = [
        Place("curve_trials_median_value", "Best so far", f"Best {metric} so far {of}{band}".strip(), switches),
        Place("learning", "Learning curves", f"{metric} by epoch of every trial, pruned ones faded"),
    ]
    if samplers > 1 or repeats > 1:
        found.append(Place("final", "Final values", f"Final {metric} of each repeat and their mean"))
    if samplers > 1 and repeats > 1:
        found.append(Place("pairs", "Differences", "Mean difference of each pair of samplers with a 95 % interval"))
    found.append(Place("parallel", "Parallel coordinates", f"Hyperparameters and {metric} of every complete trial"))
    found.append(Place("importance", "Importance of hyperparameters", "Share of importance of each hyperparameter"))
    if len(params) > 1:
        found.append(Place("contour", "Two hyperparameters together", f"{metric} over two hyperparameters"))
    return found


def pareto_places(study_file: Mapping[str, Any]) -> list[Place]:
    """The place of the Pareto front; none for one objective."""
    if study_file.get("second_metric") is None:
        return []
    return [Place("pareto", "Pareto front", "The complete trials and the Pareto front of each sampler")]


def param_places(params: Sequence[str], metric: str) -> list[Place]:
    """A figure for each hyperparameter."""
    return [Place(f"param:{name}", name, f"{metric} of every trial by {name}") for name in params]


def draw(current: Current, key: str, scope: str) -> Drawn:
    """One figure.

    Raises:
        UsageError: for a figure or a scope that there is not.
    """
    studies = select(current.records, scope)
    if key in CURVE_KEYS:
        axis, statistic, scale = CURVE_KEYS[key]
        c = _within(current.comparison, studies, scope)
        return Drawn(figures.curves(c, axis, statistic, scale), "", (tables.curve(c, axis),))
    if key == "pareto" and current.comparison.pareto is not None:
        c = _within(current.comparison, studies, scope)
        table = tables.front(c)
        return Drawn(
            pareto_figure.front(c, c.pareto or current.comparison.pareto), "", () if table is None else (table,)
        )
    if key == "final":
        c = _within(current.comparison, studies, scope)
        return Drawn(figures.final_values(c), "", (tables.samplers(c), tables.final_values(c)))
    if key == "pairs":
        return Drawn(figures.differences(current.comparison), "", (tables.pairs(current.comparison),))
    if key == "importance":
        return _importance(current.comparison, studies, scope)
    best = (tables.best_trials(studies, studies[0].metric),)
    if key == "learning":
        return Drawn(*trial_figures.learning_curves(studies), best)
    if key == "parallel":
        return Drawn(*trial_figures.parallel_coordinates(studies), best)
    if key == "contour":
        return Drawn(*landscape.contour(studies), best)
    kind, _, name = key.partition(":")
    if kind == "param" and name in param_names(studies):
        return Drawn(*trial_figures.against_metric(studies, name), best)
    raise UsageError(f"there is no figure {key!r}")


def _within(comparison: Comparison, studies: Sequence[StudyRecord], scope: str) -> Comparison:
    """The comparison of these studies alone: nothing is compared within one sampler, so its numbers stay."""
    if not scope:
        return comparison
    if scope.startswith("sampler:"):
        name = studies[0].sampler
        return replace(comparison, samplers={name: comparison.samplers[name]})
    return compare_studies(studies)


def _importance(comparison: Comparison, studies: Sequence[StudyRecord], scope: str) -> Drawn:
    shares = {
        name: found if not scope.startswith("study:") else importance(studies)
        for name, found in comparison.importance.items()
        if any(study.sampler == name for study in studies)
    }
    bars, table = figures.importance(shares), tables.importance(shares)
    if bars is None or table is None:
        complete = sum(trial.state == "complete" for study in studies for trial in study.last_attempts())
        so_far = "there is 1" if complete == 1 else f"there are {complete}"
        text = f"Importance takes {FEWEST_TRIALS} complete trials of one sampler; so far {so_far}"
        return Drawn(figures.sentence(text), "", ())
    over = " over all repeats of a sampler together" if len(studies) > len(shares) else ""
    return Drawn(bars, f"PED-ANOVA{over}: what sets the best tenth of the complete trials apart.", (table,))


def as_json(drawn: Drawn, token: str, html_tables: Any) -> dict[str, Any]:
    """What the page's script takes."""
    figure = figures.escaped(drawn.figure)
    return {"token": token, "figure": figure, "note": drawn.note, "tables": html_tables(drawn.tables)}
