"""Hessian products, eigenvalues and loss planes against quadratics and hand-made numbers."""

import pytest
import torch
from torch import Tensor, nn

from hpo.trainers.classifier.diagnostics.sharpness import (
    filter_normalized_direction,
    hessian_product,
    largest_eigenvalue,
    loss_plane,
    sharpness,
)


class Quadratic(nn.Module):
    """f(w) = w^T A w / 2, the same for each input: its Hessian is A everywhere."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix
        self.first = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.second = nn.Parameter(torch.ones(len(matrix) - 2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        w = torch.cat([self.first, self.second])
        return (w @ self.matrix @ w / 2).expand(len(x))


def mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean()


def matrix_with(eigenvalues: list[float]) -> Tensor:
    size = len(eigenvalues)
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    return rotation @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ rotation.T


def test_product_with_a_quadratic_is_its_matrix() -> None:
    matrix = torch.tensor([[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 2.0]], dtype=torch.float64)
    x = torch.zeros(300, 1)
    product = hessian_product(Quadratic(matrix), x, x, mean, torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64))
    # [4 + 2 - 1, 1 + 6 + 2, 0.5 - 2 - 4]
    assert product.tolist() == pytest.approx([5.0, 9.0, -5.5])


@pytest.mark.parametrize(
    ("eigenvalues", "expected"),
    [
        ([7.0, 2.0, 1.0, 0.5], 7.0),
        # The largest in magnitude is negative: the most positive one is asked for.
        ([3.0, 1.0, 0.0, -8.0], 3.0),
        ([-1.0, -2.0, -3.0, -9.0], -1.0),
    ],
)
def test_largest_eigenvalue_of_a_quadratic(eigenvalues: list[float], expected: float) -> None:
    x = torch.zeros(3, 1)
    found = sharpness(
        Quadratic(matrix_with(eigenvalues)),
        x,
        x,
        mean,
        generator=torch.Generator().manual_seed(1),
        max_iterations=500,
        tolerance=1e-5,
    )
    assert found.converged
    assert found.value == pytest.approx(expected, abs=1e-5)
    assert found.residual < 1e-3


def test_says_when_it_has_not_converged() -> None:
    matrix = matrix_with([1.0, 0.999, 0.5])
    start = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    found = largest_eigenvalue(lambda v: matrix @ v, start, max_iterations=2, tolerance=1e-6)
    assert (found.converged, found.num_products) == (False, 2)
    true = torch.tensor([1.0, 0.999, 0.5], dtype=torch.float64)
    assert (true - found.value).abs().min().item() <= found.residual + 1e-12


def test_beside_a_large_negative_eigenvalue_a_vector_of_small_ones_does_not_pass() -> None:
    # As in a network after few steps: nearly all eigenvalues are 0, and so is v . H v of a random vector.
    matrix = torch.zeros(2000, dtype=torch.float64)
    matrix[0], matrix[1], matrix[2] = -5.0, 2.0, 1.0
    start = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = largest_eigenvalue(lambda v: matrix * v, start, max_iterations=100)
    assert found.converged
    assert found.value == pytest.approx(2.0, rel=1e-3)
    assert found.estimates[-1] == found.value
    assert len(found.estimates) < found.num_products
    cut_short = largest_eigenvalue(lambda v: matrix * v, start, max_iterations=12)
    assert not cut_short.converged
    # No positive one at all: the largest is 0, known to a share of the shift.
    none = largest_eigenvalue(lambda v: -matrix.abs() * v, start, max_iterations=200)
    assert none.converged
    assert none.value == pytest.approx(0.0, abs=1e-5)


def test_a_flat_loss_has_eigenvalue_0() -> None:
    found = largest_eigenvalue(lambda v: torch.zeros_like(v), torch.ones(3))
    assert (found.value, found.residual, found.converged) == (0.0, 0.0, True)
    model = nn.Linear(2, 1, dtype=torch.float64)
    x = torch.ones(4, 2, dtype=torch.float64)
    # A loss that is linear in the weights.
    assert hessian_product(model, x, x, mean, torch.ones(3, dtype=torch.float64)).tolist() == [0.0, 0.0, 0.0]


def test_network_equals_the_hessian_built_whole() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Linear(4, 3)).double().train()
    generator = torch.Generator().manual_seed(1)
    # More than one batch of products.
    x = torch.randn(150, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (150,), generator=generator)
    names = [name for name, _ in model.named_parameters()]
    shapes = [parameter.shape for parameter in model.parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]

    def value(flat: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        outputs = torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (x,))
        return nn.functional.cross_entropy(outputs, y)

    flat = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    model.eval()
    whole = torch.autograd.functional.hessian(value, flat)
    model.train()
    found = sharpness(
        model,
        x,
        y,
        nn.functional.cross_entropy,
        generator=torch.Generator().manual_seed(2),
        max_iterations=1000,
        tolerance=1e-5,
    )
    assert found.value == pytest.approx(torch.linalg.eigvalsh(whole)[-1].item(), rel=1e-6)
    assert model.training


def test_filters_of_a_direction_are_as_long_as_the_networks() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    with torch.no_grad():
        model[0].weight[1].zero_()
        model[3].weight[0].fill_(0.5)
        model[3].weight[1].fill_(2.0)
    direction = filter_normalized_direction(model, torch.Generator().manual_seed(0))
    conv = model[0].weight.detach()
    for k in (0, 2):
        assert direction["0.weight"][k].norm().item() == pytest.approx(conv[k].norm().item(), rel=1e-6)
    # A filter of zeros does not move; nor do biases and normalization.
    assert direction["0.weight"][1].abs().max() == 0
    # |(0.5, ...)| = 0.5 sqrt(12), |(2, ...)| = 2 sqrt(12)
    assert direction["3.weight"].norm(dim=1).tolist() == pytest.approx([1.7320508, 6.9282032], rel=1e-6)
    for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
        assert direction[name].abs().max() == 0
    again = filter_normalized_direction(model, torch.Generator().manual_seed(0))
    assert all(torch.equal(direction[name], again[name]) for name in direction)


class Norms(nn.Module):
    """Its output is |W|^2 / 2 of a matrix with one row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight.square().sum() / 2).expand(len(x))


