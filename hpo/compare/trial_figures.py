"""Trials as plotly figures: learning curves, parallel coordinates, one hyperparameter against the metric.

Drawn as SVG, so the numbers are bounded: of more trials than a picture can hold, the best and an even sample of the
others are drawn, and a note says so. WebGL is not used: it needs ``unsafe-eval``, which the pages do not allow.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpo.compare.figures import COLORS, SYMBOLS, Figure, layout_of, rgba, sentence
from hpo.compare.param_axis import ParamAxis, param_axis
from hpo.compare.records import StudyRecord
from hpo.compare.scope import Point, param_names, points, sample

MOST_CURVES = 300
MOST_LINES = 240
MOST_POINTS = 1500
FADED = "rgba(138,141,145,0.35)"
# Perceptually even steps from poor to good, legible on light and on dark paper (after Viridis, without its ends).
SCALE = ("#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39")
LINE_SCALE = ("#8d7cc0", "#5d83b8", "#2c9aa0", "#23a57a", "#5fae3a", "#a3b81c")
FENCE = 3.0  # interquartile ranges beyond which poor values are left off an axis


def robust_range(values: Sequence[float], maximize: bool) -> list[float] | None:
    """An axis that ends at the best value and leaves off poor ones that would flatten the rest; None for no values."""
    finite = np.array([value for value in values if math.isfinite(value)])
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    first, third = np.quantile(finite, [0.25, 0.75])
    reach = FENCE * float(third - first)
    if reach > 0:
        low, high = (max(low, float(first) - reach), high) if maximize else (low, min(high, float(third) + reach))
    pad = 0.05 * (high - low) or 0.05 * (abs(high) or 1.0)
    return [low - pad, high + pad]


def learning_curves(studies: Sequence[StudyRecord]) -> tuple[Figure, str]:
    """The metric by epoch of every trial: complete, pruned (faded), running, and the best one; and a note."""
    metric, maximize = studies[0].metric, studies[0].maximize
    groups: dict[str, list[tuple[str, list[int], list[float]]]] = {"pruned": [], "complete": [], "running": []}
    found = points(studies)
    drawn = {id(point.trial) for point in sample(found, MOST_CURVES, maximize)}
    best = _best(found, maximize)
    ends: list[float] = []
    for study in studies:
        for trial in study.last_attempts():
            reports = {step: value for step, value in sorted(trial.intermediate.items()) if math.isfinite(value)}
            if trial.state not in groups or not reports or (trial.finished and id(trial) not in drawn):
                continue
            ends += list(reports.values())[len(reports) // 3 if len(found) > 3 else 0 :]
            label = f"{study.sampler}/{study.repeat}, trial {trial.number}"
            if best is None or trial is not best.trial:
                groups[trial.state].append((label, list(reports), list(reports.values())))
    if not ends:
        return sentence("No trial has reported a value of an epoch yet"), ""
    looks = {"pruned": (FADED, 1.0), "complete": (rgba(COLORS[0], 0.55), 1.1), "running": (COLORS[1], 1.8)}
    data = [
        _broken_lines(name, curves, color, width)
        for name, curves in groups.items()
        if curves
        for color, width in [looks[name]]
    ]
    if best is not None and best.trial.intermediate:
        reports = dict(sorted(best.trial.intermediate.items()))
        line = (best.label, list(reports), list(reports.values()))
        data.append(_broken_lines(f"best: {best.label}", [line], COLORS[2], 3.0, markers=True))
    last = max(step for trace in data for step in trace["x"] if step is not None)
    whole = {"dtick": 1} if last <= 12 else {}
    scale = {"range": robust_range(ends, maximize)}
    figure = {"data": data, "layout": layout_of("epoch", metric, xaxis=whole, yaxis=scale, hovermode="closest")}
    return figure, _sampled(len(found), MOST_CURVES, "curves")


def _broken_lines(
    name: str, curves: Sequence[tuple[str, list[int], list[float]]], color: str, width: float, markers: bool = False
) -> dict[str, Any]:
    """Many lines as one trace, with a gap between them: plotly is slow with many traces, not with many points."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for label, steps, values in curves:
        x += [*steps, None]
        y += [*(float(f"{value:.6g}") for value in values), None]
        text += [label] * (len(steps) + 1)
    sizes = [6 if markers or len(steps) == 1 else 0 for _, steps, _ in curves for _ in range(len(steps) + 1)]
    return {
        "x": x,
        "y": y,
        "text": text,
        "name": name,
        "mode": "lines+markers" if any(sizes) else "lines",
        "line": {"color": color, "width": width},
        "marker": {"color": color, "size": sizes, "opacity": 1, "line": {"width": 0}},
        "connectgaps": False,
        "hovertemplate": "%{text}: %{y} after epoch %{x}<extra></extra>",
    }


