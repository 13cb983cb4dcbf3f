"""Plotly figures of the diagnostics: plain dictionaries, nothing of plotly is imported.

Transparent paper, and text and grid in a grey that reads on light and on dark. Long series are thinned, so that each
figure stays far below 200 kB.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from hpo.trainers.classifier.diagnostics.activations import Activity, PatternObserver
from hpo.trainers.classifier.diagnostics.history import History, drop_effects, effective_learning_rate, gaps
from hpo.trainers.classifier.diagnostics.noise import NoiseScale
from hpo.trainers.classifier.diagnostics.regions import Regions
from hpo.trainers.classifier.diagnostics.sharpness import Eigenvalue, LossPlane
from hpo.trainers.classifier.diagnostics.weights import LayerWeights

Figure = dict[str, Any]

COLORS = ("#2f7ed8", "#e08214", "#1b9e77", "#d6478f", "#8c6bd6")
TEXT, GRID = "#7d828a", "rgba(125,130,138,0.25)"
HEAT = [(0.0, "#2c3e8c"), (0.35, "#2a8c9a"), (0.7, "#e9b44c"), (1.0, "#d1495b")]
ON_OFF = [(0.0, "#d9dde3"), (1.0, "#2f7ed8")]
MOST_POINTS = 1000


def _figure(title: str, x: str, y: str, data: list[dict[str, Any]], **more: Any) -> Figure:
    axis = {"automargin": True, "gridcolor": GRID, "zerolinecolor": GRID}
    layout = {
        "title": {"text": title},
        "xaxis": {"title": {"text": x}, **axis, **more.pop("xaxis", {})},
        "yaxis": {"title": {"text": y}, **axis, **more.pop("yaxis", {})},
        "font": {"color": TEXT},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 10, "r": 16, "t": 70, "b": 10},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        **more,
    }
    return {"data": data, "layout": layout}


def _short(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in map(float, values)]


def _line(name: str, x: Sequence[float], y: Sequence[float], color: int, mode: str = "lines") -> dict[str, Any]:
    return {"name": name, "x": _short(x), "y": _short(y), "mode": mode, "line": {"color": COLORS[color], "width": 2}}


def _with_error(value: float, error: float) -> str:
    """As many digits as the error allows: its first two."""
    if not (math.isfinite(error) and error > 0):
        return f"{value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:,.{decimals}f} ± {error:,.{decimals}f}"


def _whole(history: History) -> dict[str, Any]:
    """An axis of epochs: a few have no ticks between them."""
    return {"dtick": 1} if len(history) <= 12 else {}


def _epochs(history: History, names: Sequence[str]) -> list[dict[str, Any]]:
    """A line for each metric that the history has."""
    mode = "lines+markers" if len(history) <= 30 else "lines"
    lines: list[dict[str, Any]] = []
    for name in names:
        found = [(k, metrics[name]) for k, metrics in enumerate(history, start=1) if name in metrics]
        if found:
            lines.append(_line(name, [k for k, _ in found], [value for _, value in found], len(lines), mode))
    return lines


def _marks(history: History) -> list[dict[str, Any]]:
    """A dashed vertical line where the learning rate dropped: between the epochs."""
    look = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": TEXT, "width": 1, "dash": "dash"}}
    return [{**look, "x0": drop.epoch - 0.5, "x1": drop.epoch - 0.5} for drop in drop_effects(history)]


def history_figures(history: History, beta: float, optimizer: str) -> dict[str, Figure]:
    """Losses, accuracies, train-validation gap, gradient norm and effective learning rate over epochs."""
    if not history:
        return {}
    marks = _marks(history)
    note = "; dashed: learning-rate drops" if marks else ""
    more: dict[str, Any] = {"shapes": marks, "xaxis": _whole(history)}
    losses = _epochs(history, ("train_loss", "train_set_loss", "val_loss"))
    accuracies = _epochs(history, ("train_set_accuracy", "val_accuracy"))
    norms = _epochs(history, ("grad_norm",))
    epochs = list(range(1, len(history) + 1))
    gap = gaps(history)
    gap_lines = [
        _line(f"{name} gap", epochs, values, k, "lines+markers") for k, (name, values) in enumerate(gap.items())
    ]
    effective = [effective_learning_rate(metrics["lr"], beta, optimizer) for metrics in history]
    rates = [
        _line("lr", epochs, [metrics["lr"] for metrics in history], 0),
        _line("effective lr", epochs, effective, 1),
    ]
    scale = {"type": "log"}
    return {
        "loss": _figure(f"Loss{note}", "epoch", "loss", losses, yaxis=scale, **more),
        "accuracy": _figure(f"Accuracy{note}", "epoch", "accuracy", accuracies, **more),
        "gap": _figure(f"Train-validation gap{note}", "epoch", "gap", gap_lines, **more),
        "gradient_norm": _figure(f"Gradient norm{note}", "epoch", "mean L2 norm", norms, yaxis=scale, **more),
        "effective_lr": _figure(
            f"Learning rate and lr / (1 - beta){note}" if optimizer == "sgd" else f"Learning rate{note}",
            "epoch",
            "learning rate",
            rates if optimizer == "sgd" else rates[:1],
            yaxis=scale if all(metrics["lr"] > 0 for metrics in history) else {},
            **more,
        ),
    }


def noise_figure(noise: NoiseScale) -> Figure:
    """The mean squared gradient norm against the batch size: measured at two, and the line through them."""
    sizes = [2.0**k for k in range(15)]
    expected = [noise.gradient_squared + noise.covariance_trace / size for size in sizes]
    data = [
        _line("|G|^2 + tr(S) / B", sizes, expected, 0),
        _line("measured", [noise.small, noise.big], [noise.small_squared, noise.big_squared], 1, "markers"),
    ]
    scale = "not resolved"
    if noise.noise_scale is not None:
        scale = f"{_with_error(noise.noise_scale, noise.noise_scale_error or 0.0)} examples"
    title = f"Gradient noise scale: {scale}"
    return _figure(
        title, "batch size B", "mean squared gradient norm", data, xaxis={"type": "log"}, yaxis={"type": "log"}
    )


def sharpness_figure(found: Eigenvalue) -> Figure:
    """The estimate of the eigenvalue after each Hessian-vector product."""
    products = list(range(1, len(found.estimates) + 1))
    data = [_line("estimate", products, found.estimates, 0, "lines+markers")]
    end = "" if found.converged else ", not converged"
    title = f"Largest eigenvalue of the Hessian: {_with_error(found.value, found.residual)}{end}"
    return _figure(title, "Hessian-vector products", "estimate", data)


def plane_figures(plane: LossPlane) -> dict[str, Figure]:
    """The loss along the two directions, and in their plane."""
    lines = [
        _line("first direction", plane.steps, plane.first, 0),
        _line("second direction", plane.steps, plane.second, 1),
    ]
    steps = plane.plane_steps
    half = (steps[1] - steps[0]) / 2
    edges = _short([steps[0] - half, *[step + half for step in steps]])
    heat = {
        "type": "heatmap",
        "x": edges,
        "y": edges,
        "z": [_short(math.log10(max(value, 1e-12)) for value in row) for row in plane.plane],
        "colorscale": HEAT,
        "colorbar": {"title": {"text": "log10 loss"}},
    }
    about = "filter-normalized random directions"
    return {
        "loss_lines": _figure(f"Loss along two {about}", "step", "loss", lines, yaxis={"type": "log"}),
        "loss_plane": _figure(f"log10 of the loss in the plane of two {about}", "first", "second", [heat]),
    }


def weights_figure(rows: Sequence[LayerWeights]) -> Figure:
    """Bars for each layer: the share of weights below each threshold."""
    data = [
        {
            "type": "bar",
            "name": f"|w| <= {threshold}",
            "x": [row.name for row in rows],
            "y": _short(row.near_zero[threshold] for row in rows),
            "marker": {"color": COLORS[k]},
        }
        for k, threshold in enumerate(rows[0].near_zero)
    ]
    return _figure("Share of weights near zero", "layer", "share", data, barmode="group", xaxis={"type": "category"})


def activity_figure(activity: Activity) -> Figure:
    """Bars for each ReLU layer: how active its units are, how many are dead or always on."""
    names = [layer.name for layer in activity.layers]
    shares = {
        "active": [layer.share_active for layer in activity.layers],
        "dead": [layer.share_dead for layer in activity.layers],
        "always on": [layer.share_always for layer in activity.layers],
    }
    data = [
        {"type": "bar", "name": name, "x": names, "y": _short(values), "marker": {"color": COLORS[k]}}
        for k, (name, values) in enumerate(shares.items())
    ]
    title = f"ReLU units over {activity.num_inputs} inputs: {activity.num_patterns} different patterns"
    return _figure(title, "layer", "share", data, barmode="group", xaxis={"type": "category"})


def region_figures(found: Regions) -> dict[str, Figure]:
    """The patterns along the interval, a row for each unit; and the network's outputs with its breakpoints."""
    regions = found.regions
    edges = [regions[0].low, *[region.high for region in regions]]
    heat = {
        "type": "heatmap",
        "x": _short(edges),
        "y": [unit + 0.5 for unit in range(found.num_units + 1)],
        "z": [[int(region.pattern[unit]) for region in regions] for unit in range(found.num_units)],
        "colorscale": ON_OFF,
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
    }
    ends = [
        value + slope * (regions[-1].high - regions[-1].low)
        for slope, value in zip(regions[-1].slopes, regions[-1].values, strict=True)
    ]
    lines = [
        _line(
            f"output {k}", edges, [*[region.values[k] for region in regions], ends[k]], k % len(COLORS), "lines+markers"
        )
        for k in range(len(ends))
    ]
    counts = f"{len(regions)} activation regions, {found.num_linear} linear regions"
    return {
        "patterns": _figure(f"Units that are on (blue): {counts}", "input", "unit", [heat], yaxis={"dtick": 1}),
        "regions": _figure(f"Outputs, a dot at each breakpoint: {counts}", "input", "output", lines),
    }


def hamming_figure(observer: PatternObserver) -> Figure:
    """Hamming distance of the patterns before and after each step; of many steps, the means of equal stretches."""
    count = len(observer.distances)
    stride = -(-count // MOST_POINTS)
    stretches = [range(start, min(start + stride, count)) for start in range(0, count, stride)]
    steps = [stretch[-1] + 1 for stretch in stretches]
    mean = [sum(observer.distances[k] for k in stretch) / len(stretch) for stretch in stretches]
    most = [max(observer.largest[k] for k in stretch) for stretch in stretches]
    data = [_line("largest over inputs", steps, most, 1), _line("mean over inputs", steps, mean, 0)]
    title = f"Hamming distance of activation patterns, {len(observer.probe)} inputs, {observer.num_units} units"
    return _figure(title, "step", "units that switched", data, xaxis={"type": "log"})
