"""Loss and normalization of packs against PyTorch's own, and their gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpo.trainers.classifier.packed.losses import cross_entropy
from hpo.trainers.classifier.packed.normalization import NormalizedFeatures


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [None, (0.0, 0.1, 0.3)])
def test_cross_entropy_is_pytorchs_with_its_gradient(smoothing: tuple[float, ...] | None) -> None:
    logits = (5 * drawn(3, 4, 7)).requires_grad_()
    y = torch.randint(0, 4, (3, 7), generator=torch.Generator().manual_seed(1))
    weights = drawn(3, 7, seed=2)
    ours = cross_entropy(logits, y, None if smoothing is None else torch.tensor(smoothing, dtype=torch.float64))
    theirs = torch.stack(
        [
            functional.cross_entropy(
                logits[k].t(), y[k], reduction="none", label_smoothing=smoothing[k] if smoothing else 0
            )
            for k in range(3)
        ]
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    ours_gradient, theirs_gradient = (torch.autograd.grad((loss * weights).sum(), logits)[0] for loss in (ours, theirs))
    torch.testing.assert_close(ours_gradient, theirs_gradient, rtol=1e-12, atol=1e-12)


def test_cross_entropy_of_large_logits_is_finite() -> None:
    logits = torch.tensor([[[1e4], [0.0], [-1e4]]], requires_grad=True)
    losses = cross_entropy(logits, torch.tensor([[2]]), torch.tensor([0.1]))
    assert losses.item() == pytest.approx(0.9 * 2e4 + 0.1 * 1e4)
    assert torch.autograd.grad(losses.sum(), logits)[0].flatten().tolist() == pytest.approx(
        [0.1 * 29 / 3, -1 / 30, -28 / 30]
    )


def test_normalization_leaves_rows_of_padding_out() -> None:
    x, weight, bias = (
        drawn(2, 3, 6).requires_grad_(),
        drawn(2, 3, seed=1).requires_grad_(),
        drawn(2, 3, seed=2).requires_grad_(),
    )
    sizes = (6, 4)
    valid = torch.tensor([[float(row < size) for row in range(6)] for size in sizes], dtype=torch.float64)
    y, mean, var = NormalizedFeatures.apply(x, weight, bias, valid, 1e-5)
    coefficients = drawn(2, 3, 6, seed=3) * valid[:, None, :]
    ours = torch.autograd.grad((y * coefficients).sum(), [x, weight, bias])
    for k, size in enumerate(sizes):
        layer = nn.BatchNorm1d(3, momentum=1.0).double()
        with torch.no_grad():
            layer.weight.copy_(weight[k])
            layer.bias.copy_(bias[k])
        own = x[k, :, :size].detach().t().clone().requires_grad_()
        theirs = layer(own)
        torch.testing.assert_close(y[k, :, :size].t(), theirs, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(mean[k], layer.running_mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(var[k] * size / (size - 1), layer.running_var, rtol=1e-10, atol=1e-12)
        gradients = torch.autograd.grad((theirs * coefficients[k, :, :size].t()).sum(), [own, layer.weight, layer.bias])
        torch.testing.assert_close(ours[0][k, :, :size].t(), gradients[0], rtol=1e-9, atol=1e-11)
        assert ours[0][k, :, size:].eq(0).all()
        torch.testing.assert_close(ours[1][k], gradients[1], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(ours[2][k], gradients[2], rtol=1e-9, atol=1e-11)
