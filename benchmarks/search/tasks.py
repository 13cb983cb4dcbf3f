"""What is searched: tables of real learning curves, and synthetic curves. A task is minimized.

The regret of a configuration is 0 for the best one of the task and 1 for the median one and all that are worse, by the
mean of its last epoch over the table's seeds. Without that limit a configuration that converges from one seed and
diverges from the others, of which a table has some, would decide on the mean of all searches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pydantic
from numpy.typing import NDArray

import hpo
from benchmarks import curves
from benchmarks.curves import EPOCHS
from hpo.search.parameters import Categorical
from hpo.search.seeds import derive_seed
from hpo.search.space import Space

Floats = NDArray[np.float64]

DIVERGED = 1e4
"""The loss of an epoch that gave none, on both sides: Optuna fails a trial whose value is nan."""


class Task(Protocol):
    """One search problem.

    Attributes:
        trainer: the trainer's name.
        fixed: the study file's ``[fixed]``.
        space: the search space.
    """

    @property
    def name(self) -> str: ...
    @property
    def trainer(self) -> str: ...
    @property
    def fixed(self) -> Mapping[str, Any]: ...
    @property
    def space(self) -> Space: ...

    def train(self, values: Mapping[str, Any], seed: int) -> tuple[Floats, float]:
        """The metric after each of EPOCHS epochs, to be minimized, and the seconds of an epoch."""

    def regret(self, values: Mapping[str, Any]) -> float: ...


class TableTask:
    """A table of real curves. A configuration has the curve of the nearest one in the table, of one of its seeds.

    Near is Euclidean in the unit cube, each parameter stretched by what it says about the last epoch: with 1,000
    configurations in eight dimensions the nearest one is far away, and a sampler that moves the learning rate must
    meet another curve sooner than one that moves the width.
    """

    trainer = "classifier"

    def __init__(self, table: str, metric: str) -> None:
        self.name = f"{table} {metric}"
        made, file = curves.load(table), curves.study_file(table)
        self.fixed, self.space, self._file = file.fixed, file.space, file
        if metric == "accuracy":
            self._values = 1 - made.val_accuracy
        else:
            self._values = np.nan_to_num(made.val_loss.astype(np.float64), nan=DIVERGED, posinf=DIVERGED)
        self._seconds = made.cpu_seconds
        final = self._values[:, :, -1].mean(axis=1)
        self._regrets = np.minimum((final - final.min()) / (np.median(final) - final.min()), 1.0)
        # The place of the values, not of the point: a table's integers and choices lie in the middle of their cell.
        places = np.array([curves.point_of(file, curves.configuration_at(file, point)) for point in made.points])
        self._stretch = stretches(places, self._regrets, self.space)
        self._places = places * self._stretch

    def nearest(self, values: Mapping[str, Any]) -> int:
        """The number of the table's configuration that stands for the values."""
        place = curves.point_of(self._file, dict(values)) * self._stretch
        apart = (self._places - place) ** 2
        return int(apart.sum(axis=1).argmin())

    def train(self, values: Mapping[str, Any], seed: int) -> tuple[Floats, float]:
        index = self.nearest(values)
        return self._values[index, seed % self._values.shape[1]], float(self._seconds[index])

    def regret(self, values: Mapping[str, Any]) -> float:
        return float(self._regrets[self.nearest(values)])


def stretches(places: Floats, regrets: Floats, space: Space) -> Floats:
    """How far apart the ends of each parameter are to be, so that the nearest configuration predicts a regret best.

    Found by trying, one parameter after the other, factors of 1/4 to 4 on the rank error of leave-one-out nearest
    neighbours; the values of a choice stay apart by at least one length of the cube.
    """
    ranks = regrets.argsort().argsort() / len(regrets)
    some = np.random.default_rng(0).permutation(len(places))[:400]
    choices = [isinstance(space.parameters[name], Categorical) for name in space.order]
    least = np.array([3.0 if choice else 0.05 for choice in choices])
    factors: Floats = np.maximum(1.0, least)

    def error(tried: Floats) -> float:
        stretched = places * tried
        squares = (stretched**2).sum(axis=1)
        apart = squares[some, None] + squares - 2 * stretched[some] @ stretched.T
        apart[np.arange(len(some)), some] = np.inf
        return float(np.abs(ranks[apart.argmin(axis=1)] - ranks[some]).mean())

    best = error(factors)
    for _ in range(3):
        for dimension in range(len(factors)):
            for factor in (0.25, 0.5, 2.0, 4.0):
                tried = factors.copy()
                tried[dimension] = max(tried[dimension] * factor, least[dimension])
                if (found := error(tried)) < best:
                    best, factors = found, tried
    return factors


