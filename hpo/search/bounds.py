"""Measured constraints: bounds on metrics that a trainer yields, known only after a trial has been trained.

A trial that violates one is complete and costs budget. It is nobody's best, and samplers learn to avoid it as they
avoid configurations that were refused: :data:`hpo.search.optuna_internals.CONSTRAINT_PREFIX`.
"""

import math
from collections.abc import Mapping
from typing import Any

import pydantic


class Bound(pydantic.BaseModel):
    """The values of a metric that are allowed."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    at_most: float | None = None
    at_least: float | None = None

    @pydantic.model_validator(mode="after")
    def _allows_something(self) -> "Bound":
        if self.at_most is None and self.at_least is None:
            raise ValueError("{} is refused; expected { at_most = … }, { at_least = … } or both")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least = {self.at_least:g} is above at_most = {self.at_most:g}: no value keeps both")
        return self

    def violation(self, value: float) -> float:
        """How far a value is outside, in the metric's unit; 0 or less if it is allowed. NaN is outside by 1."""
        if math.isnan(value):
            return 1.0
        over = -math.inf if self.at_most is None else value - self.at_most
        under = -math.inf if self.at_least is None else self.at_least - value
        return max(-1e300, min(1e300, max(over, under)))

    def __str__(self) -> str:
        parts = {"at most": self.at_most, "at least": self.at_least}
        return " and ".join(f"{words} {limit:g}" for words, limit in parts.items() if limit is not None)


def listed(constraints: Mapping[str, Any] | None) -> str:
    """``num_parameters at most 100000, seconds at most 5``; of bounds or of the tables that a stored file has."""
    bounds = {name: Bound.model_validate(b) for name, b in (constraints or {}).items()}
    return ", ".join(f"{name} {bound}" for name, bound in bounds.items())
