"""Every diagnosis that applies to a trained network, into a folder: numbers, Plotly figures, pictures.

`diagnostics.json` holds the numbers. Each figure is `<name>.plotly.json` and `<name>.png`; the misclassified images are
`mistakes.png`. How many examples a diagnosis looks at follows from the network's cost and the device, so all of
them together take a minute or two: seconds for an MLP, and a ResNet on a CPU gets fewer examples.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.data import Split
from hpo.trainers.classifier.datasets import Part
from hpo.trainers.classifier.diagnostics import figures
from hpo.trainers.classifier.diagnostics.activations import PatternObserver, activity
from hpo.trainers.classifier.diagnostics.history import History, drop_effects, effective_learning_rate, gaps
from hpo.trainers.classifier.diagnostics.loss import forward_flops, mean_loss, threads_for
from hpo.trainers.classifier.diagnostics.mistakes import misclassified, mistakes_picture
from hpo.trainers.classifier.diagnostics.noise import noise_scale
from hpo.trainers.classifier.diagnostics.pictures import picture
from hpo.trainers.classifier.diagnostics.regions import linear_regions
from hpo.trainers.classifier.diagnostics.sharpness import loss_plane, sharpness
from hpo.trainers.classifier.diagnostics.weights import near_zero
from hpo.trainers.classifier.evaluate import evaluate
from hpo.trainers.classifier.randomness import generator

BUDGET = {"cpu": 4e11, "cuda": 4e14}
"""Floating-point operations that one diagnosis may take; on 2 cores 4e11 are 5 to 30 s."""

INTERVAL = (-2.0, 2.0)
"""Where the linear regions of a network that reads one number are looked at (report 5)."""


@dataclass(frozen=True)
class DiagnosisData:
    """What a network is diagnosed on; all on its device and in its dtype.

    Attributes:
        train: the training set, as it was trained on, not augmented.
        held_out: where mistakes are looked for: the validation or the test set.
        part: which of the two.
        pixels: the images of ``held_out`` as published, (n, channels, height, width); None where there are no images.
        scale: the value of ``pixels`` that is white.
        class_names: what the labels stand for; None where the numbers say it.
    """

    train: Split
    held_out: Split
    part: Part
    pixels: Tensor | None = None
    scale: float = 255.0
    class_names: tuple[str, ...] | None = None


class NotApplicable(Exception):
    """The message says why a diagnosis makes no sense for this network; it becomes a line of ``skipped``."""


@dataclass(frozen=True)
class Subject:
    """One trained network with what is known about it; ``observer`` saw its training, or is None."""

    model: nn.Module
    config: ClassifierConfig
    data: DiagnosisData
    history: History
    seed: int
    observer: PatternObserver | None

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss that was trained, without the penalties L1 and L2."""
        return functional.cross_entropy(outputs, targets, label_smoothing=self.config.label_smoothing)

    @cached_property
    def flops(self) -> int:
        return forward_flops(self.model, self.data.train.x)

    @cached_property
    def finite(self) -> bool:
        return math.isfinite(mean_loss(self.model, self.data.train.x[:256], self.data.train.y[:256], self.loss))

    def affordable(self, passes: int, *, least: int, most: int) -> int:
        """How many examples can go through the network ``passes`` times within the budget."""
        device = self.data.train.x.device.type
        return min(most, max(least, int(BUDGET.get(device, BUDGET["cpu"]) / (self.flops * passes))))

    def examples(self, passes: int, *, least: int, most: int) -> int:
        """As :meth:`affordable`, and no more than the training set has."""
        return min(len(self.data.train), self.affordable(passes, least=least, most=most))

    def affordable_part(self, split: Split) -> Split:
        """The first of the set, which are all of it unless the network is dear on this device."""
        count = self.affordable(1, least=1024, most=len(split))
        return Split(split.x[:count], split.y[:count])

    def train_examples(self, count: int) -> tuple[Tensor, Tensor]:
        """The first of the training set, whose order is random."""
        if not self.finite:
            raise NotApplicable("the loss is not finite")
        return self.data.train.x[:count], self.data.train.y[:count]

    def random(self, purpose: int) -> torch.Generator:
        return generator(self.seed, "diagnose", purpose)


