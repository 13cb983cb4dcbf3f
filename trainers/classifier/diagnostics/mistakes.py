"""The images that a network gets wrong, as numbers and as one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor, nn

from hpo.trainers.classifier.diagnostics.loss import BATCH_SIZE, evaluation_mode
from hpo.trainers.classifier.diagnostics.pictures import DPI, INK, PAPER, RED, rendered

TILE = 168
LABELS = 56
GAP = 18
"""Pixels of an image, of the two lines under it, and between two of them."""


@dataclass(frozen=True)
class Mistake:
    """An image ``index`` of the set with its true label, and the predicted one with the probability it was given."""

    index: int
    label: int
    predicted: int
    probability: float


@dataclass(frozen=True)
class Mistakes:
    """``num_mistakes`` among ``num_images``, and the first of them in the order of :func:`misclassified`."""

    num_images: int
    num_mistakes: int
    shown: list[Mistake]


@torch.no_grad()
def misclassified(model: nn.Module, x: Tensor, y: Tensor, limit: int = 25) -> Mistakes:
    """The ``limit`` most confident mistakes on x (n, ...) with labels y (n,): the surest of the wrong label first."""
    found = []
    with evaluation_mode(model):
        for start in range(0, len(x), BATCH_SIZE):
            labels = y[start : start + BATCH_SIZE]
            logits = model(x[start : start + BATCH_SIZE])
            sure, predicted = logits.softmax(1).max(1)
            # NaN is no prediction: it counts as a mistake of probability 0.
            sure = sure.nan_to_num(0.0)
            for row in (predicted != labels).nonzero().flatten().tolist():
                found.append(Mistake(start + row, int(labels[row]), int(predicted[row]), float(sure[row])))
    found.sort(key=lambda mistake: (-mistake.probability, mistake.index))
    return Mistakes(len(x), len(found), found[:limit])


def mistakes_picture(mistakes: Sequence[Mistake], pixels: Tensor, names: Sequence[str] | None = None) -> Image.Image:
    """A grid with five columns: under each image its true label, and in red the predicted one with its probability.

    Args:
        mistakes: at least one.
        pixels: the images as published, uint8 or floating point in [0, 1]: (len(mistakes), channels, height, width)
            with 1 or 3 channels.
        names: what the labels stand for; the numbers if None.
    """
    if not mistakes or len(mistakes) != len(pixels):
        raise ValueError(f"{len(pixels)} images for {len(mistakes)} mistakes; at least one of each is needed")
    columns = min(5, len(mistakes))
    rows = -(-len(mistakes) // columns)
    width, height = columns * (TILE + GAP) + GAP, rows * (TILE + LABELS + GAP) + GAP
    sheet = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    canvas: Any = FigureCanvasAgg(sheet)
    for place, (mistake, image) in enumerate(zip(mistakes, pixels, strict=True)):
        left, top = GAP + place % columns * (TILE + GAP), GAP + place // columns * (TILE + LABELS + GAP)
        box = (left / width, 1 - (top + TILE) / height, TILE / width, TILE / height)
        # Pixels stay squares: a 28x28 digit is not blurred into something that the network never saw.
        axes = sheet.add_axes(box)
        axes.imshow(_array(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        true, predicted = (
            str(label) if names is None else names[label] for label in (mistake.label, mistake.predicted)
        )
        chance = f" ({100 * mistake.probability:.0f} %)"
        for line, (text, color) in enumerate(((f"true {true}", INK), (f"predicted {predicted}{chance}", RED))):
            at = (left / width, 1 - (top + TILE + 4 + line * LABELS / 2) / height)
            label = sheet.text(*at, text, color=color, fontsize=8, va="top", ha="left")
            _fit(label, canvas)
    return rendered(sheet)


def _fit(label: Text, canvas: Any) -> None:
    """Makes the text smaller, down to a size that can be read, then shorter, until it is as wide as a tile."""
    room, size = TILE + GAP - 4, 8.0
    label.set_fontsize(size)
    while label.get_window_extent(canvas.get_renderer()).width > room:
        if size > 5.5:
            size -= 0.5
            label.set_fontsize(size)
        else:
            label.set_text(f"{label.get_text().removesuffix('…')[:-1]}…")


def _array(image: Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    values = image.detach().cpu()
    if values.dtype != torch.uint8:
        values = (values.float().clamp(0, 1) * 255).round().to(torch.uint8)
    array: np.ndarray[Any, np.dtype[np.uint8]] = values.permute(1, 2, 0).contiguous().numpy()
    return array[:, :, 0] if array.shape[2] == 1 else array
