"""Learning rates as pure functions of the step.

A schedule is a factor of ``lr``: 1 is the learning rate of the configuration. A step is one optimizer update, counted
from 0 over the whole training, and a time in epochs is ``step / steps_per_epoch``. Nothing is remembered between
steps, so a resumed trial needs no schedule state, and a pack of trials tabulates each one's learning rates up front.
Each formula gives the numbers of its namesake in torch.optim.lr_scheduler; `tests/unit` compares them step by step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from hpo.trainers.classifier.base_config import BaseConfig
from hpo.trainers.protocol import Config

# Factors that several schedules read.
Gamma = Annotated[float, Field(gt=0, le=1, description="factor of a drop (step, multistep)")]
BaseFactor = Annotated[float, Field(ge=0, le=1, description="lowest lr as a fraction of lr (cyclic), first (onecycle)")]
FinalFactor = Annotated[float, Field(ge=0, le=1, description="last lr as a fraction of lr (cosine, onecycle)")]


@dataclass(frozen=True)
class Timeline:
    """How long a training is, in updates."""

    steps_per_epoch: int
    num_epochs: int

    @property
    def num_steps(self) -> int:
        return self.steps_per_epoch * self.num_epochs


class ConstantFields(Config):
    pass


def constant(step: int, config: ConstantFields, time: Timeline) -> float:
    return 1.0


class StepFields(Config):
    step_size: int = Field(3, ge=1, description="epochs between drops (step)")
    gamma: Gamma = 0.1


def step_decay(step: int, config: StepFields, time: Timeline) -> float:
    """StepLR, stepped once an epoch."""
    return float(config.gamma ** (step // time.steps_per_epoch // config.step_size))


def _milestones(value: Any) -> Any:
    """``"60/120/160"`` is a list of epochs that a search can choose between."""
    return [part.strip() for part in value.split("/")] if isinstance(value, str) else value


class MultistepFields(Config):
    milestones: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_milestones)] = Field(
        (), description='epochs after which lr drops (multistep), as a list or "60/120/160"'
    )
    gamma: Gamma = 0.1


def multistep(step: int, config: MultistepFields, time: Timeline) -> float:
    """MultiStepLR, stepped once an epoch."""
    epoch = step // time.steps_per_epoch
    return float(config.gamma ** sum(epoch >= milestone for milestone in config.milestones))


class ExponentialFields(Config):
    exponential_gamma: float = Field(0.9, gt=0, le=1, description="factor of every epoch (exponential)")


def exponential(step: int, config: ExponentialFields, time: Timeline) -> float:
    """ExponentialLR, stepped once an epoch."""
    return float(config.exponential_gamma ** (step // time.steps_per_epoch))


class CyclicFields(Config):
    cycle_epochs: float = Field(4.0, gt=0, description="epochs from low to high and back (cyclic)")
    base_factor: BaseFactor = 0.1


def cyclic(step: int, config: CyclicFields, time: Timeline) -> float:
    """CyclicLR, mode triangular, stepped every step: from ``base_factor`` up to 1 and back in ``cycle_epochs``."""
    half = max(1, round(config.cycle_epochs * time.steps_per_epoch / 2))
    cycle = math.floor(1 + step / (2 * half))
    height = max(0.0, 1 - abs(step / half - 2 * cycle + 1))
    return config.base_factor + (1 - config.base_factor) * height


class CosineFields(Config):
    final_factor: FinalFactor = 0.0


def cosine(step: int, config: CosineFields, time: Timeline) -> float:
    """CosineAnnealingLR, stepped every step: half a cosine from 1 to ``final_factor`` over the whole training."""
    return config.final_factor + (1 - config.final_factor) * _half_cosine(step / time.num_steps)


class OneCycleFields(Config):
    rise_fraction: float = Field(0.3, gt=0, lt=1, description="part of the training in which lr rises (onecycle)")
    base_factor: BaseFactor = 0.1
    final_factor: FinalFactor = 0.0


def onecycle(step: int, config: OneCycleFields, time: Timeline) -> float:
    """OneCycleLR, stepped every step (Smith and Topin 2017).

    Half a cosine from ``base_factor`` up to 1 over the first ``rise_fraction`` of the training, then one down to
    ``final_factor``. The momentum stays where it is.
    """
    last = time.num_steps - 1
    peak = config.rise_fraction * (last + 1) - 1
    if step <= peak:
        return 1 + (config.base_factor - 1) * _half_cosine(step / peak if peak > 0 else 1.0)
    return config.final_factor + (1 - config.final_factor) * _half_cosine((step - peak) / max(last - peak, 1e-12))


def _half_cosine(progress: float) -> float:
    """1 at progress 0, 0 at progress 1."""
    return (1 + math.cos(math.pi * progress)) / 2


def _check_multistep(config: Any) -> list[str]:
    late = [milestone for milestone in config.milestones if milestone >= config.epochs]
    wrong = []
    if late:
        wrong.append(f"milestones {late} are not before the last epoch ({config.epochs}), so lr would never drop there")
    if not config.milestones:
        wrong.append("scheduler 'multistep' needs milestones: the epochs after which lr drops")
    if list(config.milestones) != sorted(set(config.milestones)):
        wrong.append(f"milestones {list(config.milestones)} must rise")
    return wrong


@dataclass(frozen=True)
class Schedule:
    """One row of the table.

    Attributes:
        factor: ``factor(step, config, time)``, what ``lr`` is multiplied with at an update.
        fields: the hyperparameters that it reads.
        check: what is wrong with a configuration that names this schedule, as lines.
    """

    factor: Callable[[int, Any, Timeline], float]
    description: str
    fields: type[Config]
    check: Callable[[Any], list[str]] = lambda config: []


SCHEDULERS: dict[str, Schedule] = {
    "constant": Schedule(constant, "lr throughout", ConstantFields),
    "step": Schedule(step_decay, "lr times gamma every step_size epochs", StepFields),
    "multistep": Schedule(
        multistep, "lr times gamma at each milestone (an epoch)", MultistepFields, check=_check_multistep
    ),
    "exponential": Schedule(exponential, "lr times exponential_gamma every epoch", ExponentialFields),
    "cyclic": Schedule(cyclic, "lr times base_factor up to lr and back in cycle_epochs epochs", CyclicFields),
    "cosine": Schedule(cosine, "half a cosine from lr down to lr times final_factor", CosineFields),
    "onecycle": Schedule(
        onecycle, "from lr times base_factor up to lr, then down to lr times final_factor", OneCycleFields
    ),
}


def learning_rate(step: int, config: BaseConfig, steps_per_epoch: int) -> float:
    """The learning rate of update ``step`` (from 0).

    Warm-up is a further factor, linear over the first ``warmup_epochs``: (step + 1) / (steps of the warm-up), as
    LinearLR chained with the schedule. It moves no milestone.
    """
    factor = SCHEDULERS[config.scheduler].factor(step, config, Timeline(steps_per_epoch, config.epochs))
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        factor *= (step + 1) / warmup
    return config.lr * factor


def learning_rates(epoch: int, config: BaseConfig, steps_per_epoch: int) -> list[float]:
    """The learning rates of the updates of epoch ``epoch`` (from 0), one for each."""
    first = epoch * steps_per_epoch
    return [learning_rate(step, config, steps_per_epoch) for step in range(first, first + steps_per_epoch)]
