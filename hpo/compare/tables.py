"""A comparison as tables of raw cells, which the terminal, the pages, the CSV files and the notes all show.

A cell is text, a number, an :class:`Interval` or None; :func:`text` is the one place that turns it into characters.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpo.compare.comparison import Comparison
from hpo.compare.records import AXES, CURVE_AXES, Axis, StudyRecord
from hpo.compare.scope import param_names, points
from hpo.compare.stats import Interval
from hpo.compare.summary import Summary
from hpo.compare.tasks import TaskComparison

Cell = str | int | float | Interval | None
CURVE_ROWS = 10


@dataclass(frozen=True)
class Table:
    """``key`` names it in files and pages; ``note`` is one sentence on how to read it."""

    key: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def text(cell: Cell) -> str:
    """A cell for people: four digits, an infinity as what it means, nothing as a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, Interval):
        width = cell.high - cell.low
        if 0 < width < 100:  # two digits of the width; more would be noise
            decimals = max(0, 1 - math.floor(math.log10(width)))
            return f"[{cell.low:.{decimals}f}, {cell.high:.{decimals}f}]"
        if cell.low == cell.high == math.inf:
            return text(math.inf)
        return f"[{text(cell.low)}, {text(cell.high)}]"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    if math.isnan(cell):
        return "–"
    if math.isinf(cell):
        return "not reached" if cell > 0 else "−∞"
    if abs(cell) >= 1000:
        return f"{cell:,.0f}"
    return f"{cell:.4g}"


def samplers(c: Comparison) -> Table:
    rows: list[list[Cell]] = []
    for s in c.samplers.values():
        best = None if s.best is None else s.best.value
        if c.pareto is not None:
            best = max(s.final.values(), default=None)
        rows.append([s.name, f"{len(s.final)} of {len(s.repeats)}", *_summary(s.summary), best])
    columns = ["sampler", "repeats", "mean best", "95 %", "median best", "95 %", "best of all"]
    note = f"The best {c.metric} of each repeat, {'larger' if c.maximize else 'smaller'} is better."
    return Table("samplers", "Final values", columns, rows, note)


MOST_FRONT_ROWS = 50


def front(c: Comparison) -> Table | None:
    """The Pareto front, with the parameters in which its points differ."""
    if c.pareto is None:
        return None
    found = c.pareto.front
    names = list(dict.fromkeys(name for point in found for name in point.params))
    varied = [name for name in names if len({str(point.params.get(name)) for point in found}) > 1]
    rows: list[list[Cell]] = [
        [f"{p.study} trial {p.trial}", p.first, p.second, *(_cell(p.params.get(name)) for name in varied)]
        for p in found[:MOST_FRONT_ROWS]
    ]
    columns = ["trial", *(objective.metric for objective in c.pareto.objectives), *varied]
    note = "No other trial is at least as good in both metrics. hpo export --pareto writes these configurations."
    if len(found) > MOST_FRONT_ROWS:
        note = f"The first {MOST_FRONT_ROWS} of {len(found)}. {note}"
    return Table("front", "Pareto front", columns, rows, note)


def _summary(summary: Summary | None) -> list[Cell]:
    if summary is None:
        return [None, None, None, None]
    return [summary.mean, summary.mean_interval, summary.median, summary.median_interval]


def final_values(c: Comparison) -> Table:
    repeats = sorted({repeat for s in c.samplers.values() for repeat in s.repeats})
    rows: list[list[Cell]] = [[repeat, *(s.final.get(repeat) for s in c.samplers.values())] for repeat in repeats]
    return Table("final", "Final value of each repeat", ["repeat", *c.samplers], rows)


def pairs(c: Comparison) -> Table:
    rows: list[list[Cell]] = []
    for p in c.pairs:
        verdict = p.verdict if p.resolvable is not False else f"{p.verdict}; not resolvable"
        chance = None if p.probability is None else p.probability.value
        rows.append(
            [
                p.first,
                p.second,
                p.n,
                p.difference,
                p.interval,
                p.p_value,
                p.p_corrected,
                chance,
                None if p.probability is None else p.probability.interval,
                verdict,
                p.smallest,
            ]
        )
    columns = [
        "sampler",
        "against",
        "n",
        "difference",
        "95 %",
        "p",
        "p (Holm)",
        "P(better)",
        "95 %",
        "verdict",
        "smallest",
    ]
    note = (
        "p: permutation test of the means. P(better): how often a search of the first beats one of the second. "
        "Smallest: the least difference that these repeats could have shown (power 80 %)."
    )
    return Table("pairs", "Pairwise", columns, rows, note)


def cost(c: Comparison) -> Table:
    rows: list[list[Cell]] = []
    for s in c.samplers.values():
        k = s.cost
        share = None if k.pruned_share is None else f"{100 * k.pruned_share:.0f} %"
        audit = "–" if k.audit is None else f"{k.audit.in_top} of {k.audit.continued}"
        rows.append(
            [
                s.name,
                k.trials,
                k.complete,
                k.pruned,
                share,
                k.epochs,
                k.seconds,
                k.failed,
                k.retried,
                k.duplicates,
                audit,
            ]
        )
    columns = [
        "sampler",
        "trials",
        "complete",
        "pruned",
        "share",
        "epochs",
        "seconds",
        "failed",
        "retried",
        "duplicates",
    ]
    note = (
        "Over all repeats; seconds are those of the workers. "
        "Retried: attempts that ended without a result (a worker died, the trainer failed) and were made again. "
        "Audit: trials that would have been pruned, were continued, and ended among the best 5 %."
    )
    return Table("cost", "Spent by each sampler", [*columns, "audit"], rows, note)


