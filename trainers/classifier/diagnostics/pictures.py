"""Draws a simple Plotly figure as PNG with Pillow, for where a picture is shown and no script runs.

Plotly's own way to a PNG starts a browser. This one knows what `figures` uses: lines, markers, grouped bars, heat maps,
linear, logarithmic and category axes, vertical marks, a legend. The paper is white, so it reads on a dark page too.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GRID, RED = "#ffffff", "#30343a", "#e3e5e8", "#c0341d"
SIZE = (760, 440)
# Drawn larger and scaled down, lines come out smooth, which Pillow's are not.
FINE = 3
Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def font(size: int, text: str = "", width: float = math.inf) -> Font:
    """Pillow's own font at ``size`` pixels, or smaller where ``text`` would be wider than ``width``."""
    while size > 6 and _font(size).getlength(text) > width:
        size -= 1
    return _font(size)


class _Axis:
    """Places values on ``pixels`` = (where the low end is, where the high end is)."""

    def __init__(self, spec: Mapping[str, Any], values: Sequence[Any], pixels: tuple[float, float], pad: float) -> None:
        self.log = spec.get("type") == "log"
        self.categories: list[str] = list(dict.fromkeys(values)) if any(isinstance(v, str) for v in values) else []
        self.pixels = pixels
        self.least_step = spec.get("dtick", 0.0)
        if self.categories:
            self.low, self.high = -0.5, len(self.categories) - 0.5
            return
        shown = [self._scaled(v) for v in values if v is not None and (v > 0 or not self.log)] or [0.0, 1.0]
        self.low, self.high = min(shown), max(shown)
        room = (self.high - self.low) * pad or (0.0 if self.high > self.low else abs(self.high) * 0.1 or 1.0)
        self.low, self.high = self.low - room, self.high + room
        if "range" in spec:
            self.low, self.high = spec["range"]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else float(value)

    def place(self, value: Any, shift: float = 0.0) -> float:
        at = self.categories.index(value) + shift if self.categories else self._scaled(value)
        share = (at - self.low) / (self.high - self.low)
        return self.pixels[0] + min(max(share, -1.0), 2.0) * (self.pixels[1] - self.pixels[0])

    def ticks(self, count: int) -> list[tuple[Any, str]]:
        if self.categories:
            return [(name, name) for name in self.categories]
        if self.log and self.high - self.low >= 2.5:
            every = max(1, round((self.high - self.low) / count))
            powers = range(math.ceil(self.low), math.floor(self.high) + 1, every)
            return [(10.0**power, f"{10.0**power:g}") for power in powers]
        if self.log and self.high - self.low > 0.7:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
            return [(v, f"{v:.10g}") for v in values if self.low <= math.log10(v) <= self.high]
        # Less than a decade looks nearly linear, and has no two powers of ten to mark.
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        rough = max((high - low) / count, self.least_step)
        unit = 10 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
        found = [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
        return [(value, f"{value:.10g}") for value in found if value > 0 or not self.log]


def picture(figure: Mapping[str, Any]) -> Image.Image:
    """The figure ``{"data": [...], "layout": {...}}`` on white paper, 760 x 440 pixels."""
    layout, traces = figure["layout"], figure["data"]
    width, height = SIZE[0] * FINE, SIZE[1] * FINE
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    left, right = 78 * FINE, width - (100 if _heat(traces) else 22) * FINE
    pad_x = 0.0 if _heat(traces) else 0.02
    xs = [v for t in traces for v in t["x"]] + [s["x0"] for s in layout.get("shapes", ())]
    ys = [v for t in traces for v in t["y"]] + ([0.0] if any(t.get("type") == "bar" for t in traces) else [])
    x = _Axis(layout["xaxis"], xs, (left, right), pad_x)
    # Names that would be too small beside each other are turned, and get as much room as the longest needs.
    longest = int(max((_font(11 * FINE).getlength(name) for name in x.categories), default=0.0))
    turned = longest > 1.25 * (right - left) / max(1, len(x.categories))
    bottom = min(longest + 42 * FINE, height // 2) if turned else 58 * FINE
    box = (left, 58 * FINE, right, height - bottom)
    y = _Axis(layout["yaxis"], ys, (box[3], box[1]), 0.0 if _heat(traces) else 0.05)
    _frame(sheet, layout, box, x, y, turned)
    bars = [trace for trace in traces if trace.get("type") == "bar"]
    inside = Image.new("RGB", sheet.size, PAPER)
    inside.paste(sheet)
    pen = ImageDraw.Draw(inside)
    for shape in layout.get("shapes", ()):
        at = x.place(shape["x0"])
        for start in range(box[1], box[3], 10 * FINE):
            pen.line([(at, start), (at, start + 5 * FINE)], fill="#8a8d91", width=FINE)
    for trace in traces:
        if trace.get("type") == "heatmap":
            _heatmap(pen, draw, trace, x, y, box)
        elif trace.get("type") == "bar":
            _bars(pen, trace, x, y, bars.index(trace), len(bars))
        else:
            _line(pen, trace, x, y)
    inner = (box[0], box[1], box[2] + 1, box[3] + 1)
    sheet.paste(inside.crop(inner), inner[:2])
    _legend(draw, [trace for trace in traces if trace.get("showlegend", True) and len(traces) > 1], box)
    return sheet.resize(SIZE, Image.Resampling.LANCZOS)


def _heat(traces: Sequence[Mapping[str, Any]]) -> bool:
    return any(trace.get("type") == "heatmap" for trace in traces)


def _frame(sheet: Image.Image, layout: Mapping[str, Any], box: Sequence[int], x: _Axis, y: _Axis, turned: bool) -> None:
    draw = ImageDraw.Draw(sheet)
    small = _font(12 * FINE)
    room = (box[2] - box[0]) / max(1, len(x.categories)) - 4 * FINE if x.categories else math.inf
    labels = font(12 * FINE, max(x.categories, key=small.getlength, default=""), room)
    for value, text in x.ticks(7):
        at = x.place(value)
        if not x.categories:
            draw.line([(at, box[1]), (at, box[3])], fill=GRID, width=FINE)
        if turned:
            name = _upright(text, 11 * FINE)
            sheet.paste(name, (int(at - name.width / 2), box[3] + 6 * FINE))
        else:
            draw.text((at, box[3] + 6 * FINE), text, fill=INK, font=labels, anchor="ma")
    for value, text in y.ticks(6):
        at = y.place(value)
        draw.line([(box[0], at), (box[2], at)], fill=GRID, width=FINE)
        draw.text((box[0] - 7 * FINE, at), text, fill=INK, font=small, anchor="rm")
    title = layout.get("title", {}).get("text", "")
    draw.text((box[0], 8 * FINE), title, fill=INK, font=font(15 * FINE, title, box[2] - box[0]))
    middle = (box[0] + box[2]) / 2
    lowest = sheet.height - 28 * FINE
    draw.text((middle, lowest), layout["xaxis"]["title"]["text"], fill=INK, font=small, anchor="ma")
    label = _upright(layout["yaxis"]["title"]["text"], 12 * FINE)
    sheet.paste(label, (4 * FINE, (box[1] + box[3] - label.height) // 2))


def _upright(text: str, size: int) -> Image.Image:
    """The text, read from below."""
    strip = Image.new("RGB", (max(1, int(_font(size).getlength(text)) + FINE), size + size // 2), PAPER)
    ImageDraw.Draw(strip).text((0, 0), text, fill=INK, font=_font(size))
    return strip.transpose(Image.Transpose.ROTATE_90)


def _line(pen: ImageDraw.ImageDraw, trace: Mapping[str, Any], x: _Axis, y: _Axis) -> None:
    color, mode = _color(trace), trace.get("mode", "lines")
    runs: list[list[tuple[float, float]]] = [[]]
    for a, b in zip(trace["x"], trace["y"], strict=True):
        if a is None or b is None or (x.log and a <= 0) or (y.log and b <= 0):
            runs.append([])
        else:
            runs[-1].append((x.place(a), y.place(b)))
    for run in runs:
        if "lines" in mode and len(run) > 1:
            pen.line(run, fill=color, width=2 * FINE, joint="curve")
        if "markers" in mode or len(run) == 1:
            for a, b in run:
                pen.ellipse((a - 3 * FINE, b - 3 * FINE, a + 3 * FINE, b + 3 * FINE), fill=color)


def _bars(pen: ImageDraw.ImageDraw, trace: Mapping[str, Any], x: _Axis, y: _Axis, index: int, count: int) -> None:
    for name, value in zip(trace["x"], trace["y"], strict=True):
        if value is not None:
            left, right = (x.place(name, -0.4 + 0.8 * k / count) for k in (index, index + 1))
            pen.rectangle((left, y.place(value), right - FINE, y.place(0.0)), fill=_color(trace))


def _heatmap(
    pen: ImageDraw.ImageDraw,
    draw: ImageDraw.ImageDraw,
    trace: Mapping[str, Any],
    x: _Axis,
    y: _Axis,
    box: Sequence[int],
) -> None:
    known = [v for row in trace["z"] for v in row if v is not None] or [0.0]
    low, high = trace.get("zmin", min(known)), trace.get("zmax", max(known))
    for row, bottom, top in zip(trace["z"], trace["y"], trace["y"][1:], strict=False):
        for value, left, right in zip(row, trace["x"], trace["x"][1:], strict=False):
            if value is not None:
                corners = (x.place(left), y.place(top), x.place(right), y.place(bottom))
                pen.rectangle(corners, fill=_shade(trace["colorscale"], (value - low) / ((high - low) or 1.0)))
    if not trace.get("showscale", True):
        return
    left, right = box[2] + 14 * FINE, box[2] + 28 * FINE
    for row_at in range(box[1], box[3]):
        share = (box[3] - row_at) / (box[3] - box[1])
        draw.line([(left, row_at), (right, row_at)], fill=_shade(trace["colorscale"], share))
    for at, value in ((box[3], low), ((box[1] + box[3]) / 2, (low + high) / 2), (box[1], high)):
        draw.text((right + 5 * FINE, at), f"{value:.3g}", fill=INK, font=_font(12 * FINE), anchor="lm")


def _legend(draw: ImageDraw.ImageDraw, traces: Sequence[Mapping[str, Any]], box: Sequence[int]) -> None:
    at = float(box[0])
    for trace in traces:
        draw.rectangle((at, 38 * FINE, at + 14 * FINE, 42 * FINE), fill=_color(trace))
        draw.text((at + 19 * FINE, 40 * FINE), trace["name"], fill=INK, font=_font(12 * FINE), anchor="lm")
        at += (19 + 18) * FINE + _font(12 * FINE).getlength(trace["name"])


def _color(trace: Mapping[str, Any]) -> str:
    color = (trace.get("line") or trace.get("marker") or {}).get("color", INK)
    return str(color)


def _shade(scale: Sequence[tuple[float, str]], share: float) -> Color:
    share = min(max(share, 0.0), 1.0)
    for (a, first), (b, second) in itertools.pairwise(scale):
        if share <= b:
            part = (share - a) / (b - a)
            return tuple(  # type: ignore[return-value]
                round(int(first[k : k + 2], 16) * (1 - part) + int(second[k : k + 2], 16) * part) for k in (1, 3, 5)
            )
    raise ValueError("a colour scale ends at 1")
