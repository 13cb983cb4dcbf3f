"""Draws a diagnosis's Plotly figure as a picture with matplotlib, for where a picture is shown and no script runs.

Plotly's own way to a PNG starts a browser. The figures here are those of `figures`: lines, markers, grouped bars, heat
maps, linear, logarithmic and category axes, vertical marks, a legend. The paper is white, so that it reads on a dark
page too. Only matplotlib's Agg canvas is used, never pyplot, whose state is shared by the whole process.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

PAPER, INK, GRID, MARK, RED = "#ffffff", "#30343a", "#e3e5e8", "#8a8d91", "#c0341d"
SIZE = (1216, 704)
DPI = 160
ROUND = [1, 2, 5, 10]
"""Steps between two ticks, times a power of ten."""
MOST_LETTERS = 75
"""Letters of category names that fit beside each other under an axis; more are turned."""


def picture(figure: Mapping[str, Any]) -> Image.Image:
    """The figure ``{"data": [...], "layout": {...}}`` on white paper, 1216 x 704 pixels."""
    layout, traces = figure["layout"], figure["data"]
    sheet = Figure(figsize=(SIZE[0] / DPI, SIZE[1] / DPI), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = sheet.subplots()
    kinds = {trace.get("type", "scatter") for trace in traces}
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MARK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.set_axisbelow(True)
    if "heatmap" not in kinds:
        axes.grid(axis="y" if "bar" in kinds else "both", color=GRID, linewidth=0.8)
    for shape in layout.get("shapes", ()):
        axes.axvline(shape["x0"], color=MARK, linestyle=(0, (4, 4)), linewidth=1)
    _draw(sheet, axes, traces)
    _scale(axes, "x", layout["xaxis"], traces)
    _scale(axes, "y", layout["yaxis"], traces)
    axes.set_xlabel(layout["xaxis"]["title"]["text"], color=INK, fontsize=9)
    axes.set_ylabel(layout["yaxis"]["title"]["text"], color=INK, fontsize=9)
    if len(traces) > 1:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0.2,
            ncols=len(traces),
            frameon=False,
            handlelength=1.4,
            fontsize=9,
            labelcolor=INK,
        )
    if title := layout.get("title", {}).get("text", ""):
        sheet.suptitle(title, x=0.01, ha="left", fontsize=12 if len(title) < 70 else 10, color=INK)
    return rendered(sheet)


def rendered(sheet: Figure) -> Image.Image:
    """The pixels of a matplotlib figure."""
    canvas: Any = FigureCanvasAgg(sheet)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()).copy()).convert("RGB")


def _draw(sheet: Figure, axes: Axes, traces: Sequence[Mapping[str, Any]]) -> None:
    bars = [trace for trace in traces if trace.get("type") == "bar"]
    for trace in traces:
        if trace.get("type") == "heatmap":
            _heatmap(sheet, axes, trace)
        elif trace.get("type") == "bar":
            _bars(axes, trace, bars.index(trace), len(bars))
        else:
            mode = trace.get("mode", "lines")
            axes.plot(
                _numbers(trace["x"]),
                _numbers(trace["y"]),
                color=_color(trace),
                linestyle="-" if "lines" in mode else "none",
                # A value without neighbours would be no line.
                marker="o" if "markers" in mode or len(trace["x"]) == 1 else None,
                linewidth=1.6,
                label=trace.get("name", ""),
            )


def _bars(axes: Axes, trace: Mapping[str, Any], index: int, count: int) -> None:
    names = list(trace["x"])
    width = 0.8 / count
    places = np.arange(len(names)) - 0.4 + (index + 0.5) * width
    axes.bar(places, np.nan_to_num(_numbers(trace["y"])), 0.94 * width, color=_color(trace), label=trace["name"])
    is_long = sum(map(len, names)) > MOST_LETTERS
    axes.set_xticks(range(len(names)), names, rotation=90 if is_long else 0, fontsize=7 if is_long else 9)
    axes.tick_params(axis="x", length=0)


def _heatmap(sheet: Figure, axes: Axes, trace: Mapping[str, Any]) -> None:
    colors = LinearSegmentedColormap.from_list("of the figure", list(trace["colorscale"]))
    values = np.ma.masked_invalid(np.array([_numbers(row) for row in trace["z"]]))
    mesh = axes.pcolormesh(
        _numbers(trace["x"]), _numbers(trace["y"]), values, cmap=colors, vmin=trace.get("zmin"), vmax=trace.get("zmax")
    )
    if trace.get("showscale", True):
        label = trace.get("colorbar", {}).get("title", {}).get("text", "")
        sheet.colorbar(mesh, ax=axes, label=label, pad=0.02).outline.set_visible(False)


def _scale(axes: Axes, name: Literal["x", "y"], spec: Mapping[str, Any], traces: Sequence[Mapping[str, Any]]) -> None:
    """Logarithmic or not, and round numbers at the ticks."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    if spec.get("type") == "category" or any(isinstance(value, str) for trace in traces for value in trace[name]):
        return
    axis.set_major_locator(MaxNLocator(7, steps=ROUND, integer="dtick" in spec))
    positive = [value for trace in traces for value in trace[name] if value is not None and value > 0]
    if spec.get("type") == "log" and positive:
        (axes.set_xscale if name == "x" else axes.set_yscale)("log", nonpositive="mask")
        decades = math.log10(max(positive) / min(positive))
        axis.set_minor_locator(NullLocator())
        if decades > 2.5:
            axis.set_major_locator(LogLocator(numticks=8))
        elif decades > 0.7:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        else:
            # Less than a decade looks nearly linear, and has no two powers of ten to mark.
            axis.set_major_locator(MaxNLocator(6, steps=ROUND))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))


def _numbers(values: Sequence[Any]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _color(trace: Mapping[str, Any]) -> str:
    color = (trace.get("line") or trace.get("marker") or {}).get("color", INK)
    return str(color)
