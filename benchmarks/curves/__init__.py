"""Tables of real learning curves: which there are, how one is read, and the configurations that it is made of.

A table is a study file (its search) and a compressed file of curves beside it; ``README.md`` describes the data, and
``python -m benchmarks.curves`` makes it.

Imports inside functions keep the reading of a table free of torch.
"""

import io
import lzma
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.search.parameters import Categorical, Choice, Float, Int
from hpo.search.space import Parameter
from hpo.studyfile.load import load_study_file
from hpo.studyfile.model import StudyFile

FOLDER = Path(__file__).parent
EPOCHS = 27

SIZES = {"digits_mlp": (4000, 3), "mnist_mlp": (2000, 2), "mnist_cnn": (500, 1)}
"""Table -> configurations and seeds of the whole table; the file in the repository may hold the first part of it."""


@dataclass(frozen=True)
class Curves:
    """A table: what every configuration gave after every epoch, from every seed.

    Attributes:
        points: where the configurations lie in the unit cube, shape (configurations, parameters), in the order of the
            study file's space; :func:`configuration_at` makes the values of a point.
        num_correct: validation images that were classified correctly, shape (configurations, seeds, EPOCHS), uint16.
        val_loss: mean cross-entropy over the validation images, of the same shape, float16; inf above 65,504 and nan
            if the training had diverged.
        cpu_seconds: processor time of one epoch, shape (configurations,), float32: that of the pack that trained the
            configuration, divided by the epochs of all its trials.
        num_images: validation images.
    """

    points: NDArray[np.float32]
    num_correct: NDArray[np.uint16]
    val_loss: NDArray[np.float16]
    cpu_seconds: NDArray[np.float32]
    num_images: int

    def __len__(self) -> int:
        return len(self.points)

    @property
    def val_accuracy(self) -> NDArray[np.float64]:
        """In [0, 1]; shape (configurations, seeds, EPOCHS)."""
        return self.num_correct / np.float64(self.num_images)


def study_file(table: str) -> StudyFile:
    """The search that the table is of."""
    return load_study_file(FOLDER / f"{table}.toml")


def file_of(table: str, folder: Path = FOLDER) -> Path:
    """Where the table's curves are."""
    return folder / f"{table}.npz.xz"


def load(table: str, folder: Path = FOLDER) -> Curves:
    """Reads a table.

    Raises:
        FileNotFoundError: if no part of it has been made.
    """
    with np.load(io.BytesIO(lzma.decompress(file_of(table, folder).read_bytes())), allow_pickle=False) as arrays:
        return Curves(
            **{name: arrays[name] for name in arrays.files if name != "num_images"},
            num_images=int(arrays["num_images"]),
        )


def save(table: str, curves: Curves, folder: Path = FOLDER) -> None:
    """Writes a table, in place of the one that is there; a kill leaves the earlier one."""
    memory = io.BytesIO()
    arrays: dict[str, Any] = vars(curves)
    np.savez(memory, **arrays)
    path = file_of(table, folder)
    part = path.with_suffix(".part")
    part.write_bytes(lzma.compress(memory.getvalue(), preset=9))
    os.replace(part, path)


def draw_points(table: str, count: int) -> NDArray[np.float32]:
    """The first ``count`` points of the table's scrambled Sobol sequence; always the same."""
    from scipy.stats import qmc  # type: ignore[import-untyped]

    dimensions = len(study_file(table).space.order)
    drawn = qmc.Sobol(dimensions, scramble=True, rng=0).random_base2(math.ceil(math.log2(count)))[:count]
    return np.asarray(drawn, np.float32)


def configuration_at(file: StudyFile, point: NDArray[np.float32]) -> dict[str, Choice]:
    """The values of the space's parameters at a point of the unit cube."""
    space = file.space
    return {name: _value(space.parameters[name], float(at)) for name, at in zip(space.order, point, strict=True)}


def point_of(file: StudyFile, values: dict[str, Any]) -> NDArray[np.float64]:
    """Where values lie in the unit cube: the middle of all points that have them."""
    space = file.space
    return np.array([_place(space.parameters[name], values[name]) for name in space.order])


def _value(parameter: Parameter, at: float) -> Choice:
    at = min(max(at, 0.0), 1 - 1e-9)
    if isinstance(parameter, Categorical):
        return parameter.choices[int(at * len(parameter.choices))]
    if isinstance(parameter, Float) and parameter.step is not None:
        num = round((parameter.high - parameter.low) / parameter.step) + 1
        return parameter.on_step(parameter.low + parameter.step * int(at * num))
    low, high = _ends(parameter)
    number = low + at * (high - low)
    number = math.exp(number) if parameter.log else number
    if isinstance(parameter, Int):
        return min(max(round(number), parameter.low), parameter.high)
    return float(number)


def _place(parameter: Parameter, value: Any) -> float:
    if isinstance(parameter, Categorical):
        return (parameter.choices.index(value) + 0.5) / len(parameter.choices)
    if isinstance(parameter, Float) and parameter.step is not None:
        num = round((parameter.high - parameter.low) / parameter.step) + 1
        return (round((float(value) - parameter.low) / parameter.step) + 0.5) / num
    low, high = _ends(parameter)
    place: float = (math.log(value) if parameter.log else float(value)) - low
    return min(max(place / (high - low), 0.0), 1.0)


def _ends(parameter: Float | Int) -> tuple[float, float]:
    """The range on the parameter's own scale; a whole number has half a unit on both sides."""
    assert not isinstance(parameter, Categorical)
    half = 0.5 if isinstance(parameter, Int) else 0.0
    low, high = parameter.low - half, parameter.high + half
    return (math.log(low), math.log(high)) if parameter.log else (low, high)