class SyntheticConfig(hpo.Config):
    """The configuration of a synthetic task."""

    lr: float = pydantic.Field(0.1, gt=0)
    beta: float = pydantic.Field(0.9, ge=0, lt=1)
    width: int = pydantic.Field(64, ge=1)
    weight_decay: float = pydantic.Field(1e-4, gt=0)
    scheduler: str = "constant"
    epochs: int = pydantic.Field(EPOCHS, ge=1)


@hpo.trainer("benchmark-synthetic", metrics={"loss": "minimize"})
def synthetic(config: SyntheticConfig, run: hpo.Run) -> Any:
    """Is only named: the benchmark evaluates the formula itself."""
    yield {"loss": 0.0}


@dataclass(frozen=True)
class SyntheticTask:
    """Curves from a formula: they fall towards a quadratic's value, at a speed that depends on the learning rate.

    ``crossing`` in [0, 1] is how much what converges slowly ends better: at 0 the order of the first epoch is that of
    the last but for noise, at 1 they hardly correlate.
    """

    crossing: float
    trainer = "benchmark-synthetic"

    @property
    def name(self) -> str:
        return f"synthetic {self.crossing:g}"

    @property
    def fixed(self) -> Mapping[str, Any]:
        return {"epochs": EPOCHS}

    @property
    def space(self) -> Space:
        return _synthetic_space()

    def _final(self, values: Mapping[str, Any]) -> float:
        lr, beta = np.log10(values["lr"]), values["beta"]
        width, decay = np.log2(values["width"]), np.log10(values["weight_decay"])
        cosine = values["scheduler"] == "cosine"
        # Momentum and learning rate act through lr / (1 - beta), and a cosine schedule bears a larger one.
        effective = lr - np.log10(1 - beta) - (0.2 if cosine else -0.3)
        return float(0.1 + 0.25 * effective**2 + 0.01 * (8 - width) ** 2 + 0.02 * (decay + 4) ** 2 - 0.05 * cosine)

    def train(self, values: Mapping[str, Any], seed: int) -> tuple[Floats, float]:
        rng = np.random.default_rng(derive_seed("curve", seed, *(repr(v) for v in sorted(map(str, values.items())))))
        final = self._final(values)
        epochs = np.arange(1, EPOCHS + 1)
        fast = np.log10(values["lr"]) + 3  # 0 to 3
        speed = 0.1 + 0.25 * ((1 - self.crossing) * 2.0 + self.crossing * fast)
        late = self.crossing * 0.8 * (values["scheduler"] == "cosine") * (1 - epochs / EPOCHS)
        curve = final + (2.3 - min(final, 2.0)) * np.exp(-speed * epochs) + late * final
        noise = 0.02 * rng.normal(size=EPOCHS) * (0.5 + final) + 0.02 * rng.normal()
        return np.asarray(curve + noise, np.float64), 1.0

    def regret(self, values: Mapping[str, Any]) -> float:
        best, median = _synthetic_ends(self)
        return min((self._final(values) - best) / (median - best), 1.0)


@lru_cache
def _synthetic_space() -> Space:
    return Space.from_table(
        {
            "lr": {"low": 1e-3, "high": 1.0, "log": True},
            "beta": {"low": 0.5, "high": 0.99},
            "width": {"low": 8, "high": 256, "log": True},
            "weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
            "scheduler": {"choices": ["constant", "cosine"]},
        }
    )


@lru_cache
def _synthetic_ends(task: SyntheticTask) -> tuple[float, float]:
    """The lowest and the median value of 20,000 random configurations."""
    import random

    rng = random.Random(0)
    finals = [task._final(task.space.draw(rng)) for _ in range(20_000)]
    return min(finals), float(np.median(finals))


def all_tasks(names: Sequence[str] = ("",)) -> list[Task]:
    """The real tables that are large enough, by accuracy and by loss, and three synthetic ones: those whose names begin
    so."""
    large = [table for table in curves.SIZES if curves.file_of(table).exists() and len(curves.load(table)) >= LEAST]
    real = [(table, metric) for table in large for metric in METRICS]
    chosen = [pair for pair in real if " ".join(pair).startswith(tuple(names))]
    synthetic = [SyntheticTask(crossing) for crossing in (0.0, 0.5, 1.0)]
    return [
        *(_table_task(table, metric) for table, metric in chosen),
        *(task for task in synthetic if task.name.startswith(tuple(names))),
    ]


METRICS = ("accuracy", "loss")
LEAST = 1000
"""A search of 150 trials in a table of fewer configurations would try a good part of them, however it chose."""
_table_task = lru_cache(TableTask)
