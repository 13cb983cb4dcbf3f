"""One trial in a pack."""

import math
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache

from torch import nn

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.networks import build_network
from hpo.trainers.classifier.randomness import num_steps
from hpo.trainers.classifier.training import norm_stride
from hpo.trainers.protocol import Run


@lru_cache(maxsize=512)
def _meta_network(config: ClassifierConfig) -> nn.Module:
    return build_network(config)


@dataclass
class Slot:
    """A trial, its place in the pack and how far it has come; the host knows that without asking the device.

    Attributes:
        position: index along the leading dimension; it changes when slots before it are vacated.
        epochs_done: of the lineage.
        step: updates done in this epoch.
        begun: whether this epoch's order and learning rates are in the tables.
        last_lr: the learning rate of the epoch's last update.
        ended: ended or stopped; the weights are there until the next ``advance``.
    """

    key: Hashable
    config: ClassifierConfig
    run: Run
    position: int
    num_images: int
    epochs_done: int = 0
    step: int = 0
    begun: bool = False
    ended: bool = False
    last_lr: float = math.nan
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.num_steps = num_steps(self.num_images, self.config.batch_size)
        self.stride = norm_stride(self.num_steps)
        self.epochs_done = self.run.start_epoch

    @property
    def network(self) -> nn.Module:
        """The trial's own network on ``meta``: names and true shapes."""
        return _meta_network(self.config)

    @property
    def remaining(self) -> int:
        """Updates to the end of the epoch."""
        return self.num_steps - self.step

    @property
    def finished(self) -> bool:
        return self.epochs_done >= self.config.epochs

    @property
    def num_norms(self) -> int:
        """Steps of an epoch at which the gradient norm is taken."""
        return -(-self.num_steps // self.stride)

    def batch(self, ahead: int = 0) -> int:
        """Images of the update that is ``ahead`` of the next one."""
        return min(self.config.batch_size, self.num_images - (self.step + ahead) * self.config.batch_size)

    @property
    def num_full(self) -> int:
        """How many of the next updates have a whole batch."""
        return self.num_images // self.config.batch_size - self.step
