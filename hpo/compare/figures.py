"""A comparison as plotly figures: plain dictionaries, so nothing of plotly is imported where they are only passed on.

Colours tell samplers apart for colour-blind eyes and on light and dark paper; line dashes and symbols do it in print.
Text and grid colours are left to the page.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hpo.compare.comparison import Comparison
from hpo.compare.records import CURVE_AXES, Axis
from hpo.compare.stats import Array
from hpo.compare.tasks import TaskComparison

Figure = dict[str, Any]

COLORS = ("#2f7ed8", "#e08214", "#1b9e77", "#d6478f", "#8c6bd6", "#8a8d91", "#b8860b", "#00a0b0")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
SCALES = {"value": "value", "distance": "distance to the best, log"}
STATISTICS = {"median": "median", "iqm": "interquartile mean"}


CURVE_KEYS: dict[str, tuple[Axis, str, str]] = {
    f"curve_{axis}_{statistic}_{scale}": (axis, statistic, scale)
    for axis in CURVE_AXES
    for statistic in STATISTICS
    for scale in SCALES
}


def layout_of(x: str, y: str, **more: Any) -> dict[str, Any]:
    """A layout with these axis titles; colours of text and grid are left to the page."""
    return {
        "xaxis": {"title": {"text": x}, "automargin": True, **more.pop("xaxis", {})},
        "yaxis": {"title": {"text": y}, "automargin": True, **more.pop("yaxis", {})},
        "margin": {"l": 10, "r": 16, "t": 36, "b": 10},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        **more,
    }


def figure_of(data: list[dict[str, Any]], layout: dict[str, Any]) -> Figure:
    """The figure, or a sentence in its place if there is nothing to draw."""
    if not any(value is not None for trace in data for value in trace["y"]):
        return sentence("No finished trial yet")
    return {"data": data, "layout": layout}


def sentence(text: str) -> Figure:
    """A sentence in the place of a figure that has nothing to draw."""
    layout = layout_of("", "", xaxis={"visible": False}, yaxis={"visible": False})
    where = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
    layout["annotations"] = [{**where, "text": text}]
    return {"data": [], "layout": layout}


def finite_values(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in map(float, values)]


def rgba(color: str, alpha: float) -> str:
    """A colour of six hexadecimal digits with an opacity."""
    return f"rgba({int(color[1:3], 16)},{int(color[3:5], 16)},{int(color[5:], 16)},{alpha})"


def curves(c: Comparison, axis: Axis, statistic: str = "median", scale: str = "value") -> Figure:
    """Best so far of each sampler with its band; dotted where a sampler had ended and its value is carried forward.

    ``scale``: ``value``, or ``distance`` for the distance to the best value of all repeats on a logarithmic axis.
    """
    place = _Distance(c) if scale == "distance" else None
    data: list[dict[str, Any]] = []
    focus: list[float] = []
    for i, s in enumerate(c.samplers.values()):
        line, color = s.curves[axis], COLORS[i % len(COLORS)]
        center: Array = getattr(line, statistic)
        low: Array | None = getattr(line, f"{statistic}_low")
        high: Array | None = getattr(line, f"{statistic}_high")
        if place is not None:
            center, low, high = place(center), place(low), place(high)
        x = finite_values(line.x)
        if low is not None and high is not None:
            # If an end of the band is not known, the band ends at the line and has no height there.
            lower = [a if math.isfinite(a) else m for a, m in zip(low, center, strict=True)]
            upper = [b if math.isfinite(b) else m for b, m in zip(high, center, strict=True)]
            # A point that only one edge has would be joined to another point of the other edge.
            for k, ends in enumerate(zip(lower, upper, strict=True)):
                if not all(map(math.isfinite, ends)):
                    lower[k] = upper[k] = math.nan
            edge = {
                "x": x,
                "mode": "lines",
                "line": {"width": 0, "shape": "hv"},
                "hoverinfo": "skip",
                "showlegend": False,
            }
            data.append({**edge, "y": finite_values(upper), "legendgroup": s.name, "name": f"{s.name}, upper"})
            fill = {"fill": "tonexty", "fillcolor": rgba(color, 0.16)}
            data.append({**edge, **fill, "y": finite_values(lower), "legendgroup": s.name, "name": f"{s.name}, lower"})
        last = next((k for k, point in enumerate(line.x) if point >= line.ended_at * (1 - 1e-9)), len(x) - 1)
        stroke = {"color": color, "width": 2.5, "shape": "hv"}
        y = finite_values(center)
        data.append(
            {
                "x": x[: last + 1],
                "y": y[: last + 1],
                "name": s.name,
                "legendgroup": s.name,
                "mode": "lines+markers" if last < 12 else "lines",
                "marker": {"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 7, "color": color},
                "line": stroke,
            }
        )
        if last + 1 < len(x):
            data.append(
                {
                    "x": x[last:],
                    "y": y[last:],
                    "name": f"{s.name}, ended",
                    "legendgroup": s.name,
                    "showlegend": False,
                    "mode": "lines",
                    "line": {**stroke, "dash": "dot"},
                }
            )
        settled = max(1, 3 * sum(map(math.isfinite, center)) // 4)
        for part in (center, low, high):
            focus += [v for v in ([] if part is None else part[len(part) - settled :]) if math.isfinite(v)]
    if place is None:
        title, scaled = f"{c.metric}, best so far", dict[str, Any](range=_range(focus))
    else:
        title, scaled = f"{c.metric}: distance to the best", {"type": "log", "dtick": "D2", "tickformat": ".4~g"}
    layout = layout_of(CURVE_AXES[axis], title, hovermode="x unified", yaxis=scaled)
    layout["xaxis"]["rangemode"] = "tozero"
    return figure_of(data, layout)


class _Distance:
    """Distance of values to the best final value of the experiment, for a logarithmic axis.

    The best value itself has the distance 0, which such an axis does not have: it is drawn at half of the smallest
    other distance.
    """

    def __init__(self, c: Comparison) -> None:
        finals = [value for s in c.samplers.values() for value in s.final.values()]
        self._best = (max if c.maximize else min)(finals, default=math.nan)
        sign = 1.0 if c.maximize else -1.0
        lines = [curve.median for s in c.samplers.values() for curve in s.curves.values()]
        self._sign = sign
        distances = np.concatenate([sign * (self._best - line) for line in lines]) if lines else np.empty(0)
        positive = distances[np.isfinite(distances) & (distances > 0)]
        self._least = float(positive.min()) / 2 if positive.size else 1e-12

    def __call__(self, values: Any) -> Any:
        if values is None:
            return None
        return np.maximum(self._sign * (self._best - np.asarray(values, dtype=float)), self._least)


def _range(values: list[float]) -> list[float] | None:
    """What to show at first: early values, far below the rest, would flatten what matters. Double click shows all."""
    if not values:
        return None
    low, high = min(values), max(values)
    pad = 0.06 * (high - low) or 0.05 * (abs(high) or 1.0)
    return [low - pad, high + pad]


def final_values(c: Comparison) -> Figure:
    """The final value of each repeat as a point, and the mean with its interval beside them."""
    data: list[dict[str, Any]] = []
    for i, s in enumerate(c.samplers.values()):
        if s.summary is None:
            continue
        color = COLORS[i % len(COLORS)]
        repeats = list(s.final)
        spread = [i + 0.18 * ((k * 0.618) % 1 - 0.5) - 0.12 for k in range(len(repeats))]
        data.append(
            {
                "x": spread,
                "y": finite_values(s.final.values()),
                "text": [f"repeat {repeat}" for repeat in repeats],
                "hovertemplate": f"{s.name.replace('<', '&lt;')}, %{{text}}: %{{y}}<extra></extra>",
                "mode": "markers",
                "name": s.name,
                "showlegend": False,
                "marker": {"color": rgba(color, 0.65), "size": 9, "symbol": SYMBOLS[i % len(SYMBOLS)]},
            }
        )
        mean: dict[str, Any] = {
            "x": [i + 0.22],
            "y": finite_values([s.summary.mean]),
            "mode": "markers",
            "name": f"{s.name}, mean",
            "showlegend": False,
            "marker": {"color": color, "size": 11, "symbol": "line-ew", "line": {"width": 3, "color": color}},
            "hovertemplate": "mean %{y}<extra></extra>",
        }
        if s.summary.mean_interval is not None:
            half = s.summary.mean_interval.high - s.summary.mean
            mean["error_y"] = {"type": "data", "array": [half], "color": color, "thickness": 2, "width": 7}
        data.append(mean)
    ticks = {"tickvals": list(range(len(c.samplers))), "ticktext": list(c.samplers), "zeroline": False}
    ticks["range"] = [-0.6, len(c.samplers) - 0.4]
    layout = layout_of("", f"final {c.metric}", xaxis=ticks, yaxis={"zeroline": False}, hovermode="closest")
    layout["margin"]["t"] = 14
    return figure_of(data, layout)


def differences(c: Comparison) -> Figure:
    """Each pair's difference with its interval; the strip about zero is the noise floor."""
    known = [p for p in c.pairs if p.difference is not None]
    labels = [f"{p.first} − {p.second}" for p in known]
    points: dict[str, Any] = {
        "x": finite_values(p.difference for p in known if p.difference is not None),
        "y": labels,
        "mode": "markers",
        "name": "difference",
        "marker": {"size": 10, "color": [_verdict_color(p.verdict) for p in known]},
        "text": [p.verdict for p in known],
        "hovertemplate": "%{y}: %{x}<br>%{text}<extra></extra>",
        "showlegend": False,
    }
    if any(p.interval is not None for p in known):
        halves = [0.0 if p.interval is None else (p.interval.high - p.interval.low) / 2 for p in known]
        points["error_x"] = {
            "type": "data",
            "array": finite_values(halves),
            "thickness": 2,
            "width": 6,
            "color": "#8a8d91",
        }
    layout = layout_of(f"difference in {c.metric}", "", yaxis={"autorange": "reversed", "type": "category"})
    layout["xaxis"]["zeroline"] = True
    layout["margin"]["t"] = 14
    if c.noise is not None:
        strip = {"type": "rect", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below", "line": {"width": 0}}
        shape = {**strip, "x0": -c.noise.spread, "x1": c.noise.spread, "fillcolor": "rgba(138,141,145,0.18)"}
        layout["shapes"] = [shape]
    return figure_of([points], layout)


def _verdict_color(verdict: str) -> str:
    return {"better": COLORS[2], "worse": "#c8442c"}.get(verdict, "#8a8d91")


def importance(importances: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """Bars for each parameter, grouped by sampler (sampler -> parameter -> share); None if no sampler has any."""
    names = list(dict.fromkeys(name for shares in importances.values() for name in shares))
    if not names:
        return None
    data = []
    for i, (name, shares) in enumerate(importances.items()):
        if shares:
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": name,
                    "y": names,
                    "x": finite_values(shares.get(parameter, 0.0) for parameter in names),
                    "marker": {"color": COLORS[i % len(COLORS)]},
                }
            )
    layout = layout_of("share of importance", "", yaxis={"autorange": "reversed", "type": "category"}, barmode="group")
    layout["xaxis"]["tickformat"] = ".0%"
    return figure_of(data, layout)


