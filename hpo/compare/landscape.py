"""The metric over the two most important hyperparameters: the mean of the trials nearby, where there are any.

A Gaussian kernel over the trials' places in the unit square (logarithmic parameters by their logarithm, choices at even
distances) gives each cell the weighted mean of the complete trials. Cells without a trial nearby stay empty.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpo.compare.figures import COLORS, Figure, layout_of, sentence
from hpo.compare.importance import importance
from hpo.compare.param_axis import ParamAxis, param_axis
from hpo.compare.records import StudyRecord
from hpo.compare.scope import Point, param_names, points, sample
from hpo.compare.stats import Array
from hpo.compare.trial_figures import MOST_POINTS, SCALE, jitter, robust_range

CELLS = 33
WIDTH = 0.06  # of the kernel, as a share of an axis
NEAREST = 0.13  # how far away the nearest trial of a cell may be
FEWEST = 4


def two_parameters(studies: Sequence[StudyRecord]) -> tuple[list[str], str]:
    """The two parameters that are drawn, and in words why those."""
    names = param_names(studies)
    shares = importance(studies)
    if len(shares) >= 2:
        first, second, *_ = shares
        return [
            first,
            second,
        ], f"The two most important: {first} ({shares[first]:.0%}), {second} ({shares[second]:.0%})."
    return names[:2], "The first two of the search space: importance takes 20 complete trials."


def contour(studies: Sequence[StudyRecord]) -> tuple[Figure, str]:
    """The figure and a note on it."""
    names, reason = two_parameters(studies)
    metric, maximize = studies[0].metric, studies[0].maximize
    complete = [p for p in points(studies) if p.is_complete and all(name in p.params for name in names)]
    if len(names) < 2:
        return sentence("The search has one hyperparameter: it is drawn against the metric above"), ""
    if not complete:
        return sentence("No complete trial yet"), ""
    x, y = (param_axis(name, [p.params[name] for p in complete], studies) for name in names)
    scale = robust_range([point.value for point in complete], maximize) or [0.0, 1.0]
    colors = SCALE if maximize else SCALE[::-1]
    coloring = {
        "colorscale": [[i / (len(colors) - 1), color] for i, color in enumerate(colors)],
        "zmin": scale[0],
        "zmax": scale[1],
        "colorbar": {"title": {"text": metric, "side": "right"}, "thickness": 12, "outlinewidth": 0},
    }
    data: list[dict[str, Any]] = []
    if len(complete) >= FEWEST and not (x.choices or y.choices):
        cells = smoothed(complete, x, y)
        data.append(
            {
                "type": "contour",
                "x": [x.at((i + 0.5) / CELLS) for i in range(CELLS)],
                "y": [y.at((i + 0.5) / CELLS) for i in range(CELLS)],
                "z": [[float(f"{v:.5g}") if math.isfinite(v) else None for v in row] for row in cells.tolist()],
                "ncontours": 14,
                "connectgaps": False,
                "line": {"width": 0.5},
                "hovertemplate": f"{metric} about %{{z}}<extra></extra>",
                **coloring,
            }
        )
    data.append(_trials(sample(complete, MOST_POINTS, maximize), x, y, metric, coloring, alone=not data))
    layout = layout_of(x.name, y.name, xaxis=x.plotly(), yaxis=y.plotly(), hovermode="closest", showlegend=False)
    return {"data": data, "layout": layout}, reason


def smoothed(complete: Sequence[Point], x: ParamAxis, y: ParamAxis) -> Array:
    """Weighted means (CELLS rows along y, CELLS columns along x); NaN if no trial is near."""
    places = np.array([[x.place(p.params[x.name]), y.place(p.params[y.name])] for p in complete])
    values = np.array([point.value for point in complete])
    centers = (np.arange(CELLS) + 0.5) / CELLS
    across = (centers[:, None] - places[None, :, 0]) ** 2  # (cells, trials)
    along = (centers[:, None] - places[None, :, 1]) ** 2
    weights_x, weights_y = np.exp(-across / (2 * WIDTH**2)), np.exp(-along / (2 * WIDTH**2))
    total = weights_y @ weights_x.T
    mean = (weights_y * values) @ weights_x.T / np.maximum(total, 1e-300)
    nearest = np.array([(across + row).min(axis=1) for row in along])
    return np.asarray(np.where(nearest <= NEAREST**2, mean, np.nan))


def _trials(
    shown: Sequence[Point], x: ParamAxis, y: ParamAxis, metric: str, coloring: dict[str, Any], alone: bool
) -> dict[str, Any]:
    """The trials as points; coloured by their value if no surface is drawn."""
    marker: dict[str, Any] = {"size": 5, "color": "#fff", "opacity": 0.8, "line": {"width": 1, "color": "#333"}}
    if alone:
        colors = {"cmin": coloring["zmin"], "cmax": coloring["zmax"], "colorscale": coloring["colorscale"]}
        values = [float(f"{point.value:.6g}") for point in shown]
        marker = {"size": 11, "color": values, **colors, "colorbar": coloring["colorbar"], "line": {"width": 0.5}}
        marker["line"] |= {"color": COLORS[5]}
    spread = [jitter(i) for i in range(len(shown))]
    return {
        "x": [x.drawn(p.params[x.name]) + (s if x.choices else 0.0) for p, s in zip(shown, spread, strict=True)],
        "y": [y.drawn(p.params[y.name]) + (s if y.choices else 0.0) for p, s in zip(shown, spread, strict=True)],
        "text": [f"{p.label}: {metric} {p.value:.5g}" for p in shown],
        "hovertemplate": "%{text}<extra></extra>",
        "mode": "markers",
        "name": "trials",
        "marker": marker,
    }