Result = tuple[Any, dict[str, figures.Figure | Image.Image]]
"""The numbers of a diagnosis, and its figures by file name."""


def _history(subject: Subject) -> Result:
    if not subject.history:
        raise NotApplicable("no epoch was recorded")
    config, history = subject.config, subject.history
    numbers = {
        "epochs": [dict(metrics) for metrics in history],
        "effective_lr": [effective_learning_rate(m["lr"], config.beta, config.optimizer) for m in history],
        "gap": gaps(history),
        "drops": drop_effects(history),
    }
    return numbers, dict(figures.history_figures(history, config.beta, config.optimizer))


def _accuracy(subject: Subject) -> Result:
    data = subject.data
    train, held_out = subject.affordable_part(data.train), subject.affordable_part(data.held_out)
    (train_loss, train_accuracy), (loss, accuracy) = (evaluate(subject.model, split) for split in (train, held_out))
    numbers = {
        "num_train": len(train),
        "num_held_out": len(held_out),
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "part": data.part,
        "loss": loss,
        "accuracy": accuracy,
        "gap_points": 100 * (train_accuracy - accuracy),
    }
    return numbers, {}


def _noise(subject: Subject) -> Result:
    # A pass forward and one backward cost three forward.
    count = subject.affordable(3, least=1024, most=32768)
    small, big = (16, 256) if count >= 4096 else (8, 64)
    x, y = subject.train_examples(len(subject.data.train))
    found = noise_scale(
        subject.model,
        x,
        y,
        subject.loss,
        generator=subject.random(0),
        small=small,
        big=big,
        num_batches=count // big,
    )
    return found, {"noise": figures.noise_figure(found)}


def _sharpness(subject: Subject) -> Result:
    # A product costs about seven passes forward; most networks need fewer than 50.
    count = subject.examples(7 * 50, least=32, most=2048)
    x, y = subject.train_examples(count)
    found = sharpness(subject.model, x, y, subject.loss, generator=subject.random(1), max_iterations=150)
    return {"num_examples": count, **dataclasses.asdict(found)}, {"sharpness": figures.sharpness_figure(found)}


def _loss_plane(subject: Subject) -> Result:
    half = 10
    fine, coarse = (2 * half + 1) ** 2, (half + 1) ** 2
    count, stride = subject.examples(fine + 4 * half, least=32, most=1024), 1
    if count < 256:
        count, stride = subject.examples(coarse + 4 * half, least=32, most=1024), 2
    x, y = subject.train_examples(count)
    found = loss_plane(subject.model, x, y, subject.loss, generator=subject.random(2), half=half, stride=stride)
    return {"num_examples": count, **dataclasses.asdict(found)}, dict(figures.plane_figures(found))


def _weights(subject: Subject) -> Result:
    rows = near_zero(subject.model)
    return rows, {"weights": figures.weights_figure(rows)}


def _activity(subject: Subject) -> Result:
    found = activity(subject.model, subject.data.held_out.x[: subject.affordable(1, least=32, most=2048)])
    if not found.layers:
        raise NotApplicable("the network has no ReLU units")
    return found, {"activity": figures.activity_figure(found)}


def _regions(subject: Subject) -> Result:
    if subject.data.train.x.shape[1:] != (1,):
        raise NotApplicable("the network reads more than one number")
    if not subject.finite:
        raise NotApplicable("the loss is not finite")
    found = linear_regions(subject.model, *INTERVAL)
    numbers = {
        "num_regions": len(found.regions),
        "num_linear": found.num_linear,
        "breakpoints": found.breakpoints,
        "regions": found.regions,
    }
    return numbers, dict(figures.region_figures(found))


