"""The gradient noise scale against problems whose gradient and covariance are known."""

import pytest
import torch
from torch import Tensor, nn

from hpo.trainers.classifier.diagnostics.noise import moments, noise_scale


class Mean(nn.Module):
    """Answers its weight whatever the input: with the loss |w - t|^2 / 2 an example's gradient is w - t."""

    def __init__(self, weight: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.expand(len(x), -1)


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1).mean() / 2


def test_the_two_batch_sizes_tell_gradient_and_covariance() -> None:
    # |G|^2 = 5 and tr(S) = 24: at 4 examples 5 + 24 / 4 = 11, at 16 examples 5 + 24 / 16 = 6.5.
    gradient_squared, covariance_trace = moments(11.0, 6.5, 4, 16)
    assert gradient_squared == pytest.approx(5.0)
    assert covariance_trace == pytest.approx(24.0)


def test_known_gradient_covariance() -> None:
    # Targets (+-1, +-2) with mean 0 in all four combinations: G = w = (1, -1), S = diag(1, 4), B = 5 / 2.
    targets = torch.tensor([[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64)
    found = noise_scale(
        Mean([1.0, -1.0]),
        torch.zeros(4, 1),
        targets,
        half_square,
        generator=torch.Generator().manual_seed(0),
        small=2,
        big=16,
        num_batches=2000,
    )
    assert found.gradient_squared == pytest.approx(2.0, rel=0.02)
    assert found.covariance_trace == pytest.approx(5.0, rel=0.02)
    assert found.noise_scale == pytest.approx(2.5, rel=0.03)
    assert found.noise_scale_error is not None
    assert 0.01 < found.noise_scale_error < 0.1
    # |G_B|^2 = 2 + 5 / B
    assert found.small_squared == pytest.approx(4.5, rel=0.02)
    assert found.big_squared == pytest.approx(2.3125, rel=0.02)


def test_linear_regression_with_gaussian_inputs() -> None:
    # y = v . x + e, x ~ N(0, I_3), e ~ N(0, s^2), loss (w . x - y)^2 / 2, d = w - v = (2, 0, 0), s = 1: G = d, and
    # E|g|^2 = E[(d . x - e)^2 |x|^2] = (n + 2) |d|^2 + n s^2 = 23, so tr(S) = 23 - 4 = 19 and B = 4.75.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [0.5], [-1.0]], dtype=torch.float64)
    y = y + torch.randn(200_000, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 0.5, -1.0]]))
    found = noise_scale(model, x, y, half_square, generator=generator, small=10, big=100, num_batches=500)
    assert found.gradient_squared == pytest.approx(4.0, rel=0.03)
    assert found.covariance_trace == pytest.approx(19.0, rel=0.03)
    assert found.noise_scale == pytest.approx(4.75, rel=0.03)
    # Over seeds the estimate spreads by 0.09 about 4.75.
    assert found.noise_scale_error == pytest.approx(0.07, abs=0.02)


def test_no_scale_where_the_noise_drowns_the_gradient() -> None:
    targets = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    drowned = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        found = noise_scale(
            Mean([0.0]), torch.zeros(2, 1), targets, half_square, generator=generator, small=1, big=4, num_batches=50
        )
        drowned.append(found.noise_scale is None)
        assert (found.noise_scale is None) == (found.gradient_squared <= 0)
        assert (found.noise_scale_error is None) == (found.noise_scale is None)
    # At the minimum |G|^2 is 0 and its estimate falls to either side.
    assert 1 <= sum(drowned) <= 7


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = torch.randn(50, 3, generator=torch.Generator().manual_seed(2)), torch.zeros(50, dtype=torch.int64)
    found = [
        noise_scale(
            model, x, y, nn.functional.cross_entropy, generator=torch.Generator().manual_seed(3), small=2, big=8
        )
        for _ in range(2)
    ]
    assert found[0] == found[1]
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("small", "big"), [(0, 4), (4, 4), (4, 10)])
def test_sizes_that_do_not_fit(small: int, big: int) -> None:
    with pytest.raises(ValueError, match=f"large batch \\({big}\\) must be a multiple of the small one \\({small}\\)"):
        noise_scale(
            Mean([0.0]),
            torch.zeros(2, 1),
            torch.zeros(2, 1),
            half_square,
            generator=torch.Generator(),
            small=small,
            big=big,
        )
