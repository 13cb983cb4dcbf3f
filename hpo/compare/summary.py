"""Final values as a sample: mean and median over repeats or seeds, with their intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpo.compare.stats import CONFIDENCE, Interval, mean_interval, median_interval


@dataclass(frozen=True)
class Summary:
    """A sample of one value for each repeat or seed, with intervals if there are at least two."""

    n: int
    mean: float
    mean_interval: Interval | None
    median: float
    median_interval: Interval | None


def summarize(values: Sequence[float], confidence: float = CONFIDENCE) -> Summary | None:
    """None for no values."""
    if not values:
        return None
    return Summary(
        len(values),
        float(np.mean(values)),
        mean_interval(values, confidence),
        float(np.median(values)),
        median_interval(values, confidence),
    )


def finite(values: Sequence[float | None]) -> list[float]:
    """The values that are finite numbers."""
    return [value for value in values if value is not None and math.isfinite(value)]