def speed_up(c: Comparison) -> Table | None:
    rows: list[list[Cell]] = []
    for s in c.samplers.values():
        if s.speed_up:
            row: list[Cell] = [s.name]
            for axis in AXES:
                estimate = s.speed_up.get(axis)
                row += [None, None] if estimate is None else [estimate.value, estimate.interval]
            rows.append(row)
    if not rows:
        return None
    columns = ["sampler", "trials", "95 %", "epochs", "95 %", "seconds", "95 %"]
    note = (
        "Share of random search's budget that the sampler needs until its median is as good as random's final median."
    )
    return Table("speed_up", "Share of random's budget", columns, rows, note)


def target(c: Comparison) -> Table | None:
    rows: list[list[Cell]] = []
    goal = 0.0
    for s in c.samplers.values():
        if s.target is not None:
            goal = s.target.target
            row: list[Cell] = [s.name, f"{s.target.reached} of {s.target.repeats}"]
            for axis in AXES:
                row += [s.target.expected[axis].value, s.target.expected[axis].interval]
            rows.append(row)
    if not rows:
        return None
    columns = ["sampler", "reached", "trials", "95 %", "epochs", "95 %", "seconds", "95 %"]
    note = "Expected cost, counting what was spent in repeats that never reached it."
    return Table("target", f"Cost to reach {text(goal)}", columns, rows, note)


def retrained(c: Comparison) -> Table | None:
    rows: list[list[Cell]] = []
    for s in c.samplers.values():
        if s.retrained is not None:
            again = s.retrained
            test: list[Cell] = [None, None] if again.test is None else [again.test.mean, again.test.mean_interval]
            validation = [again.validation.mean, again.validation.mean_interval]
            rows.append([s.name, len(again.seeds), again.reported, *validation, *test])
    if not rows:
        return None
    columns = ["sampler", "seeds", "reported", "validation", "95 %", "test", "95 %"]
    note = "Each sampler's best configuration trained again with fresh seeds. What the search reported is the best of "
    note += "many and therefore too good."
    return Table("retrained", "Selection bias", columns, rows, note)


def importance(importances: Mapping[str, Mapping[str, float]]) -> Table | None:
    names = list(dict.fromkeys(name for shares in importances.values() for name in shares))
    if not names:
        return None
    known = {sampler: shares for sampler, shares in importances.items() if shares}
    rows: list[list[Cell]] = [
        [name, *(f"{100 * shares[name]:.0f} %" if name in shares else None for shares in known.values())]
        for name in names
    ]
    note = "PED-ANOVA: what sets the best tenth of the complete trials apart; it takes 20 of them."
    return Table("importance", "Importance of each hyperparameter", ["parameter", *known], rows, note)


def curve(c: Comparison, axis: Axis) -> Table:
    columns = [CURVE_AXES[axis]]
    for name in c.samplers:
        columns += [name, "95 %"]
    length = max((s.curves[axis].x.size for s in c.samplers.values()), default=0)
    chosen = sorted({round((i + 1) * length / CURVE_ROWS) - 1 for i in range(CURVE_ROWS)} - {-1})
    rows: list[list[Cell]] = []
    for i in chosen:
        row: list[Cell] = []
        for s in c.samplers.values():
            line = s.curves[axis]
            if not row:
                row.append(float(line.x[i]))
            value = float(line.median[i])
            row.append(value if math.isfinite(value) else None)
            band = (
                None
                if line.median_low is None or line.median_high is None
                else (line.median_low[i], line.median_high[i])
            )
            finite = band is not None and all(map(math.isfinite, band))
            row.append(Interval(float(band[0]), float(band[1])) if band is not None and finite else None)
        rows.append(row)
    return Table(f"curve_{axis}", f"Median best so far by {CURVE_AXES[axis]}", columns, rows)


def ranks(t: TaskComparison) -> Table:
    rows: list[list[Cell]] = [[name, rank, *t.scores[name]] for name, rank in t.ranks.items()]
    parts = []
    if t.friedman is not None:
        parts.append(f"Friedman's test that all are alike: p = {t.friedman:.2g}.")
    if t.critical_difference is not None:
        parts.append(f"Ranks less than {t.critical_difference:.2f} apart do not differ significantly (Nemenyi, 95 %).")
    else:
        parts.append("A critical difference is given from five experiments on.")
    return Table("ranks", "Average rank over experiments", ["sampler", "rank", *t.tasks], rows, " ".join(parts))


def all_tables(c: Comparison) -> list[Table]:
    """The tables that people read, in order; those of the pictures' points are apart (:func:`curve`)."""
    found = [front(c), samplers(c), pairs(c), cost(c), speed_up(c), target(c), retrained(c), importance(c.importance)]
    return [table for table in found if table is not None]


def best_trials(studies: Sequence[StudyRecord], metric: str, most: int = 20) -> Table:
    """The best complete trials with their hyperparameters, the best first."""
    maximize = studies[0].maximize
    names = param_names(studies)
    complete = [point for point in points(studies) if point.is_complete]
    complete.sort(key=lambda point: point.value, reverse=maximize)
    rows: list[list[Cell]] = [
        [point.label, point.value, point.trial.epochs, *(_cell(point.params.get(name)) for name in names)]
        for point in complete[:most]
    ]
    return Table(
        "best_trials", f"The best {min(most, len(complete))} trials", ["trial", metric, "epochs", *names], rows
    )


def _cell(value: object) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number or value is None else str(value)  # type: ignore[return-value]
