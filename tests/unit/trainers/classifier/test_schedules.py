"""Every schedule gives the numbers of its namesake in torch.optim.lr_scheduler, at every step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.schedules import SCHEDULERS, learning_rate, learning_rates

STEPS = 10  # an epoch's
EPOCHS = 12
LR = 0.3

Make = Callable[[torch.optim.Optimizer], Any]


def torch_lrs(make: Make, every: int) -> list[float]:
    """The learning rate of each step of PyTorch's scheduler, which is stepped after every ``every`` steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make(optimizer)
    lrs = []
    for step in range(STEPS * EPOCHS):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < STEPS * EPOCHS:
            scheduler.step()
    return lrs


CASES: dict[str, tuple[dict[str, Any], Make, int]] = {
    "constant": ({}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0), STEPS),
    "step": ({"step_size": 5, "gamma": 0.3}, lambda o: lr_scheduler.StepLR(o, 5, 0.3), STEPS),
    "multistep": (
        {"milestones": [3, 4, 9], "gamma": 0.2},
        lambda o: lr_scheduler.MultiStepLR(o, [3, 4, 9], 0.2),
        STEPS,
    ),
    "exponential": ({"exponential_gamma": 0.8}, lambda o: lr_scheduler.ExponentialLR(o, 0.8), STEPS),
    "cyclic": (
        {"cycle_epochs": 3, "base_factor": 0.1},
        lambda o: lr_scheduler.CyclicLR(o, 0.03, 0.3, step_size_up=15, cycle_momentum=False),
        1,
    ),
    "cosine": (
        {"final_factor": 0.01},
        lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS * EPOCHS, eta_min=0.003),
        1,
    ),
    "onecycle": (
        {"rise_fraction": 0.25, "base_factor": 0.04, "final_factor": 0.001},
        lambda o: lr_scheduler.OneCycleLR(
            o, 0.3, STEPS * EPOCHS, pct_start=0.25, div_factor=25, final_div_factor=40, cycle_momentum=False
        ),
        1,
    ),
}


def config(scheduler: str, **parameters: Any) -> ClassifierConfig:
    return ClassifierConfig.model_validate({"scheduler": scheduler, "lr": LR, "epochs": EPOCHS, **parameters})


def test_every_scheduler_has_a_case() -> None:
    assert set(CASES) == set(SCHEDULERS)


@pytest.mark.parametrize("name", CASES)
def test_equals_torch(name: str) -> None:
    parameters, make, every = CASES[name]
    ours = [learning_rate(step, config(name, **parameters), STEPS) for step in range(STEPS * EPOCHS)]
    assert ours == pytest.approx(torch_lrs(make, every), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["constant", "step", "exponential"])
def test_warm_up_equals_chained_linear_lr(name: str) -> None:
    parameters, make, every = CASES[name]
    warmup = 2 * STEPS
    ramp = torch_lrs(lambda o: lr_scheduler.LinearLR(o, 1 / warmup, total_iters=warmup - 1), 1)
    expected = [r * lr / LR for r, lr in zip(ramp, torch_lrs(make, every), strict=True)]
    ours = [learning_rate(step, config(name, warmup_epochs=2, **parameters), STEPS) for step in range(STEPS * EPOCHS)]
    assert ours == pytest.approx(expected, rel=1e-9)


def test_an_epoch_is_a_slice_of_the_training() -> None:
    cosine = config("cosine")
    epoch = learning_rates(4, cosine, STEPS)
    assert epoch == [learning_rate(step, cosine, STEPS) for step in range(40, 50)]


def test_known_values() -> None:
    assert learning_rates(0, config("cyclic", cycle_epochs=1, base_factor=0), STEPS)[:6] == pytest.approx(
        [0, 0.06, 0.12, 0.18, 0.24, 0.3]
    )
    assert learning_rate(60, config("cosine"), STEPS) == pytest.approx(0.15)


@pytest.mark.parametrize("name", CASES)
def test_one_epoch_of_one_step_is_finite_and_within_lr(name: str) -> None:
    parameters = {key: value for key, value in CASES[name][0].items() if key != "milestones"}
    if name == "multistep":
        parameters["milestones"] = [1]
    tiny = ClassifierConfig.model_validate(
        {"scheduler": name, "lr": LR, "epochs": 2 if name == "multistep" else 1, **parameters}
    )
    assert 0 <= learning_rate(0, tiny, 1) <= LR
