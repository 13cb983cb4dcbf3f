"""Effective learning rate, gaps and learning-rate drops of hand-made histories, and shares of weights near zero."""

import pytest
import torch
from torch import nn

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.diagnostics.history import drop_effects, effective_learning_rate, gaps, learning_rate_drops
from hpo.trainers.classifier.diagnostics.weights import near_zero
from hpo.trainers.classifier.schedules import learning_rates


def test_effective_learning_rate_is_the_step_that_a_lasting_gradient_gets() -> None:
    assert effective_learning_rate(0.1, 0.9) == pytest.approx(1.0)
    assert effective_learning_rate(0.1, 0.0) == 0.1
    assert effective_learning_rate(0.001, 0.9, "adam") == 0.001
    # As PyTorch's own SGD: after many steps of gradient 1 each moves the weight by lr / (1 - beta).
    weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.02, momentum=0.8)
    before = 0.0
    for _ in range(200):
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert before - weight.item() == pytest.approx(effective_learning_rate(0.02, 0.8))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"scheduler": "multistep", "milestones": "3/7", "epochs": 10}, [4, 8]),
        ({"scheduler": "multistep", "milestones": (3, 4), "epochs": 10}, [4, 5]),
        ({"scheduler": "multistep", "milestones": (1,), "epochs": 3}, [2]),
        ({"scheduler": "multistep", "milestones": (2,), "epochs": 3}, [3]),
        ({"scheduler": "multistep", "milestones": (4,), "epochs": 8, "warmup_epochs": 2}, [5]),
        ({"scheduler": "step", "step_size": 2, "gamma": 0.5, "epochs": 6}, [3, 5]),
        ({"scheduler": "constant"}, []),
        ({"scheduler": "exponential", "exponential_gamma": 0.5}, []),
        ({"scheduler": "cosine"}, []),
        ({"scheduler": "cosine", "epochs": 3}, []),
        ({"scheduler": "cyclic", "cycle_epochs": 3.0}, []),
        ({"scheduler": "onecycle"}, []),
    ],
)
def test_drops_of_each_schedule(settings: dict[str, object], expected: list[int]) -> None:
    config = ClassifierConfig.model_validate(settings)
    lrs = [learning_rates(epoch, config, 5)[-1] for epoch in range(config.epochs)]
    assert learning_rate_drops(lrs) == expected


def test_what_followed_each_drop() -> None:
    lrs = [0.1, 0.1, 0.01, 0.01, 0.01, 0.001]
    history = [
        {"lr": lr, "train_loss": 1.0 - k / 10, "val_accuracy": 0.5 + k / 100, "seconds": 1.0}
        for k, lr in enumerate(lrs)
    ]
    first, second = drop_effects(history)
    assert (first.epoch, first.lr_before, first.lr_after) == (3, 0.1, 0.01)
    assert first.before == {"train_loss": 0.9, "val_accuracy": 0.51}
    assert first.after == {"train_loss": 0.8, "val_accuracy": 0.52}
    assert first.settled == {"train_loss": 0.6, "val_accuracy": 0.54}
    assert (second.epoch, second.after, second.settled) == (
        6,
        second.settled,
        {"train_loss": 0.5, "val_accuracy": 0.55},
    )
    assert drop_effects([]) == []


def test_gaps_take_the_whole_training_set_where_it_was_measured() -> None:
    epoch = {"train_loss": 0.3, "val_loss": 0.5, "val_accuracy": 0.75}
    assert gaps([epoch]) == {"loss": [pytest.approx(0.2)]}
    whole = epoch | {"train_set_loss": 0.1, "train_set_accuracy": 1.0}
    assert gaps([whole, whole]) == {"loss": [pytest.approx(0.4)] * 2, "accuracy": [0.25, 0.25]}
    assert gaps([]) == {}


def test_shares_of_weights_near_zero() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 5e-4], [-5e-3, 0.5]]))
        model[2].weight.copy_(torch.tensor([[-1e-5, 3.0]]))
        # Biases and normalization are not counted.
        model[0].bias.zero_()
        model[1].weight.zero_()
    first, second, everything = near_zero(model)
    assert (first.name, first.num_weights) == ("Linear 0", 4)
    assert first.near_zero == {"0.0001": 0.25, "0.001": 0.5, "0.01": 0.75}
    assert (second.name, second.near_zero) == ("Linear 2", {"0.0001": 0.5, "0.001": 0.5, "0.01": 0.5})
    assert (everything.name, everything.num_weights) == ("all", 6)
    assert everything.near_zero == pytest.approx({"0.0001": 2 / 6, "0.001": 3 / 6, "0.01": 4 / 6})
    assert everything.mean_absolute == pytest.approx((5e-4 + 5e-3 + 0.5 + 1e-5 + 3.0) / 6, rel=1e-6)
    # Squares: 0.25 and 9 count, the rest is 2.5e-5 in all.
    assert everything.root_mean_square == pytest.approx((9.25002525 / 6) ** 0.5, rel=1e-6)
    assert near_zero(nn.ReLU()) == []
