"""Networks and data sets of a user's own: their fields, what is refused, and that they train alone and packed."""

import importlib
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import hpo
from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.datasets import DATASETS, read_split
from hpo.trainers.classifier.entry import check_classifier
from hpo.trainers.classifier.networks import NETWORKS
from hpo.trainers.classifier.packed import shape
from hpo.trainers.errors import TrainerError
from hpo.trainers.registry import TRAINERS
from tests.unit.packed_support import alone, assert_same, packed

EXAMPLE = Path(__file__).parents[4] / "examples" / "own_network.py"


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """The tables as they were, after each test."""
    before = [(table, dict(table)) for table in (NETWORKS, DATASETS, TRAINERS)]
    yield
    for table, rows in before:
        table.clear()
        table.update(rows)


def made(**values: Any) -> ClassifierConfig:
    config: type[pydantic.BaseModel] = TRAINERS["classifier"].config  # type: ignore[assignment]
    checked = config.model_validate(values)
    assert isinstance(checked, ClassifierConfig)
    return checked


@pytest.fixture
def example() -> None:
    runpy.run_path(str(EXAMPLE), run_name="own_network")


class Units(hpo.Config):
    units: int = Field(8, ge=1, le=64)


class TestFields:
    def test_become_fields_of_the_configuration(self, example: None) -> None:
        config = made(network="deep", dataset="spirals", depth=3, units=16)
        assert (config.network, config.dataset) == ("deep", "spirals")
        assert config.model_dump()["depth"] == 3
        assert made().model_dump()["units"] == 32
        with pytest.raises(pydantic.ValidationError, match="less than or equal to 6"):
            made(network="deep", depth=7)
        # The package's own class stays as it was.
        assert "units" not in ClassifierConfig.model_fields

    def test_two_additions_are_both_there(self, example: None) -> None:
        class Rank(hpo.Config):
            rank: int = 4

        @hpo.network("low_rank")
        def low_rank(config: Rank, shape: tuple[int, ...], num_classes: int) -> nn.Module:
            return nn.Flatten()

        assert made(network="low_rank", rank=2).model_dump()["depth"] == 2

    def test_the_combination_of_network_and_data_is_checked(self, example: None) -> None:
        with pytest.raises(pydantic.ValidationError, match="network 'cnn' does not read the data set 'spirals'"):
            made(network="cnn", dataset="spirals")
        with pytest.raises(pydantic.ValidationError, match="augment works on images; 'spirals' has none"):
            made(network="deep", dataset="spirals", augment=True)

    @pytest.mark.parametrize(
        ("field", "message"),
        [
            ((int, Field(256, ge=1)), "'width_1' is declared with another type, bounds or default"),
            ((int, Field(512, ge=1, le=65_536)), None),
        ],
    )
    def test_a_name_that_another_network_has(self, field: Any, message: str | None) -> None:
        fields = pydantic.create_model("Own", __base__=hpo.Config, width_1=field)

        def build(config: Any, shape: tuple[int, ...], num_classes: int) -> nn.Module:
            return nn.Flatten()

        build.__annotations__["config"] = fields
        if message is None:
            hpo.network("own")(build)
            assert made(network="own", width_1=3).network == "own"
        else:
            with pytest.raises(TrainerError, match=message):
                hpo.network("own")(build)
            assert "own" not in NETWORKS
            assert "own" not in str(TRAINERS["classifier"].config.model_fields["network"].annotation)  # type: ignore[union-attr]

    def test_the_tables_of_the_package_refuse_a_second_row(self) -> None:
        with pytest.raises(TrainerError, match="two networks are called 'mlp'"):

            @hpo.network("mlp")
            def mlp(config: Units, shape: tuple[int, ...], num_classes: int) -> nn.Module:
                return nn.Flatten()

        with pytest.raises(TrainerError, match="two data sets are called 'digits'"):
            hpo.dataset("digits", shape=(2,), num_classes=2, sizes=(4, 2, 2))(lambda part, folder: None)  # type: ignore[arg-type, return-value]

    def test_what_cannot_be_a_network(self) -> None:
        with pytest.raises(TrainerError, match="annotate 'config' with a class derived from"):
            hpo.network("own")(lambda config, shape, num_classes: nn.Flatten())
        with pytest.raises(TrainerError, match="must take three arguments"):
            hpo.network("own")(lambda config: nn.Flatten())  # type: ignore[arg-type, misc]
        with pytest.raises(TrainerError, match="widths names hidden, which Units does not have"):

            @hpo.network("own", widths=("hidden",))
            def own(config: Units, shape: tuple[int, ...], num_classes: int) -> nn.Module:
                return nn.Flatten()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"shape": (2, 2)}, r"shape must be \(features,\) or \(channels, height, width\)"),
            ({"num_classes": 1}, "at least 2 classes"),
            ({"class_names": ("a",)}, "1 class names for 3 classes"),
        ],
    )
    def test_what_cannot_be_a_data_set(self, arguments: dict[str, Any], message: str) -> None:
        values: dict[str, Any] = {"shape": (2,), "num_classes": 3, "sizes": (4, 2, 2), **arguments}
        with pytest.raises(TrainerError, match=message):
            hpo.dataset("own", **values)(lambda part, folder: (np.zeros((4, 2)), np.zeros(4, int)))
        assert "own" not in DATASETS


