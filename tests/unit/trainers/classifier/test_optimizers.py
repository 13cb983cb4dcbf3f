"""The optimizers, decays and L1 against the formulas written out in plain arithmetic, and against torch.optim."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.optimizers import OPTIMIZERS, build_optimizer, load_optimizer_state, optimizer_state
from hpo.trainers.classifier.regularizers import Dropout, add_l1_gradients, set_dropout_generator

LR, BETA, BETA2, DECAY = 0.1, 0.8, 0.95, 0.01
GRADIENTS = [0.5, -1.0, 2.0, 0.25]


def config(optimizer: str, **parameters: Any) -> ClassifierConfig:
    values = {"optimizer": optimizer, "lr": LR, "beta": BETA, "beta2": BETA2, "weight_decay": DECAY}
    return ClassifierConfig.model_validate(values | parameters)


def path_of(optimizer: str, **parameters: Any) -> list[float]:
    """The weight, 1 at first, after each of GRADIENTS."""
    weight = nn.Parameter(torch.ones((), dtype=torch.float64))
    built = build_optimizer([weight], config(optimizer, **parameters))
    weights = []
    for gradient in GRADIENTS:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        built.step()
        weights.append(weight.item())
    return weights


def sgd_by_hand(nesterov: bool) -> list[float]:
    weight, velocity, weights = 1.0, 0.0, []
    for step, raw in enumerate(GRADIENTS):
        gradient = raw + DECAY * weight
        velocity = gradient if step == 0 else BETA * velocity + gradient
        weight -= LR * (gradient + BETA * velocity if nesterov else velocity)
        weights.append(weight)
    return weights


def adam_by_hand(decoupled: bool) -> list[float]:
    weight, mean, square, weights = 1.0, 0.0, 0.0, []
    for step, raw in enumerate(GRADIENTS, 1):
        gradient = raw if decoupled else raw + DECAY * weight
        if decoupled:
            weight -= LR * DECAY * weight
        mean = BETA * mean + (1 - BETA) * gradient
        square = BETA2 * square + (1 - BETA2) * gradient**2
        weight -= LR * (mean / (1 - BETA**step)) / (math.sqrt(square / (1 - BETA2**step)) + 1e-8)
        weights.append(weight)
    return weights


def test_sgd_with_coupled_decay() -> None:
    assert path_of("sgd") == pytest.approx(sgd_by_hand(False), rel=1e-12)
    assert path_of("sgd")[0] == pytest.approx(1 - 0.1 * 0.51)


def test_sgd_nesterov() -> None:
    assert path_of("sgd", nesterov=True) == pytest.approx(sgd_by_hand(True), rel=1e-12)


def test_adam_with_coupled_decay() -> None:
    assert path_of("adam") == pytest.approx(adam_by_hand(False), rel=1e-12)


def test_adamw_with_decoupled_decay() -> None:
    assert path_of("adamw") == pytest.approx(adam_by_hand(True), rel=1e-12)
    assert path_of("adamw")[0] == pytest.approx(1 - 0.1 * 0.01 - 0.1, abs=1e-8)


@pytest.mark.parametrize(
    ("optimizer", "parameters"),
    [("sgd", {}), ("sgd", {"nesterov": True}), ("sgd", {"beta": 0.0}), ("adam", {}), ("adamw", {})],
)
def test_bits_are_those_of_torch_optim(optimizer: str, parameters: dict[str, Any]) -> None:
    made = config(optimizer, **parameters)
    shapes = [(7, 5), (5,), (3, 2, 3, 3), ()]

    def start() -> list[nn.Parameter]:
        source = torch.Generator().manual_seed(0)
        return [nn.Parameter(torch.randn(shape, generator=source)) for shape in shapes]

    ours, theirs = start(), start()
    common = {"lr": LR, "weight_decay": DECAY, "fused": True}
    reference: torch.optim.Optimizer
    if optimizer == "sgd":
        reference = torch.optim.SGD(theirs, momentum=made.beta, nesterov=bool(parameters.get("nesterov")), **common)
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
        reference = kind(theirs, betas=(BETA, BETA2), **common)
    built = build_optimizer(ours, made)
    source = torch.Generator().manual_seed(1)
    for step in range(6):
        for group in (*built.param_groups, *reference.param_groups):
            group["lr"] = LR / (step + 1)
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            # One parameter has no gradient at first: its memory starts later (torch.optim's fused SGD fails there).
            without = number == 1 and step < 2 and optimizer != "sgd"
            mine.grad = other.grad = None if without else torch.randn(mine.shape, generator=source)
        built.step()
        reference.step()
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
    names = {name for values in reference.state.values() for name in values if values[name] is not None}
    assert {name for values in built.state.values() for name in values} == names
    built.zero_grad()
    assert all(parameter.grad is None for parameter in ours)


def test_a_parameter_may_have_its_first_gradient_late() -> None:
    early, late = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = build_optimizer([early, late], config("sgd", weight_decay=0.0))
    for step in range(3):
        early.grad = torch.ones(3)
        late.grad = torch.ones(3) if step else None
        optimizer.step()
    assert early[0].item() == pytest.approx(1 - LR * (1 + 1.8 + 2.44))
    assert late[0].item() == pytest.approx(1 - LR * (1 + 1.8))


def test_the_table_holds_three() -> None:
    assert set(OPTIMIZERS) == {"sgd", "adam", "adamw"}


def test_l1_is_the_gradient_of_the_sum_of_absolute_weights() -> None:
    torch.manual_seed(0)
    network = nn.Linear(4, 3).double()
    with torch.no_grad():
        network.weight[0, 0] = 0
    x = torch.randn(5, 4, dtype=torch.float64)
    loss = network(x).square().mean()
    penalty = 0.3 * sum(p.abs().sum() for p in network.parameters())
    expected = torch.autograd.grad(loss + penalty, list(network.parameters()), retain_graph=True)
    loss.backward()
    add_l1_gradients(network.parameters(), 0.3)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_state_survives_a_round_trip(name: str) -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(4, 3) for _ in range(4)]

    def run(break_after: int | None, forget: bool = False) -> torch.Tensor:
        weight = nn.Parameter(torch.ones(4, 3))
        optimizer = build_optimizer([weight], config(name))
        for step, gradient in enumerate(gradients):
            if step == break_after:
                saved, state = weight.detach().clone(), optimizer_state(optimizer)
                weight = nn.Parameter(saved)
                optimizer = build_optimizer([weight], config(name))
                if not forget:
                    load_optimizer_state(optimizer, state)
            weight.grad = gradient.clone()
            optimizer.step()
        return weight.detach()

    assert torch.equal(run(None), run(2))
    assert not torch.equal(run(None), run(2, forget=True))


def test_saved_state_does_not_follow_the_optimizer() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = build_optimizer([weight], config("sgd"))
    weight.grad = torch.ones(3)
    optimizer.step()
    saved = optimizer_state(optimizer)[0]["momentum_buffer"]
    before = saved.clone()
    optimizer.step()
    assert torch.equal(saved, before)


class TestDropout:
    def test_zeroes_a_share_and_keeps_the_mean(self) -> None:
        layer = Dropout(0.25)
        layer.generator = torch.Generator().manual_seed(0)
        y = layer(torch.ones(200, 500))
        assert y.unique().tolist() == pytest.approx([0, 4 / 3])
        # 100,000 draws: a standard deviation of 0.0014 about 0.25.
        assert (y == 0).double().mean().item() == pytest.approx(0.25, abs=0.007)

    def test_comes_from_the_trials_generator_alone(self) -> None:
        network = nn.Sequential(Dropout(0.5), nn.Identity(), Dropout(0.5))

        def draw(global_seed: int, seed: int) -> torch.Tensor:
            torch.manual_seed(global_seed)
            assert set_dropout_generator(network, torch.Generator().manual_seed(seed))
            return network(torch.ones(8, 8))

        assert torch.equal(draw(0, 5), draw(1, 5))
        assert not torch.equal(draw(0, 5), draw(0, 6))

    def test_is_the_identity_in_evaluation(self) -> None:
        x = torch.randn(3, 3)
        assert Dropout(0.9).eval()(x) is x
