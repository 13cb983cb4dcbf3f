"""The misclassified images, and figures drawn without a browser: pixels where they must be."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from plotly.graph_objects import Figure
from torch import nn

from hpo.trainers.classifier.diagnostics import figures
from hpo.trainers.classifier.diagnostics.activations import PatternObserver
from hpo.trainers.classifier.diagnostics.mistakes import GAP, LABELS, TILE, Mistake, misclassified, mistakes_picture
from hpo.trainers.classifier.diagnostics.noise import NoiseScale
from hpo.trainers.classifier.diagnostics.pictures import SIZE, picture
from hpo.trainers.classifier.diagnostics.regions import linear_regions
from hpo.trainers.classifier.diagnostics.sharpness import LossPlane


def test_the_surest_mistakes_come_first() -> None:
    logits = torch.tensor([[0.0, 1.0], [3.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 1.0]])
    found = misclassified(nn.Identity(), logits, torch.tensor([1, 1, 0, 0, 0]))
    assert (found.num_images, found.num_mistakes) == (5, 3)
    assert [(m.index, m.label, m.predicted) for m in found.shown] == [(1, 1, 0), (2, 0, 1), (4, 0, 1)]
    # 1 / (1 + e^-3), 1 / (1 + e^-2), 1 / (1 + e^-1)
    assert [m.probability for m in found.shown] == pytest.approx([0.952574, 0.880797, 0.731059], abs=1e-6)
    assert misclassified(nn.Identity(), logits, torch.tensor([1, 1, 0, 0, 0]), limit=1).num_mistakes == 3
    assert misclassified(nn.Identity(), logits, logits.argmax(1)).shown == []


def test_mistakes_are_counted_over_all_batches() -> None:
    logits = torch.zeros(300, 2)
    logits[:, 0] = 1.0
    logits[290, 0] = 5.0
    found = misclassified(nn.Identity(), logits, torch.ones(300, dtype=torch.int64))
    assert (found.num_mistakes, len(found.shown)) == (300, 25)
    assert [m.index for m in found.shown] == [290, *range(24)]


def test_the_grid_shows_each_image_where_it_belongs() -> None:
    mistakes = [Mistake(k, 3, 7, 0.9) for k in range(25)]
    pixels = torch.linspace(0, 1, 25).view(25, 1, 1, 1).expand(25, 1, 28, 28)
    grid = np.asarray(mistakes_picture(mistakes, pixels))
    assert grid.shape == (5 * (TILE + LABELS + GAP) + GAP, 5 * (TILE + GAP) + GAP, 3)
    for place in (0, 7, 24):
        top = GAP + place // 5 * (TILE + LABELS + GAP)
        left = GAP + place % 5 * (TILE + GAP)
        expected = round(place / 24 * 255)
        assert (abs(grid[top + 2 : top + TILE - 2, left + 2 : left + TILE - 2].astype(int) - expected) <= 1).all()
        # Under it the true label in ink, the predicted one in red.
        below = grid[top + TILE : top + TILE + LABELS, left : left + TILE].astype(int)
        red = (below[:, :, 0] - below[:, :, 2]) > 100
        assert red[LABELS // 2 :].any()
        assert not red[: LABELS // 2].any()
        assert (below[: LABELS // 2].sum(2) < 300).any()


def test_the_grid_takes_few_and_coloured_images_and_names() -> None:
    image = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    image[0, 0], image[1, 2] = 255, 255
    names = ("airplane", "automobile with a name that is far too long for its tile")
    grid = np.asarray(mistakes_picture([Mistake(0, 0, 1, 0.5), Mistake(1, 1, 0, 0.5)], image, names))
    assert grid.shape == (TILE + LABELS + 2 * GAP, 2 * (TILE + GAP) + GAP, 3)
    assert grid[GAP + 5, GAP + 5].tolist() == [255, 0, 0]
    assert grid[GAP + 5, GAP + TILE + GAP + 5].tolist() == [0, 0, 255]
    # The long name does not run over the edge.
    assert (grid[:, -2:] == 255).all()
    with pytest.raises(ValueError, match="0 images for 0 mistakes"):
        mistakes_picture([], torch.zeros(0, 1, 2, 2))


def _near(image: Image.Image, color: str, box: tuple[int, int, int, int]) -> int:
    """Pixels of the box, given for a picture of 760 x 440, that have about this colour."""
    box = tuple(round(edge * SIZE[0] / 760) for edge in box)  # type: ignore[assignment]
    wanted = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)])
    return int((np.abs(np.asarray(image.crop(box)).astype(int) - wanted).sum(2) < 40).sum())


def history(epochs: int = 8) -> list[dict[str, float]]:
    return [
        {
            "train_loss": 1 / (k + 1),
            "train_set_loss": 0.9 / (k + 1),
            "train_set_accuracy": 1 - 0.5 / (k + 1),
            "val_loss": 1.2 / (k + 1),
            "val_accuracy": 0.9 - 0.5 / (k + 1),
            "lr": 0.1 if k < 4 else 0.01,
            "grad_norm": 2.0 / (k + 1),
        }
        for k in range(epochs)
    ]


def every_figure() -> dict[str, figures.Figure]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 2))
    observer = PatternObserver(torch.linspace(-2, 2, 50)[:, None])
    observer.num_units = 10
    observer.distances, observer.largest = [k % 7 / 7 for k in range(100_000)], [k % 3 for k in range(100_000)]
    steps = [-1.0, 0.0, 1.0]
    plane = LossPlane(
        steps, [2.0, 1.0, 3.0], [4.0, 1.0, float("nan")], [[5.0, 4.0, 6.0], [2.0, 1.0, 3.0], [3.0, 2.0, 4.0]], 1
    )
    return {
        **figures.history_figures(history(), 0.9, "sgd"),
        "noise": figures.noise_figure(NoiseScale(None, None, -0.1, 5.0, 16, 256, 0.3, 0.01, 8)),
        **figures.plane_figures(plane),
        **figures.region_figures(linear_regions(model, -2.0, 2.0)),
        "hamming": figures.hamming_figure(observer),
    }


@pytest.mark.parametrize("name", every_figure())
def test_every_figure_is_valid_small_and_reads_on_light_and_dark(name: str) -> None:
    drawn = every_figure()[name]
    text = json.dumps(drawn, allow_nan=False)
    assert len(text) < 200_000
    # Plotly's own check of every name and value.
    Figure(drawn)
    layout = drawn["layout"]
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
    grey = [int(layout["font"]["color"][k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in grey]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # WCAG's contrast against white, and against the dashboard's dark paper (#121212).
    assert 1.05 / (luminance + 0.05) > 3.5
    assert (luminance + 0.05) / (0.006 + 0.05) > 3.5
    image = picture(drawn)
    assert image.size == SIZE
    # Something is drawn between the axes in a colour, which paper, grid and text do not have.
    inside = np.asarray(image.crop((130, 100, 1040, 600))).astype(int)
    assert (inside.max(2) - inside.min(2) > 60).sum() > 100


def test_drops_are_marked_between_epochs() -> None:
    drawn = figures.history_figures(history(), 0.9, "sgd")
    for name in ("loss", "accuracy", "gap", "gradient_norm", "effective_lr"):
        assert [shape["x0"] for shape in drawn[name]["layout"]["shapes"]] == [4.5]
    assert drawn["effective_lr"]["data"][1]["y"] == [1.0] * 4 + [0.1] * 4
    assert drawn["gap"]["data"][1]["y"] == pytest.approx([0.1] * 8)
    assert len(figures.history_figures(history(), 0.9, "adam")["effective_lr"]["data"]) == 1
    assert figures.history_figures([], 0.9, "sgd") == {}


def test_a_line_is_drawn_where_its_values_are() -> None:
    color = figures.COLORS[0]
    trace = {"name": "a", "x": [0, 10], "y": [1.0, 100.0], "mode": "lines+markers", "line": {"color": color}}
    axis = {"title": {"text": "x"}}
    image = picture({"data": [trace], "layout": {"xaxis": axis, "yaxis": axis | {"type": "log"}}})
    # From the lower left to the upper right; on a log axis straight, so nothing in the other corners.
    assert _near(image, color, (78, 300, 200, 382)) > 50
    assert _near(image, color, (600, 58, 738, 150)) > 50
    assert _near(image, color, (78, 58, 400, 200)) == 0
    assert _near(image, color, (450, 250, 738, 382)) == 0


def test_bars_are_as_high_as_their_values() -> None:
    color = figures.COLORS[0]
    trace = {"type": "bar", "name": "a", "x": ["one", "two"], "y": [1.0, 0.25], "marker": {"color": color}}
    axis = {"title": {"text": "layer"}}
    image = picture({"data": [trace], "layout": {"xaxis": axis, "yaxis": axis}})
    left, right = _near(image, color, (0, 0, 408, 440)), _near(image, color, (408, 0, 760, 440))
    assert left / right == pytest.approx(4.0, rel=0.05)


def test_a_heat_map_has_its_rows_from_the_bottom() -> None:
    scale = [(0.0, "#000000"), (1.0, "#ff0000")]
    trace = {"type": "heatmap", "x": [0, 1, 2], "y": [0, 1, 2], "z": [[1, 0], [0, None]], "colorscale": scale}
    axis = {"title": {"text": "x"}}
    image = picture({"data": [trace], "layout": {"xaxis": axis, "yaxis": axis}})
    corners = [image.getpixel(at) for at in ((300, 550), (800, 550), (300, 100), (800, 100))]
    # Bottom left 1, bottom right 0, top left 0, top right unknown: paper.
    assert corners == [(255, 0, 0), (0, 0, 0), (0, 0, 0), (255, 255, 255)]


def test_a_long_series_is_thinned_to_means() -> None:
    observer = PatternObserver(torch.zeros(4, 1))
    observer.num_units, observer.distances, observer.largest = 3, [0.0, 1.0] * 1500, [0, 2] * 1500
    largest, mean = figures.hamming_figure(observer)["data"]
    assert (len(mean["x"]), mean["x"][0], mean["x"][-1]) == (1000, 3.0, 3000.0)
    assert mean["y"][:2] == pytest.approx([1 / 3, 2 / 3], abs=1e-5)
    assert largest["y"][:2] == [2.0, 2.0]


def test_many_long_names_are_turned_and_stay_inside() -> None:
    names = [f"ReLU layer{k}.1.relu #2" for k in range(17)]
    trace = {"type": "bar", "name": "a", "x": names, "y": [1.0] * 17, "marker": {"color": figures.COLORS[0]}}
    axis = {"title": {"text": "layer"}}
    image = picture({"data": [trace], "layout": {"xaxis": axis, "yaxis": axis}})
    few = picture({"data": [trace | {"x": names[:3], "y": [1.0] * 3}], "layout": {"xaxis": axis, "yaxis": axis}})
    low = (100, 340, 738, 385)
    # A few names stand in one line below the bars; turned names need the room of the bars' lower part.
    assert _near(few, figures.COLORS[0], low) > 10_000
    assert _near(image, figures.COLORS[0], low) == 0
    ink = np.asarray(image.crop((200, 545, 1180, 615)).convert("L")) < 110
    assert ink.any(axis=1).mean() > 0.5
    assert 0.1 < ink.any(axis=0).mean() < 0.6


def test_pictures_leave_the_state_of_the_process_alone() -> None:
    """No pyplot: a worker's or a user's own figures are not touched."""
    import subprocess
    import sys

    code = (
        "import sys, hpo.trainers.classifier.diagnostics.run; "
        "from hpo.trainers.classifier.diagnostics.pictures import picture; "
        "axis = {'title': {'text': 'x'}}; "
        "picture({'data': [{'x': [1], 'y': [2]}], 'layout': {'xaxis': axis, 'yaxis': axis}}); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
