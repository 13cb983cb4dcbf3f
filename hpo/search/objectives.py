"""One objective or two: their metrics and directions, the Pareto front of two, and the hypervolume that it dominates.

A point dominates another one if it is at least as good in both objectives and better in one; the points that no other
dominates are the Pareto front. The hypervolume is the area that a front dominates up to a reference point.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.trainers.protocol import Direction

Point = tuple[float, float]

REFERENCE = 1.1
"""The reference point lies so many times as far from the front's best values as the front's own worst ones, so that
the ends of the front count too (Ishibuchi et al. 2018, "How to Specify a Reference Point in Hypervolume
Calculation")."""


@dataclass(frozen=True)
class Objective:
    """A metric that is optimized."""

    metric: str
    direction: Direction

    @property
    def sign(self) -> float:
        """Multiplied by it, smaller values are better."""
        return -1.0 if self.direction == "maximize" else 1.0


def objectives_of(content: Mapping[str, Any]) -> tuple[Objective, ...]:
    """The one or two objectives of a stored study file."""
    first = Objective(str(content.get("metric", "value")), _direction(content.get("direction")))
    if content.get("second_metric") is None:
        return (first,)
    return first, Objective(str(content["second_metric"]), _direction(content.get("second_direction")))


def _direction(value: Any) -> Direction:
    return "maximize" if value == "maximize" else "minimize"


def values_of(metrics: Mapping[str, float], objectives: Sequence[Objective]) -> tuple[float | None, float | None]:
    """The values of the first and the second objective; None for both if one is absent or not a number."""
    values = [metrics.get(objective.metric, math.nan) for objective in objectives]
    if any(map(math.isnan, values)):
        return None, None
    return values[0], values[1] if len(values) > 1 else None


def pareto_front(points: Sequence[Point], objectives: Sequence[Objective]) -> list[int]:
    """The places of the points that no other dominates, the best of the first objective first; of equal points the
    earliest."""
    signed = [(objectives[0].sign * a, objectives[1].sign * b) for a, b in points]
    order = sorted(
        (i for i, point in enumerate(signed) if all(map(math.isfinite, point))), key=lambda i: (signed[i], i)
    )
    front, best = [], math.inf
    for i in order:
        if signed[i][1] < best:
            front.append(i)
            best = signed[i][1]
    return front


@dataclass(frozen=True)
class Scale:
    """What makes hypervolumes of one experiment comparable: the best value of each objective and the reference point.

    Attributes:
        best: the best value of each objective on the front.
        reference: the point up to which a front's area counts.
    """

    objectives: tuple[Objective, ...]
    best: Point
    reference: Point

    def hypervolume(self, points: Sequence[Point]) -> float:
        """The dominated area, as a share of the rectangle between the best values and the reference point."""
        return self.volumes(points)[-1] if points else 0.0

    def volumes(self, points: Sequence[Point]) -> list[float]:
        """The hypervolume of the first point, of the first two, and so on."""
        front: list[Point] = []  # in units of the scale, ascending in the first, descending in the second objective
        volumes, volume = [], 0.0
        for point in points:
            scaled = self._scaled(point)
            is_new = scaled is not None and not any(a <= scaled[0] and b <= scaled[1] for a, b in front)
            if scaled is not None and is_new:
                front = sorted([p for p in front if not (scaled[0] <= p[0] and scaled[1] <= p[1])] + [scaled])
                volume = _area(front)
            volumes.append(volume)
        return volumes

    def _scaled(self, point: Point) -> Point | None:
        """0 at the best value, 1 at the reference; None for a point that is no better than the reference."""
        shares = [
            (value - best) / (reference - best) if reference != best else math.inf
            for value, best, reference in zip(point, self.best, self.reference, strict=True)
        ]
        return (shares[0], shares[1]) if all(share < 1 for share in shares) else None


def _area(front: Sequence[Point]) -> float:
    area, above = 0.0, 1.0
    for a, b in front:
        area += (1 - a) * (above - b)
        above = b
    return area


def scale_of(points: Sequence[Point], objectives: Sequence[Objective]) -> Scale | None:
    """The scale of all points of an experiment together; None for no point.

    If the front has one value of an objective only, the worst value of all points gives its width, and 1 if all are
    equal.
    """
    front = [points[i] for i in pareto_front(points, objectives)]
    if not front:
        return None
    ends = []
    for number, objective in enumerate(objectives):
        signed = [objective.sign * point[number] for point in front]
        best, width = min(signed), max(signed) - min(signed)
        if width == 0:
            finite = [objective.sign * p[number] for p in points if math.isfinite(p[number])]
            width = (max(finite) - best) or 1.0
        ends.append((objective.sign * best, objective.sign * (best + REFERENCE * width)))
    return Scale(tuple(objectives), (ends[0][0], ends[1][0]), (ends[0][1], ends[1][1]))
