"""Learning rates as pure functions of the step.

A schedule is a factor of ``lr``: 1 is the learning rate of the configuration. A step is one optimizer update, counted
from 0 over the whole training, and a time in epochs is ``step / steps_per_epoch``. Nothing is remembered between
steps, so a resumed trial needs no schedule state, and a pack of trials tabulates each one's learning rates up front.
Each formula gives the numbers of its namesake in torch.optim.lr_scheduler; `tests/unit` compares them step by step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Factor = Callable[[int, Any, int], float]


@dataclass(frozen=True)
class Schedule:
    """One row of the table: ``factor(step, config, steps_per_epoch)`` and the parameters that it reads."""

    factor: Factor
    description: str
    parameters: tuple[str, ...] = ()


def constant(step: int, config: Any, steps_per_epoch: int) -> float:
    return 1.0


def step_decay(step: int, config: Any, steps_per_epoch: int) -> float:
    """StepLR, stepped once an epoch."""
    result: float = config.gamma ** (step // steps_per_epoch // config.step_size)
    return result


def multistep(step: int, config: Any, steps_per_epoch: int) -> float:
    """MultiStepLR, stepped once an epoch."""
    epoch = step // steps_per_epoch
    result: float = config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    return result


def exponential(step: int, config: Any, steps_per_epoch: int) -> float:
    """ExponentialLR, stepped once an epoch."""
    result: float = config.exponential_gamma ** (step // steps_per_epoch)
    return result


def cyclic(step: int, config: Any, steps_per_epoch: int) -> float:
    """CyclicLR, mode triangular, stepped every step: from ``base_factor`` up to 1 and back in ``cycle_epochs``."""
    half = max(1, round(config.cycle_epochs * steps_per_epoch / 2))
    cycle = math.floor(1 + step / (2 * half))
    height = max(0.0, 1 - abs(step / half - 2 * cycle + 1))
    result: float = config.base_factor + (1 - config.base_factor) * height
    return result


def cosine(step: int, config: Any, steps_per_epoch: int) -> float:
    """CosineAnnealingLR, stepped every step: half a cosine from 1 to ``final_factor`` over the whole training."""
    result: float = config.final_factor + (1 - config.final_factor) * _half_cosine(
        step / (config.epochs * steps_per_epoch)
    )
    return result


def onecycle(step: int, config: Any, steps_per_epoch: int) -> float:
    """OneCycleLR, stepped every step (Smith and Topin 2017).

    Half a cosine from ``base_factor`` up to 1 over the first ``rise_fraction`` of the training, then one down to
    ``final_factor``. The momentum stays where it is.
    """
    last = config.epochs * steps_per_epoch - 1
    peak = config.rise_fraction * (last + 1) - 1
    if step <= peak:
        rising: float = 1 + (config.base_factor - 1) * _half_cosine(step / peak if peak > 0 else 1.0)
        return rising
    result: float = config.final_factor + (1 - config.final_factor) * _half_cosine(
        (step - peak) / max(last - peak, 1e-12)
    )
    return result


def _half_cosine(progress: float) -> float:
    """1 at progress 0, 0 at progress 1."""
    return (1 + math.cos(math.pi * progress)) / 2


SCHEDULERS: dict[str, Schedule] = {
    "constant": Schedule(constant, "lr throughout"),
    "step": Schedule(step_decay, "lr times gamma every step_size epochs", ("step_size", "gamma")),
    "multistep": Schedule(multistep, "lr times gamma at each milestone (an epoch)", ("milestones", "gamma")),
    "exponential": Schedule(exponential, "lr times exponential_gamma every epoch", ("exponential_gamma",)),
    "cyclic": Schedule(
        cyclic, "lr times base_factor up to lr and back in cycle_epochs epochs", ("cycle_epochs", "base_factor")
    ),
    "cosine": Schedule(cosine, "half a cosine from lr down to lr times final_factor", ("final_factor",)),
    "onecycle": Schedule(
        onecycle,
        "from lr times base_factor up to lr, then down to lr times final_factor",
        ("rise_fraction", "base_factor", "final_factor"),
    ),
}


def learning_rate(step: int, config: Any, steps_per_epoch: int) -> float:
    """The learning rate of update ``step`` (from 0).

    Warm-up is a further factor, linear over the first ``warmup_epochs``: (step + 1) / (steps of the warm-up), as
    LinearLR chained with the schedule. It moves no milestone.
    """
    factor = SCHEDULERS[config.scheduler].factor(step, config, steps_per_epoch)
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        factor *= (step + 1) / warmup
    result: float = config.lr * factor
    return result


def learning_rates(epoch: int, config: Any, steps_per_epoch: int) -> list[float]:
    """The learning rates of the updates of epoch ``epoch`` (from 0), one for each."""
    first = epoch * steps_per_epoch
    return [learning_rate(step, config, steps_per_epoch) for step in range(first, first + steps_per_epoch)]
