"""The Pareto front of two objectives as a figure and as a table."""

from typing import Any

from hpo.compare.comparison import Comparison
from hpo.compare.figures import COLORS, SYMBOLS, Figure, figure_of, finite_values, layout_of
from hpo.compare.pareto import FrontPoint, Pareto

MOST_MARKERS = 1_000
LOG_RATIO = 100
"""Values of the second objective that span at least this factor are drawn on a logarithmic axis."""


def front(c: Comparison, pareto: Pareto) -> Figure:
    """Both objectives: every complete trial, and a line through the Pareto front of each sampler."""
    first, second = pareto.objectives
    data: list[dict[str, Any]] = []
    for i, name in enumerate(c.samplers):
        mine = [point for point in pareto.points if point.sampler == name]
        line = sorted(pareto.front_of(name), key=lambda point: point.second)
        if not mine:
            continue
        color, symbol = COLORS[i % len(COLORS)], SYMBOLS[i % len(SYMBOLS)]
        shared: dict[str, Any] = {
            "legendgroup": name,
            "hovertemplate": f"%{{y}}, %{{x}}, trial %{{text}}<extra>{name}</extra>",
        }
        parts: tuple[tuple[list[FrontPoint], dict[str, Any]], ...] = (
            (mine[-MOST_MARKERS:], {"mode": "markers", "opacity": 0.35, "marker": {"size": 5}, "showlegend": False}),
            (line, {"mode": "lines+markers", "line": {"shape": "vh" if second.sign < 0 else "hv"}}),
        )
        for points, more in parts:
            at = {"x": finite_values(p.second for p in points), "y": finite_values(p.first for p in points)}
            marker = {"color": color, "symbol": symbol, **more.pop("marker", {"size": 9})}
            text = [f"{p.repeat}/{p.trial}" for p in points]
            data.append({"name": name, **at, "text": text, "marker": marker, **shared, **more})
            if "line" in data[-1]:
                data[-1]["line"] |= {"color": color, "dash": ("solid", "dash", "dot", "dashdot")[i % 4]}
    seconds = [point.second for point in pareto.points]
    is_wide = min(seconds) > 0 and max(seconds) >= LOG_RATIO * min(seconds)
    axis = {"type": "log" if is_wide else "linear"}
    better = {"minimize": "smaller", "maximize": "larger"}
    layout = layout_of(
        f"{second.metric} ({better[second.direction]} is better)",
        f"{first.metric} ({better[first.direction]} is better)",
        xaxis=axis,
        hovermode="closest",
    )
    return figure_of(data, layout)