def test_plane_of_a_quadratic() -> None:
    model, x = Norms(), torch.zeros(5, 1)
    generator = torch.Generator().manual_seed(4)
    plane = loss_plane(model, x, x, mean, generator=generator, radius=1.0, half=2, stride=1)
    assert plane.steps == [-1.0, -0.5, 0.0, 0.5, 1.0]
    # |w| = 5 and |d| = 5: the loss at w + a d is 12.5 + a w.d + 12.5 a^2.
    generator = torch.Generator().manual_seed(4)
    first, second = (filter_normalized_direction(model, generator)["weight"] for _ in range(2))
    w = model.weight.detach()
    slopes = [(w * first).sum().item(), (w * second).sum().item(), (first * second).sum().item()]
    assert plane.first == pytest.approx([12.5 + a * slopes[0] + 12.5 * a * a for a in plane.steps])
    assert plane.second == pytest.approx([12.5 + b * slopes[1] + 12.5 * b * b for b in plane.steps])
    corner = 12.5 - slopes[0] + slopes[1] + 25.0 - slopes[2]
    # Rows are steps along the second direction, columns along the first.
    assert plane.plane[4][0] == pytest.approx(corner)
    assert plane.plane[2] == pytest.approx(plane.first)
    assert [row[2] for row in plane.plane] == pytest.approx(plane.second)
    assert model.weight.tolist() == [[3.0, 4.0]]


def test_a_coarser_plane_holds_the_middle() -> None:
    x = torch.zeros(1, 1)
    plane = loss_plane(Norms(), x, x, mean, generator=torch.Generator().manual_seed(0), half=4, stride=2)
    assert plane.plane_steps == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert (len(plane.plane), len(plane.first), plane.plane[2][2]) == (5, 9, 12.5)
    with pytest.raises(ValueError, match="stride \\(3\\) must divide half \\(4\\)"):
        loss_plane(Norms(), x, x, mean, generator=torch.Generator(), half=4, stride=3)
