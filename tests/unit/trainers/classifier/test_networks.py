"""Parameter counts, initial weights and augmentation."""

import math

import pytest
import torch
from torch import nn

from hpo.trainers.classifier.augment import augmented, draw_crops
from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.datasets import DATASETS
from hpo.trainers.classifier.initializers import INITIALIZERS, initialize
from hpo.trainers.classifier.networks import NETWORKS, build_network
from hpo.trainers.classifier.precision import PRECISIONS
from hpo.trainers.classifier.randomness import generator
from hpo.trainers.classifier.training import new_network


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_tells_the_number_of_parameters(name: str) -> None:
    counted = NETWORKS[name].counted
    assert counted is not None
    config = ClassifierConfig.model_validate({"network": name, "dataset": counted[0]})
    assert count(build_network(config)) == counted[1]


def test_squeeze_expand_has_9680_parameters() -> None:
    assert count(build_network(ClassifierConfig(network="squeeze_expand", dataset="mnist"))) == 9680


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # 784 w1 + w1 + w1 w2 + w2 + 10 w2 + 10
        (ClassifierConfig(width_1=843, width_2=323), 937_607),
        # two more for each unit of a normalized layer
        (ClassifierConfig(width_1=843, width_2=323, batch_norm=True), 939_939),
        (ClassifierConfig(dataset="digits", width_1=1, width_2=1), 87),
        (ClassifierConfig(network="cnn", dataset="cifar10"), 71_770),
        (ClassifierConfig(network="cnn", channels_1=4, channels_2=2, head_width=3), 451),
    ],
)
def test_widths_shape_the_network(config: ClassifierConfig, expected: int) -> None:
    assert count(build_network(config)) == expected


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_logits_for_every_data_set_that_the_network_reads(name: str, dropout: float) -> None:
    for dataset, shape, classes in (
        ("digits", (1, 8, 8), 10),
        ("mnist", (1, 28, 28), 10),
        ("cifar10", (3, 32, 32), 10),
        ("line", (1,), 2),
    ):
        if NETWORKS[name].takes(DATASETS[dataset].shape):
            config = ClassifierConfig.model_validate({"network": name, "dataset": dataset, "dropout": dropout})
            network = new_network(config, 0, "cpu", PRECISIONS["fp32"])
            assert network(torch.zeros(2, *shape)).shape == (2, classes)


def test_resnet18_is_torchvisions() -> None:
    from torchvision.models import resnet18

    ours = build_network(ClassifierConfig(network="resnet18", dataset="cifar10"))
    theirs = resnet18(num_classes=10)
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    shapes["conv1.weight"] = (64, 3, 3, 3)
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == shapes
    # The stem keeps the size: four stages leave 4x4 of 32x32.
    sizes = []
    network = new_network(ClassifierConfig(network="resnet18", dataset="cifar10"), 0, "cpu", PRECISIONS["fp32"])
    network.layer4.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape)))
    network(torch.zeros(1, 3, 32, 32))
    assert sizes == [(1, 512, 4, 4)]


