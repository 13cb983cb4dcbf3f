"""The images that a network gets wrong, as numbers and as one picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from hpo.trainers.classifier.diagnostics.loss import BATCH_SIZE, evaluation_mode
from hpo.trainers.classifier.diagnostics.pictures import INK, PAPER, RED, font

TILE = 112
LABELS = 44
GAP = 12


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
    """A grid with five columns: each image with its true label, and in red the predicted one, written under it.

    Args:
        mistakes: at least one.
        pixels: the images as published, uint8 or floating point in [0, 1]: (len(mistakes), channels, height, width)
            with 1 or 3 channels.
        names: what the labels stand for; the numbers where None.
    """
    if not mistakes or len(mistakes) != len(pixels):
        raise ValueError(f"{len(pixels)} images for {len(mistakes)} mistakes; at least one of each is needed")
    columns = min(5, len(mistakes))
    rows = -(-len(mistakes) // columns)
    width, height = TILE + GAP, TILE + LABELS + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), PAPER)
    for place, (mistake, image) in enumerate(zip(mistakes, pixels, strict=True)):
        left, top = GAP + place % columns * width, GAP + place // columns * height
        sheet.paste(_tile(image), (left, top))
        for line, (word, label, color) in enumerate(
            (("true", mistake.label, INK), ("predicted", mistake.predicted, RED)),
        ):
            text = f"{word} {label if names is None else names[label]}"
            strip = Image.new("RGB", (TILE + GAP - 2, 19), PAPER)
            ImageDraw.Draw(strip).text((0, 0), text, fill=color, font=font(15, text, strip.width))
            sheet.paste(strip, (left, top + TILE + 4 + 19 * line))
    return sheet


def _tile(image: Tensor) -> Image.Image:
    values = image.detach().cpu()
    if values.dtype != torch.uint8:
        values = (values.float().clamp(0, 1) * 255).round().to(torch.uint8)
    array = values.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    # Pixels stay squares: a 28x28 digit is not blurred into something that the network never saw.
    return picture.convert("RGB").resize((TILE, TILE), Image.Resampling.NEAREST)
