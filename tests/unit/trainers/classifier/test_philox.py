"""Dropout's counters: the published numbers, every unit its own, and the same masks however they are computed."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from hpo.trainers.classifier import philox
from hpo.trainers.classifier.packed.dropout import CounterMasks
from hpo.trainers.classifier.regularizers import DRAWN_AHEAD, Dropout, set_dropout_streams
from tests.unit.packed_support import configuration


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def words(counter: tuple[int, int, int, int], seed: int, rounds: int) -> str:
    made = philox.philox(*(torch.tensor(word) for word in counter), philox.round_keys(seed, rounds))
    return " ".join(f"{word.item():08x}" for word in made)


def test_the_words_are_those_of_random123() -> None:
    """Its file ``kat_vectors``, philox4x32 with 7 and with 10 rounds."""
    ones = philox.WORD
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    for counter, seed, seven, ten in (
        ((0, 0, 0, 0), 0, "5f6fb709 0d893f64 4f121f81 4f730a48", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (
            (ones,) * 4,
            (ones << 32) + ones,
            "5207ddc2 45165e59 4d8ee751 8c52f662",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            pi,
            (0x299F31D0 << 32) + 0xA4093822,
            "4dfccaba 190a87f0 c47362ba b6b5242a",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ):
        assert words(counter, seed, 7) == seven
        assert words(counter, seed, 10) == ten
    assert philox.NUM_ROUNDS == 7


def masks(p: float, shape: tuple[int, ...], seed: int = 3, calls: int = 1) -> list[torch.Tensor]:
    network = nn.Sequential(Dropout(p), Dropout(p))
    set_dropout_streams(network, seed)
    return [layer(torch.ones(shape)) for _ in range(calls) for layer in network]


class TestAlone:
    @pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
    def test_zeroes_a_share_and_keeps_the_mean(self, p: float) -> None:
        drawn = torch.stack(masks(p, (200, 500)))
        # 200,000 draws each: four standard deviations.
        deviation = (p * (1 - p) / drawn.numel()) ** 0.5
        assert (drawn == 0).double().mean().item() == pytest.approx(p, abs=4 * deviation)
        assert drawn.mean().item() == pytest.approx(1, abs=4 * deviation / (1 - p))
        assert len(drawn.unique()) == 2

    def test_units_rows_layers_steps_and_seeds_are_independent(self) -> None:
        first, other_layer, next_step, _ = (mask.flatten() > 0 for mask in masks(0.5, (128, 256), calls=2))
        other_seed = masks(0.5, (128, 256), seed=4)[0].flatten() > 0
        square = first.view(128, 256)
        pairs = {
            "layer": (first, other_layer),
            "step": (first, next_step),
            "seed": (first, other_seed),
            "row": (square[:-1], square[1:]),
            "unit": (square[:, :-1], square[:, 1:]),
            "block": (square[:, :-8], square[:, 8:]),
        }
        for what, (one, other) in pairs.items():
            share = (one == other).double().mean().item()
            assert share == pytest.approx(0.5, abs=4 * 0.5 / one.numel() ** 0.5), what

    def test_a_unit_has_its_number_whatever_the_sizes(self) -> None:
        wide, _ = masks(0.5, (40, 30))
        for rows, units in ((40, 30), (7, 30), (40, 9), (3, 2)):
            assert torch.equal(masks(0.5, (rows, units))[0], wide[:rows, :units])

    def test_what_is_drawn_ahead_is_what_would_be_drawn_then(self) -> None:
        shape = (32, 64)
        calls = DRAWN_AHEAD // (32 * 64) + 2  # one more than is drawn at once
        ahead = masks(0.3, shape, calls=calls)[::2]
        large = masks(0.3, (DRAWN_AHEAD // 64, 64), calls=calls)[::2]
        assert all(torch.equal(mask, other[:32]) for mask, other in zip(ahead, large, strict=True))
        assert len({mask.sum().item() for mask in ahead}) > 1

    def test_does_not_touch_the_global_generator(self) -> None:
        before = torch.get_rng_state()
        masks(0.5, (8, 8))
        assert torch.equal(torch.get_rng_state(), before)

    def test_extremes(self) -> None:
        almost_all = 1 - 1e-9
        assert philox.threshold(almost_all) == 1
        assert philox.threshold(0.0) == philox.LEVELS
        assert philox.scale(0.0) == 1
        assert masks(0.5, (0, 8))[0].shape == (0, 8)
        assert masks(0.5, (2, 3, 5, 4))[0].shape == (2, 3, 5, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_pack_has_the_masks_of_each_trial_alone(dtype: torch.dtype) -> None:
    """Two trials of other widths, batches and probabilities, one of them without dropout in between."""
    from hpo.trainers.classifier.packed.slot import Slot
    from hpo.trainers.classifier.randomness import derived_seed
    from hpo.trainers.protocol import Run

    rows, widths = 48, (21, 300)
    pack = CounterMasks(widths, 3, rows, torch.device("cpu"), dtype)
    values = [{"dropout": 0.2}, {"dropout": 0.0}, {"dropout": 0.6}]
    for at, each in enumerate(values):
        pack.begin(Slot(at, configuration(**each), Run(seed=at), at, 320))
    for step in range(2):
        mine = pack.first(3, rows, torch.tensor([step, 0, step]))
        for at in (0, 2):
            network = nn.Sequential(Dropout(values[at]["dropout"]), Dropout(values[at]["dropout"]))
            set_dropout_streams(network, derived_seed(at, "dropout", 0))
            for layer, width in enumerate(widths):
                calls = [network[layer](torch.ones(rows, width - 4, dtype=dtype)) for _ in range(step + 1)]
                assert torch.equal(mine[layer][at, : width - 4].t(), calls[-1])
        assert all((mask[1] == 1).all() for mask in mine)