def _hamming(subject: Subject) -> Result:
    observer = subject.observer
    if observer is None or not observer.distances:
        raise NotApplicable("no steps were observed")
    if not observer.num_units:
        raise NotApplicable("the network has no ReLU units")
    steps = len(observer.distances)
    tenth = max(1, steps // 10)
    numbers = {
        "num_inputs": len(observer.probe),
        "num_units": observer.num_units,
        "num_steps": steps,
        "first_step": observer.distances[0],
        "first_tenth": sum(observer.distances[:tenth]) / tenth,
        "last_tenth": sum(observer.distances[-tenth:]) / tenth,
        "largest_first_tenth": max(observer.largest[:tenth]),
        "largest_last_tenth": max(observer.largest[-tenth:]),
        "mean": [round(distance, 4) for distance in observer.distances],
        "largest": observer.largest,
    }
    return numbers, {"hamming": figures.hamming_figure(observer)}


def _mistakes(subject: Subject) -> Result:
    data = subject.data
    looked_at = subject.affordable_part(data.held_out)
    found = misclassified(subject.model, looked_at.x, looked_at.y)
    if data.pixels is None or not found.shown:
        return {"part": data.part, **dataclasses.asdict(found)}, {}
    shown = data.pixels[[mistake.index for mistake in found.shown]].float() / data.scale
    grid = mistakes_picture(found.shown, shown, data.class_names)
    return {"part": data.part, **dataclasses.asdict(found)}, {"mistakes": grid}


@dataclass(frozen=True)
class Diagnosis:
    """One row of the table."""

    find: Callable[[Subject], Result]
    description: str


DIAGNOSES: dict[str, Diagnosis] = {
    "history": Diagnosis(_history, "curves, train-validation gap, effective learning rate, what followed each lr drop"),
    "accuracy": Diagnosis(_accuracy, "loss and accuracy on the training set and the held-out one"),
    "noise": Diagnosis(_noise, "gradient noise scale from two batch sizes (McCandlish et al. 2018)"),
    "sharpness": Diagnosis(_sharpness, "largest eigenvalue of the Hessian of the training loss"),
    "loss_plane": Diagnosis(_loss_plane, "loss along two filter-normalized random directions (Li et al. 2018)"),
    "weights": Diagnosis(_weights, "share of weights near zero in each layer"),
    "activity": Diagnosis(_activity, "how many ReLU units are active, dead or always on"),
    "regions": Diagnosis(_regions, "linear regions of a network that reads one number, with their patterns"),
    "hamming": Diagnosis(_hamming, "Hamming distance of activation patterns from one training step to the next"),
    "mistakes": Diagnosis(_mistakes, "25 misclassified images with true and predicted labels"),
}


def diagnose(
    model: nn.Module,
    config: ClassifierConfig,
    data: DiagnosisData,
    history: History,
    folder: Path,
    *,
    seed: int = 0,
    observer: PatternObserver | None = None,
) -> dict[str, Any]:
    """Computes every row of ``DIAGNOSES`` that applies and writes numbers, figures and pictures into ``folder``.

    Args:
        model: the trained network; it is left as it was.
        history: the metrics of each epoch.
        folder: made where it is absent; files of the same names are replaced.
        seed: what is random in a diagnosis derives from it.
        observer: what watched the training from step to step, if anything did.

    Returns:
        What ``diagnostics.json`` holds: the numbers of each diagnosis by its name; ``skipped``, those that do not
        apply, each with the reason; ``files``, the names of the others in the folder. Numbers that are not finite are
        None.
    """
    subject = Subject(model.eval(), config, data, history, seed, observer)
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Any] = {"network": config.network, "dataset": config.dataset, "seed": seed}
    skipped: dict[str, str] = {}
    files: list[str] = []
    with threads_for(subject.flops):
        for name, diagnosis in DIAGNOSES.items():
            try:
                found, drawn = diagnosis.find(subject)
            except NotApplicable as reason:
                skipped[name] = str(reason)
                continue
            numbers[name] = _plain(found)
            for file, figure in drawn.items():
                files += _write(folder, file, figure)
    numbers |= {"skipped": skipped, "files": files}
    (folder / "diagnostics.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return numbers


def _write(folder: Path, name: str, figure: figures.Figure | Image.Image) -> list[str]:
    """Writes a figure as JSON and PNG, an image as PNG; returns the files' names. Without data there is no figure."""
    if isinstance(figure, Image.Image):
        figure.save(folder / f"{name}.png", optimize=True)
        return [f"{name}.png"]
    if not figure["data"]:
        return []
    text = json.dumps(figure, allow_nan=False, separators=(",", ":"))
    (folder / f"{name}.plotly.json").write_text(text, encoding="utf-8")
    picture(figure).save(folder / f"{name}.png", optimize=True)
    return [f"{name}.plotly.json", f"{name}.png"]


def _plain(value: Any) -> Any:
    """What JSON can hold: dataclasses as dicts, numbers that are not finite as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