class TestData:
    @pytest.mark.parametrize(
        ("inputs", "labels", "message"),
        [
            (np.zeros((4, 2)), np.zeros(4, int), "4 inputs in the split 'train'; expected 6"),
            (np.zeros((6, 3)), np.zeros(6, int), r"inputs of shape \(6, 3\) for 6 labels"),
            (np.zeros((6, 2)), np.zeros(6), "labels must be whole numbers"),
            (np.zeros((6, 2)), np.full(6, 3), "6 labels are out of range"),
        ],
    )
    def test_what_a_reader_gives_is_checked(self, inputs: Any, labels: Any, message: str) -> None:
        hpo.dataset("own", shape=(2,), num_classes=3, sizes=(6, 2, 2))(lambda part, folder: (inputs, labels))
        read_split.cache_clear()
        with pytest.raises(TrainerError, match=message):
            read_split("own", "train", None)

    def test_made_data_has_a_checksum_of_its_numbers(self, example: None) -> None:
        first = check_classifier(made(dataset="spirals", network="deep"), None, False)
        assert set(first["files"]) == {"train", "val", "test"}
        assert (first["train"], first["val"], first["test"]) == (600, 150, 150)

    def test_vectors_are_standardized_by_feature(self) -> None:
        from hpo.trainers.classifier.data import load_split

        random = np.random.RandomState(0)
        values = np.column_stack([random.uniform(0, 9, 50), np.full(50, 7.0)])
        hpo.dataset("own", shape=(2,), num_classes=2, sizes=(50, 50, 50), scale=9.0)(
            lambda part, folder: (values, np.arange(50) % 2)
        )
        x = load_split(made(dataset="own", batch_size=10), "train", device="cpu", dtype=torch.float64).x
        assert x[:, 0].mean().item() == pytest.approx(0, abs=1e-12)
        assert x[:, 0].std(correction=0).item() == pytest.approx(1)
        assert x[:, 1].abs().max().item() == 0


class TestTraining:
    def test_packed_trials_of_several_sizes_are_what_they_are_alone(self, example: None) -> None:
        values = {"network": "deep", "dataset": "spirals", "epochs": 2, "batch_size": 50, "depth": 2, "lr": 0.1}
        configs = [made(**values, units=units) for units in (8, 20, 32)]
        assert [shape.why_not(config) for config in configs] == [None] * 3
        assert len({shape.agreed(config) for config in configs}) == 1
        ours, _ = packed(configs, 3)
        theirs, _ = alone(configs)
        for index in range(3):
            assert_same(ours[index], theirs[index], 1e-4)

    def test_another_depth_is_another_pack(self, example: None) -> None:
        values = {"network": "deep", "dataset": "spirals"}
        assert shape.agreed(made(**values, depth=2)) != shape.agreed(made(**values, depth=3))

    def test_a_network_that_is_no_row_of_layers_trains_alone(self) -> None:
        class Residual(nn.Module):
            def __init__(self, features: int, num_classes: int) -> None:
                super().__init__()
                self.norm = nn.LayerNorm(features)
                self.inner = nn.Linear(features, features)
                self.head = nn.Linear(features, num_classes)

            def forward(self, x: Tensor) -> Tensor:
                x = x.flatten(1)
                result: Tensor = self.head(x + self.inner(self.norm(x)).relu())
                return result

        for name, says_packed in (("residual", False), ("overstated", True)):

            @hpo.network(name, packed=says_packed)
            def build(config: Units, shape: tuple[int, ...], num_classes: int) -> nn.Module:
                return Residual(int(np.prod(shape)), num_classes)

            config = made(network=name, dataset="digits", train_size=100, val_size=50, batch_size=32, epochs=2)
            reason = shape.why_not(config)
            assert reason is not None
            assert name in reason
            ours, states = packed([config, config], 2)
            theirs, _ = alone([config, config])
            assert ours == theirs
            assert len(ours[0]) == 2
            assert states[0]["network"]["norm.weight"].shape == (64,)

    def test_libraries_random_numbers_are_the_trials_own(self) -> None:
        """nn.Dropout draws from PyTorch's global generator; resumed, a trial must draw the same."""

        @hpo.network("dropping")
        def build(config: Units, shape: tuple[int, ...], num_classes: int) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(int(np.prod(shape)), num_classes))

        config = made(network="dropping", dataset="digits", train_size=100, val_size=50, batch_size=32, epochs=3)
        torch.manual_seed(1)
        first, _ = alone([config])
        torch.manual_seed(2)
        second, _ = alone([config])
        assert first == second

    def test_a_module_without_first_values_is_named(self) -> None:
        class Scale(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.factor = nn.Parameter(torch.ones(1))

            def forward(self, x: Tensor) -> Tensor:
                return x * self.factor

        @hpo.network("scaled")
        def build(config: Units, shape: tuple[int, ...], num_classes: int) -> nn.Module:
            return nn.Sequential(nn.Flatten(), Scale(), nn.Linear(int(np.prod(shape)), num_classes))

        with pytest.raises(TrainerError, match=r"Scale has parameters or buffers and no method reset_parameters\(\)"):
            alone([made(network="scaled", dataset="digits", epochs=1)])


def test_a_file_in_the_folder_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding a network or a data set to the package touches one file: nothing else lists them."""
    from hpo.trainers.classifier import datasets, networks

    for package, table in ((networks, NETWORKS), (datasets, DATASETS)):
        files = {path.stem for path in Path(package.__path__[0]).glob("*.py")} - {"__init__"}
        homes = {importlib.import_module(f"{package.__name__}.{stem}").__name__.rpartition(".")[2] for stem in files}
        assert homes == files
        sources = "".join(path.read_text() for path in Path(networks.__path__[0]).parent.glob("*.py"))
        for name in set(table) - {"mlp", "mnist", "digits"}:
            assert f'"{name}"' not in sources, f"{name} is listed outside of its own file"
