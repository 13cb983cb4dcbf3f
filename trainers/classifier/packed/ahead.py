"""What a pack needs next, made on a thread while it computes: the weights of new trials, the order of the next epochs.

The thread draws from generators of its own, so what it makes is what would be made at the time of need.
"""

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from hpo.trainers.classifier.augment import draw_crops
from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.precision import choose_precision
from hpo.trainers.classifier.randomness import epoch_order, generator, num_steps
from hpo.trainers.classifier.schedules import learning_rates
from hpo.trainers.classifier.training import new_network

T = TypeVar("T")

FEW_IMAGES = 8192
"""An epoch of fewer images is prepared on a CPU when it begins: that takes less than handing it to a thread."""


class Ahead(Generic[T]):
    """Makes things on one thread, at most ``most`` that nobody has asked for yet."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: dict[Hashable, Future[T]] = {}
        self._thread = ThreadPoolExecutor(1, "ahead")

    def prepare(self, key: Hashable, make: Callable[[], T]) -> None:
        """Has ``key`` made; from any thread, does not wait."""
        while len(self._made) >= self._most:
            self._made.pop(next(iter(self._made)), None)
        self._made[key] = self._thread.submit(make)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was prepared for ``key``, or else what ``make`` makes now."""
        made = self._made.pop(key, None)
        return make() if made is None else made.result()


def initial_network(config: ClassifierConfig, seed: int, device: str) -> nn.Module:
    """A trial's network with its initial weights, on the CPU."""
    return new_network(config, seed, "cpu", choose_precision(config, device))


@dataclass(frozen=True)
class EpochPlan:
    """What an epoch reads of the host.

    Attributes:
        order, crops: of `randomness.epoch_order` and `augment.draw_crops`; None if images are not augmented.
        lrs: the learning rate of each step; ``lrs_tensor``: the same.
    """

    order: Tensor
    crops: Tensor | None
    lrs: list[float]
    lrs_tensor: Tensor


def epoch_plan(
    config: ClassifierConfig, seed: int, epoch: int, num_images: int, dtype: torch.dtype, *, pinned: bool
) -> EpochPlan:
    """The plan of epoch ``epoch`` (from 0); in ``pinned`` memory a copy to a GPU does not wait."""
    order, crops = epoch_order(seed, epoch, num_images), None
    if config.augment:
        crops = draw_crops(num_images, generator(seed, "augment", epoch), pad=config.pad, flip=config.flip)
    lrs = learning_rates(epoch, config, num_steps(num_images, config.batch_size))
    tensor = torch.tensor(lrs, dtype=dtype)
    if pinned:
        order, tensor = order.pin_memory(), tensor.pin_memory()
        crops = None if crops is None else crops.pin_memory()
    return EpochPlan(order, crops, lrs, tensor)