def critical_difference(t: TaskComparison) -> Figure:
    """Demšar's diagram: average ranks on a line; from five tasks on, bars over ranks that do not differ."""
    names = list(t.ranks)
    data: list[dict[str, Any]] = [
        {
            "x": [t.ranks[name] for name in names],
            "y": [0.0] * len(names),
            "mode": "markers+text",
            "text": names,
            "textposition": ["top center" if i % 2 == 0 else "bottom center" for i in range(len(names))],
            "marker": {"size": 12, "color": [COLORS[i % len(COLORS)] for i in range(len(names))]},
            "showlegend": False,
            "name": "average rank",
        }
    ]
    for level, group in enumerate(t.groups):
        ends = [t.ranks[group[0]] - 0.04, t.ranks[group[-1]] + 0.04]
        bar = {"x": ends, "y": [-0.5 - 0.2 * level] * 2, "mode": "lines", "line": {"width": 6, "color": "#8a8d91"}}
        data.append({**bar, "showlegend": False, "name": "no significant difference"})
    layout = layout_of("average rank (1 is best)", "", xaxis={"range": [0.7, len(names) + 0.3], "dtick": 1})
    layout["yaxis"] |= {"visible": False, "range": [-0.9 - 0.2 * len(t.groups), 0.8]}
    if t.critical_difference is not None:
        line = {"type": "line", "x0": 1, "x1": 1 + t.critical_difference, "y0": 0.65, "y1": 0.65}
        layout["shapes"] = [{**line, "line": {"width": 2, "color": "#8a8d91"}}]
        label = {"x": 1, "y": 0.65, "text": f"critical difference {t.critical_difference:.2f}", "showarrow": False}
        layout["annotations"] = [{**label, "xanchor": "left", "yanchor": "bottom"}]
    return figure_of(data, layout)


def all_figures(c: Comparison) -> dict[str, Figure]:
    """Every figure of the comparison by its key: :data:`CURVE_KEYS`, ``final``, ``pairs``, ``importance``."""
    found = {key: curves(c, axis, statistic, scale) for key, (axis, statistic, scale) in CURVE_KEYS.items()}
    found |= {"final": final_values(c), "pairs": differences(c)}
    bars = importance(c.importance)
    return found | ({"importance": bars} if bars is not None else {})


def escaped(figure: Figure) -> Figure:
    """The figure with names and texts that plotly does not read as HTML tags; templates of hover texts stay."""
    for trace in figure["data"]:
        for key in ("name", "text", "y", "x"):
            if key in trace:
                trace[key] = _escaped(trace[key])
    layout = figure["layout"]
    for axis in ("xaxis", "yaxis"):
        for part, key in ((layout.get(axis, {}), "ticktext"), (layout.get(axis, {}).get("title", {}), "text")):
            if key in part:
                part[key] = _escaped(part[key])
    for annotation in layout.get("annotations", ()):
        annotation["text"] = _escaped(annotation["text"])
    return figure


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return [_escaped(item) if isinstance(item, str) else item for item in value] if isinstance(value, list) else value