class TestInitializers:
    fan_in, fan_out = 600, 200

    def filled(self, name: str) -> nn.Linear:
        layer = nn.Linear(self.fan_in, self.fan_out)
        initialize(layer, name, generator(0, "initialize"))
        return layer

    # 120,000 draws: the standard deviation of the sample deviation is below 0.3 %.
    def test_default_is_pytorchs(self) -> None:
        layer = self.filled("default")
        bound = 1 / math.sqrt(600)
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
        assert layer.bias.abs().max().item() == pytest.approx(bound, rel=0.05)
        torch.manual_seed(0)
        reference = nn.Linear(self.fan_in, self.fan_out)
        assert layer.weight.std().item() == pytest.approx(reference.weight.std().item(), rel=0.01)

    def test_kaiming(self) -> None:
        layer = self.filled("kaiming")
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 600), rel=0.01)
        assert layer.weight.abs().max().item() > 4 * math.sqrt(2 / 600)
        assert layer.bias.abs().max().item() == 0

    def test_xavier(self) -> None:
        layer = self.filled("xavier")
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 800), rel=0.01)
        assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 800), rel=1e-3)
        assert layer.bias.abs().max().item() == 0

    def test_fans_of_a_convolution_count_its_window(self) -> None:
        layer = nn.Conv2d(32, 64, 3)
        initialize(layer, "kaiming", generator(0, "initialize"))
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 288), rel=0.03)
        initialize(layer, "xavier", generator(0, "initialize"))
        assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(6 / (288 + 576)), rel=0.01)

    @pytest.mark.parametrize("name", INITIALIZERS)
    def test_the_seed_decides_and_nothing_else(self, name: str) -> None:
        config = ClassifierConfig.model_validate({"dataset": "digits", "initializer": name, "batch_norm": True})

        def weights(global_seed: int, seed: int) -> torch.Tensor:
            torch.manual_seed(global_seed)
            network = new_network(config, seed, "cpu", PRECISIONS["fp32"])
            return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

        assert torch.equal(weights(0, 3), weights(1, 3))
        assert not torch.equal(weights(0, 3), weights(0, 4))

    def test_normalization_starts_at_the_identity(self) -> None:
        network = new_network(ClassifierConfig(network="squeeze_expand"), 0, "cpu", PRECISIONS["fp32"])
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        assert len(norms) == 5
        for norm in norms:
            assert norm.weight.eq(1).all()
            assert norm.bias.eq(0).all()
            assert norm.running_mean.eq(0).all()
            assert norm.running_var.eq(1).all()

    def test_another_layer_resets_itself_from_the_trials_generator(self) -> None:
        def initialized(seed: int) -> torch.Tensor:
            layer = nn.Conv1d(2, 3, 5)
            torch.manual_seed(seed)
            initialize(layer, "default", generator(7, "initialize"))
            return layer.weight.detach().clone()

        assert torch.equal(initialized(1), initialized(2))
        layer = nn.Conv1d(2, 3, 5)
        before = torch.get_rng_state()
        initialize(layer, "default", generator(7, "initialize"))
        assert torch.equal(torch.get_rng_state(), before)


class TestAugmentation:
    x = torch.arange(1, 2 * 3 * 5 * 6 + 1, dtype=torch.float32).reshape(2, 3, 5, 6)

    @staticmethod
    def crops(count: int, *, seed: int = 0, pad: int = 4, flip: bool = True) -> torch.Tensor:
        return draw_crops(count, torch.Generator().manual_seed(seed), pad=pad, flip=flip)

    def test_each_image_is_a_window_of_the_padded_one_or_of_its_mirror(self) -> None:
        x, pad = self.x.repeat(50, 1, 1, 1), 2
        y = augmented(x, self.crops(len(x), pad=pad), pad=pad)
        assert y.shape == x.shape
        seen = set()
        for image, result in zip(x, y, strict=True):
            matches = []
            for mirrored in (False, True):
                source = image.flip(2) if mirrored else image
                padded = nn.functional.pad(source, (pad,) * 4)
                windows = [(top, left) for top in range(5) for left in range(5)]
                matches += [
                    (top, left, mirrored)
                    for top, left in windows
                    if torch.equal(padded[:, top : top + 5, left : left + 6], result)
                ]
            assert len(matches) == 1
            seen.update(matches)
        # 100 draws of 50 kinds: 43 are expected.
        assert len(seen) > 30
        assert {mirrored for _, _, mirrored in seen} == {False, True}

    def test_without_padding_and_flip_it_is_the_identity(self) -> None:
        assert torch.equal(augmented(self.x, self.crops(2, pad=0, flip=False), pad=0), self.x)

    def test_the_generator_decides(self) -> None:
        def draw(seed: int) -> torch.Tensor:
            return augmented(self.x, self.crops(2, seed=seed), pad=4)

        assert torch.equal(draw(1), draw(1))
        assert not torch.equal(draw(1), draw(2))
