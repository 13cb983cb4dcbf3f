"""What a training's own record says: effective learning rate, train-validation gap, learning-rate drops. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

History = Sequence[Mapping[str, float]]
"""The metrics of each epoch, as the classifier yields them."""

DROP = 0.75
"""A drop leaves at most this much of the learning rate."""


@dataclass(frozen=True)
class Drop:
    """A learning-rate drop and what followed.

    ``before`` are the metrics of the last epoch before it, ``after`` of the first one after it, ``settled`` of the
    last one before the next drop, or of the training.
    """

    epoch: int
    lr_before: float
    lr_after: float
    before: dict[str, float]
    after: dict[str, float]
    settled: dict[str, float]


WATCHED = ("train_loss", "train_set_accuracy", "val_loss", "val_accuracy", "grad_norm")


def effective_learning_rate(lr: float, beta: float, optimizer: str = "sgd") -> float:
    """lr / (1 - beta): the step that momentum makes of a lasting gradient, sum over k of lr beta^k.

    For sgd, whose momentum in PyTorch is v <- beta v + g. Adam's is v <- beta v + (1 - beta) g, so its effective
    learning rate is lr itself (Goodfellow et al. 2016, section 8.3.2 for the sum).
    """
    return lr / (1 - beta) if optimizer == "sgd" else lr


def learning_rate_drops(lrs: Sequence[float]) -> list[int]:
    """Epochs (from 1) that are trained at a suddenly lower learning rate than the one before.

    Sudden: at most ``DROP`` of the epoch before's, and level right before or right after. A schedule that falls all
    the time (cosine, exponential) has no drops, nor one that moves up and down.
    """
    drops = []
    for k in range(1, len(lrs)):
        level_before = k < 2 or lrs[k - 1] == lrs[k - 2]
        level_after = k + 1 == len(lrs) or lrs[k + 1] == lrs[k]
        one_sided = k < 2 or k + 1 == len(lrs)
        level = (level_before and level_after) if one_sided else (level_before or level_after)
        if lrs[k] <= DROP * lrs[k - 1] and level:
            drops.append(k + 1)
    return drops


def drop_effects(history: History) -> list[Drop]:
    """Each learning-rate drop with the metrics around it."""
    lrs = [metrics["lr"] for metrics in history]
    drops = learning_rate_drops(lrs)
    found = []
    for epoch, following in pairwise([*drops, len(history) + 1]):
        before, after, settled = (_watched(history[k]) for k in (epoch - 2, epoch - 1, following - 2))
        found.append(Drop(epoch, lrs[epoch - 2], lrs[epoch - 1], before, after, settled))
    return found


def _watched(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in WATCHED if name in metrics}


def gaps(history: History) -> dict[str, list[float]]:
    """The train-validation gap of each epoch: positive where the network is better on what it was trained on.

    ``loss``: val_loss - the loss on the training set; ``accuracy``, in [-1, 1]: train_set_accuracy - val_accuracy. The
    training set's are those after the epoch where ``evaluate_train`` measured them. Otherwise ``loss`` takes the
    running loss, which is that of the network as it was during the epoch, with dropout and augmentation, so the gap
    comes out smaller; and there is no ``accuracy``.
    """
    if not history:
        return {}
    train = "train_set_loss" if all("train_set_loss" in metrics for metrics in history) else "train_loss"
    found = {"loss": [metrics["val_loss"] - metrics[train] for metrics in history]}
    if all("train_set_accuracy" in metrics for metrics in history):
        found["accuracy"] = [metrics["train_set_accuracy"] - metrics["val_accuracy"] for metrics in history]
    return found
