"""Patterns, their Hamming distance, and linear regions of networks with weights set by hand."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from hpo.trainers.classifier.diagnostics.activations import (
    PatternObserver,
    activation_patterns,
    activity,
    hamming_distances,
)
from hpo.trainers.classifier.diagnostics.regions import linear_regions
from hpo.trainers.classifier.regularizers import Dropout
from hpo.trainers.errors import TrainerError


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float64))
        layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return layer


def three_units() -> nn.Sequential:
    """Units that are on for x > -1, x > 0.5 and x < 1; output relu(x + 1) + 2 relu(x - 0.5) - relu(1 - x)."""
    return nn.Sequential(linear([[1.0], [1.0], [-1.0]], [1.0, -0.5, 1.0]), nn.ReLU(), linear([[1.0, 2.0, -1.0]], [0.0]))


def test_patterns_by_hand() -> None:
    x = torch.tensor([[-1.5], [-1.0], [0.0], [0.75], [1.5]], dtype=torch.float64)
    assert activation_patterns(three_units(), x).int().tolist() == [
        [0, 0, 1],
        # On is above 0: at its breakpoint a unit is off.
        [0, 0, 1],
        [1, 0, 1],
        [1, 1, 1],
        [1, 1, 0],
    ]


def test_regions_by_hand() -> None:
    found = linear_regions(three_units(), -2.0, 2.0)
    assert found.breakpoints == [-1.0, 0.5, 1.0]
    assert [region.pattern for region in found.regions] == ["001", "101", "111", "110"]
    assert [region.slopes for region in found.regions] == [[1.0], [2.0], [4.0], [3.0]]
    # At -2: -(1 + 2) = -3; at -1: -2; at 0.5: 1.5 - 0.5 = 1; at 1: 2 + 1 = 3.
    assert [region.values for region in found.regions] == [[-3.0], [-2.0], [1.0], [3.0]]
    assert (found.num_units, found.num_linear) == (3, 4)
    assert (found.regions[0].low, found.regions[-1].high) == (-2.0, 2.0)


def test_interval_without_a_breakpoint_is_one_region() -> None:
    found = linear_regions(three_units(), -0.75, 0.25)
    assert [region.pattern for region in found.regions] == ["101"]
    # Breakpoints at the very ends cut nothing off.
    assert [region.pattern for region in linear_regions(three_units(), -1.0, 0.5).regions] == ["101"]


def test_a_unit_that_goes_nowhere_makes_no_linear_region() -> None:
    model = three_units()
    with torch.no_grad():
        model[2].weight[0, 1] = 0.0
    found = linear_regions(model, -2.0, 2.0)
    assert (len(found.regions), found.num_linear) == (4, 3)


def test_units_with_the_same_breakpoint_share_it() -> None:
    model = nn.Sequential(
        linear([[1.0], [3.0], [-0.1]], [-0.3, -0.9, 0.03]), nn.ReLU(), linear([[1.0, 1.0, 1.0]], [0.0])
    )
    found = linear_regions(model, -2.0, 2.0)
    assert found.breakpoints == pytest.approx([0.3])
    assert [region.pattern for region in found.regions] == ["001", "110"]


def test_second_layer_folds_the_first() -> None:
    # |x| by two units, then |x| - 1 rectified: a tooth to each side.
    model = nn.Sequential(
        linear([[1.0], [-1.0]], [0.0, 0.0]),
        nn.ReLU(),
        Dropout(0.5),
        nn.Sequential(linear([[1.0, 1.0]], [-1.0]), nn.ReLU()),
        nn.Identity(),
    )
    found = linear_regions(model, -2.0, 2.0)
    assert found.breakpoints == [-1.0, 0.0, 1.0]
    assert [region.pattern for region in found.regions] == ["011", "010", "100", "101"]
    assert [region.slopes[0] for region in found.regions] == [-1.0, 0.0, 0.0, 1.0]
    # The unit of the first layer switches at 0, where the output is 0 on both sides.
    assert found.num_linear == 3


def test_batch_normalization_moves_the_breakpoint() -> None:
    norm = nn.BatchNorm1d(1, eps=0.0, dtype=torch.float64)
    with torch.no_grad():
        norm.running_mean.fill_(0.5)
        norm.running_var.fill_(4.0)
        norm.weight.fill_(3.0)
        norm.bias.fill_(1.5)
    # 3 (x - 0.5) / 2 + 1.5 is 0 at x = -0.5.
    found = linear_regions(nn.Sequential(linear([[1.0]], [0.0]), norm, nn.ReLU()).train(), -2.0, 2.0)
    assert found.breakpoints == [-0.5]
    assert found.regions[1].slopes == [1.5]


def test_leaky_relu_keeps_its_slope() -> None:
    found = linear_regions(nn.Sequential(linear([[1.0]], [0.0]), nn.LeakyReLU(0.25)), -1.0, 1.0)
    assert [(region.pattern, region.slopes[0]) for region in found.regions] == [("0", 0.25), ("1", 1.0)]


@pytest.mark.parametrize("seed", range(5))
def test_random_deep_network_has_each_pattern_and_output_of_its_regions(seed: int) -> None:
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(8)
    norm.running_mean.uniform_(-0.5, 0.5)
    norm.running_var.uniform_(0.5, 2.0)
    model = nn.Sequential(
        nn.Linear(1, 10),
        nn.ReLU(),
        nn.Linear(10, 8),
        norm,
        nn.LeakyReLU(0.1),
        nn.Linear(8, 6),
        nn.ReLU(),
        nn.Linear(6, 2),
    ).double()
    found = linear_regions(model, -2.0, 2.0)
    assert found.num_units == 24
    assert 5 < len(found.regions) < 200
    assert all(a.high == b.low for a, b in pairwise(found.regions))
    middle = torch.tensor([[(region.low + region.high) / 2] for region in found.regions], dtype=torch.float64)
    patterns = ["".join(str(int(bit)) for bit in row) for row in activation_patterns(model, middle)]
    assert patterns == [region.pattern for region in found.regions]
    with torch.no_grad():
        outputs = model.eval()(middle)
    expected = [
        [
            value + slope * (region.high - region.low) / 2
            for slope, value in zip(region.slopes, region.values, strict=True)
        ]
        for region in found.regions
    ]
    assert torch.allclose(outputs, torch.tensor(expected, dtype=torch.float64), atol=1e-9)
    # A dense grid sees no pattern that the regions do not have.
    grid = torch.linspace(-2, 2, 20_001, dtype=torch.float64)[:, None]
    seen = {"".join(str(int(bit)) for bit in row) for row in activation_patterns(model, grid)}
    assert seen <= set(patterns)


def test_networks_without_linear_regions_are_refused() -> None:
    with pytest.raises(TrainerError, match="not known for a layer of the kind Tanh"):
        linear_regions(nn.Sequential(linear([[1.0]], [0.0]), nn.Tanh()), 0.0, 1.0)
    with pytest.raises(TrainerError, match="reads one number; its first layer reads 2"):
        linear_regions(nn.Sequential(linear([[1.0, 1.0]], [0.0])), 0.0, 1.0)
    with pytest.raises(ValueError, match="no length"):
        linear_regions(three_units(), 1.0, 1.0)


def test_hamming_distance_by_hand() -> None:
    before = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()
    after = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 1, 1]]).bool()
    assert hamming_distances(before, after).tolist() == [2, 0, 4]


def test_observer_counts_units_that_switch_at_each_step() -> None:
    model = three_units().train()
    observer = PatternObserver(torch.tensor([[-1.5], [0.0], [0.75]], dtype=torch.float64))
    observer(model)
    assert (observer.distances, observer.largest, observer.num_units) == ([], [], 3)
    with torch.no_grad():
        # The second unit is on for x > 1 now: it switches for 0.75 alone.
        model[0].bias[1] = -1.0
        observer(model)
        observer(model)
        # The first and the third are never on now: 1 switches for -1.5, 2 for each of the others.
        model[0].bias[0] = -9.0
        model[0].bias[2] = -9.0
        observer(model)
    assert observer.distances == pytest.approx([1 / 3, 0.0, 5 / 3])
    assert observer.largest == [1, 0, 2]
    assert model.training


def test_activity_of_units_that_are_dead_and_always_on() -> None:
    model = nn.Sequential(linear([[1.0], [1.0], [1.0], [-1.0]], [0.0, 9.0, -9.0, 0.0]), nn.ReLU(inplace=True))
    # 300 inputs, of which 100 are above 0: more than two batches.
    x = torch.cat([torch.full((100, 1), 1.0), torch.full((200, 1), -1.0)]).double()
    found = activity(model, x)
    assert (found.num_inputs, found.num_patterns) == (300, 2)
    (layer,) = found.layers
    assert (layer.name, layer.num_units, layer.share_dead, layer.share_always) == ("ReLU 1", 4, 0.25, 0.25)
    # (1/3 + 1 + 0 + 2/3) / 4
    assert layer.share_active == pytest.approx(0.5)


class Twice(nn.Module):
    """One ReLU module used twice, as in torchvision's residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.relu(x + 1) - 2)


def test_a_module_used_twice_has_two_rows() -> None:
    found = activity(Twice(), torch.tensor([[0.0], [2.0]]))
    assert [(layer.name, layer.share_active) for layer in found.layers] == [("ReLU relu", 1.0), ("ReLU relu #2", 0.5)]
    assert activation_patterns(Twice(), torch.tensor([[0.0], [2.0]])).int().tolist() == [[1, 0], [1, 1]]


def test_a_network_without_relu_has_no_patterns() -> None:
    model, x = nn.Sequential(nn.Linear(1, 3), nn.Tanh()), torch.zeros(4, 1)
    assert activation_patterns(model, x).shape == (4, 0)
    assert activity(model, x).layers == []