def parallel_coordinates(studies: Sequence[StudyRecord]) -> tuple[Figure, str]:
    """A line for each complete trial across its hyperparameters and its value, coloured by rank; and a note."""
    metric, maximize = studies[0].metric, studies[0].maximize
    complete = [point for point in points(studies) if point.is_complete and point.params]
    if not complete:
        return sentence("No complete trial yet"), ""
    names = [name for name in param_names(studies) if any(name in point.params for point in complete)]
    axes = [param_axis(name, [p.params[name] for p in complete if name in p.params], studies) for name in names]
    scale = robust_range([point.value for point in complete], maximize) or [0.0, 1.0]
    shown = sorted(sample(complete, MOST_LINES, maximize), key=lambda p: p.value, reverse=not maximize)
    last = len(names)
    data: list[dict[str, Any]] = []
    for level, color in enumerate(LINE_SCALE):
        part = shown[level * len(shown) // len(LINE_SCALE) : (level + 1) * len(shown) // len(LINE_SCALE)]
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for point in part:
            places = [axis.place(point.params[axis.name]) if axis.name in point.params else None for axis in axes]
            height = min(1.0, max(0.0, (point.value - scale[0]) / (scale[1] - scale[0])))
            x += [*range(last + 1), None]
            y += [*places, height, None]
            text += [f"{point.label}: {metric} {point.value:.5g}"] * (last + 2)
        if part:
            name = {0: "poorest", len(LINE_SCALE) - 1: "best"}.get(level, "")
            line = {"color": color, "width": 1.0 + 0.25 * level}
            hover = {"text": text, "hovertemplate": "%{text}<extra></extra>"}
            style = {
                "mode": "lines",
                "line": line,
                "opacity": 0.45 + 0.1 * level,
                "name": name,
                "showlegend": bool(name),
            }
            data.append({"x": x, "y": y, **hover, **style})
    layout = layout_of("", "", hovermode="closest")
    layout["xaxis"] |= {
        "tickvals": list(range(last + 1)),
        "ticktext": [*names, metric],
        "range": [-0.25, last + 0.35],
        "side": "top",
        "zeroline": False,
    }
    layout["yaxis"] |= {"visible": False, "range": [-0.04, 1.04]}
    layout["legend"] = {"orientation": "h", "y": -0.04, "yanchor": "top", "x": 0}
    layout["annotations"] = _parallel_ticks(axes, scale)
    return {"data": data, "layout": layout}, _sampled(len(complete), MOST_LINES, "lines")


def _parallel_ticks(axes: Sequence[ParamAxis], scale: Sequence[float]) -> list[dict[str, Any]]:
    """Values beside each vertical axis."""
    found = []
    for column, ticks in enumerate([*(axis.ticks(4) for axis in axes), _linear_ticks(scale)]):
        for place, label in ticks:
            where = {"x": column, "y": place, "xanchor": "left", "showarrow": False, "xshift": 3}
            found.append({**where, "text": label, "font": {"size": 11}, "bgcolor": "rgba(128,128,128,0.12)"})
    return found


def _linear_ticks(scale: Sequence[float]) -> list[tuple[float, str]]:
    return [(k / 3, f"{scale[0] + (scale[1] - scale[0]) * k / 3:.3g}") for k in range(4)]


def against_metric(studies: Sequence[StudyRecord], name: str) -> tuple[Figure, str]:
    """One hyperparameter against the metric: complete trials by sampler, pruned ones faded; and a note."""
    metric, maximize = studies[0].metric, studies[0].maximize
    found = [point for point in points(studies) if name in point.params]
    if not found:
        return sentence("No finished trial yet"), ""
    axis = param_axis(name, [point.params[name] for point in found], studies)
    shown = sample(found, MOST_POINTS, maximize)
    samplers = list(dict.fromkeys(study.sampler for study in studies))
    data = [_scatter("pruned", [p for p in shown if not p.is_complete], axis, FADED, "circle-open")]
    for i, sampler in enumerate(samplers):
        of = [p for p in shown if p.is_complete and p.study.sampler == sampler]
        data.append(_scatter(sampler, of, axis, COLORS[i % len(COLORS)], SYMBOLS[i % len(SYMBOLS)]))
    if (best := _best(found, maximize)) is not None:
        star = _scatter("best", [best], axis, "#d6278f", "star")
        star["marker"] |= {"size": 13}
        data.append(star)
    values = [p.value for p in found if p.is_complete] or [p.value for p in found]
    layout = layout_of(name, metric, xaxis=axis.plotly(), yaxis={"range": robust_range(values, maximize)})
    layout |= {"hovermode": "closest", "showlegend": False, "margin": {"l": 10, "r": 16, "t": 10, "b": 10}}
    return {"data": [trace for trace in data if trace["x"]], "layout": layout}, _sampled(
        len(found), MOST_POINTS, "points"
    )


def _scatter(name: str, of: Sequence[Point], axis: ParamAxis, color: str, symbol: str) -> dict[str, Any]:
    return {
        "x": [axis.drawn(p.params[axis.name]) + (jitter(i) if axis.choices else 0.0) for i, p in enumerate(of)],
        "y": [float(f"{point.value:.6g}") for point in of],
        "text": [point.label for point in of],
        "hovertemplate": "%{text}: %{y}<extra></extra>" if axis.choices else "%{text}: %{y} at %{x}<extra></extra>",
        "mode": "markers",
        "name": name,
        "marker": {"color": color, "symbol": symbol, "size": 7, "opacity": 0.75},
    }


def jitter(index: int) -> float:
    """Sets points of one choice beside each other, by at most 0.2 where choices are 1 apart; always the same."""
    return 0.4 * ((index * 0.618) % 1 - 0.5)


def _best(found: Sequence[Point], maximize: bool) -> Point | None:
    complete = [point for point in found if point.is_complete]
    sign = -1.0 if maximize else 1.0
    return min(complete, key=lambda point: sign * point.value, default=None)


def _sampled(number: int, most: int, what: str) -> str:
    if number <= most:
        return ""
    return f"{most:,} {what} of {number:,} trials: the best {most // 2:,} and an even sample of the others."
