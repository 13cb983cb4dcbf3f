"""A trial in a pack of mixed neighbours trains as it does alone, with every hyperparameter that may differ."""

import functools
import math

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.protocol import EpochEnd
from tests.unit.packed_support import Curves, alone, assert_same, configuration, packed

MULTISTEP = {"scheduler": "multistep", "milestones": (2, 4), "gamma": 0.5}

MLPS: dict[str, dict[str, object]] = {
    "base": {},
    "lr": {"lr": 0.01},
    "beta": {"beta": 0.5},
    "no momentum": {"beta": 0},
    "weight_decay": {"weight_decay": 0.01},
    "l1": {"l1": 0.001},
    "dropout": {"dropout": 0.3},
    "philox": {"dropout": 0.3, "dropout_generator": "philox"},
    "philox narrower": {"dropout": 0.5, "dropout_generator": "philox", "width_1": 13, "width_2": 9, "batch_size": 17},
    "label_smoothing": {"label_smoothing": 0.1},
    "kaiming": {"initializer": "kaiming"},
    "xavier": {"initializer": "xavier"},
    "step": {"scheduler": "step", "step_size": 2, "gamma": 0.5},
    "multistep": MULTISTEP,
    "exponential": {"scheduler": "exponential"},
    "cyclic": {"scheduler": "cyclic", "cycle_epochs": 3.0},
    "cosine": {"scheduler": "cosine", "warmup_epochs": 1.0},
    "onecycle": {"scheduler": "onecycle"},
    "smaller batch": {"batch_size": 17, "dropout": 0.2},
    "larger batch": {"batch_size": 48},
    "narrower": {"width_1": 13, "width_2": 9, "dropout": 0.2},
    "narrower kaiming": {"width_1": 17, "initializer": "kaiming", "l1": 0.001, "weight_decay": 0.001},
    "wider": {"width_1": 40},
    "evaluate_train": {"evaluate_train": True},
    "shorter": {"epochs": 3},
    "nesterov": {"nesterov": True},
    "nesterov narrower": {"nesterov": True, "beta": 0.7, "width_2": 11},
    "batch_norm": {"batch_norm": True},
    "batch_norm, partial batches": {"batch_norm": True, "batch_size": 25, "width_1": 19, "dropout": 0.1},
    "augment": {"augment": True, "pad": 1},
    "augment narrower": {"augment": True, "pad": 1, "flip": False, "batch_size": 17, "width_1": 9, "dropout": 0.1},
    "augment, other pad": {"augment": True, "pad": 2, "batch_norm": True, "batch_size": 25},
    "adam": {"optimizer": "adam", "lr": 0.002},
    "adam betas": {"optimizer": "adam", "lr": 0.001, "beta": 0.7, "beta2": 0.99, "weight_decay": 0.01, "l1": 0.001},
    "adam without beta": {"optimizer": "adam", "lr": 0.001, "beta": 0.0, "width_1": 15},
    "adamw": {"optimizer": "adamw", "lr": 0.002, "weight_decay": 0.05},
    "adamw beta2": {"optimizer": "adamw", "lr": 0.002, "beta2": 0.9, "width_2": 10, "batch_size": 20},
    "gelu": {"activation": "gelu"},
    "silu narrower": {"activation": "silu", "width_1": 9},
    "leaky_relu": {"activation": "leaky_relu", "width_1": 9},
    "tanh": {"activation": "tanh", "width_1": 9},
}

CNN = {"network": "cnn", "channels_1": 6, "channels_2": 5, "head_width": 12, "batch_size": 20}
SQUEEZE = {"network": "squeeze_expand", "batch_size": 32}
OTHERS: dict[str, dict[str, object]] = {
    "cnn": CNN,
    "cnn narrower": {**CNN, "channels_1": 4, "channels_2": 3, "head_width": 7, "dropout": 0.2, "batch_size": 16},
    "cnn philox": {**CNN, "channels_1": 4, "head_width": 7, "dropout": 0.2, "dropout_generator": "philox"},
    "cnn augment": {**CNN, "augment": True, "pad": 1},
    "cnn augment narrower": {**CNN, "augment": True, "pad": 1, "channels_1": 4, "batch_size": 16, "dropout": 0.1},
    "cnn adamw": {**CNN, "optimizer": "adamw", "lr": 0.002},
    "cnn batch_norm": {**CNN, "batch_norm": True},
    "cnn batch_norm narrower": {**CNN, "batch_norm": True, "channels_1": 5, "batch_size": 18, "activation": "relu"},
    "squeeze_expand": SQUEEZE,
    "squeeze_expand philox": {**SQUEEZE, "dropout": 0.1, "dropout_generator": "philox"},
    "squeeze_expand, other": {**SQUEEZE, "lr": 0.01, "dropout": 0.1, "batch_size": 30, "weight_decay": 0.001},
    "relu_line": {"network": "relu_line", "dataset": "line", "batch_size": 32},
    "relu_line, other": {"network": "relu_line", "dataset": "line", "batch_size": 20, "batch_norm": True},
}


def both(cases: dict[str, dict[str, object]], slots: int, **values: object) -> tuple[Curves, Curves, list[str]]:
    configs = [configuration(**{**values, **case}) for case in cases.values()]
    return packed(configs, slots)[0], alone(configs)[0], list(cases)


@functools.cache
def mlps_fp64() -> tuple[Curves, Curves, list[str]]:
    # 20 epochs of 10 steps; every batch but the last is whole, and the last holds 20 images.
    return both(MLPS, 40, train_size=308, epochs=20, precision="fp64")


@pytest.mark.parametrize("name", MLPS)
def test_mlp_in_float64_over_200_steps(name: str) -> None:
    ours, theirs, names = mlps_fp64()
    index = names.index(name)
    assert_same(ours[index], theirs[index], 1e-9)


def test_the_curves_are_of_200_steps_and_differ() -> None:
    _, theirs, names = mlps_fp64()
    assert [len(theirs[names.index(name)]) for name in ("base", "smaller batch", "shorter")] == [20, 20, 3]
    assert all(math.isfinite(curve[-1]["val_loss"]) for curve in theirs.values())
    assert len({curve[-1]["train_loss"] for curve in theirs.values()}) == len(MLPS)


@functools.cache
def mlps_fp32() -> tuple[Curves, Curves, list[str]]:
    return both(MLPS, 40, epochs=5, precision="fp32")


@pytest.mark.parametrize("name", MLPS)
def test_mlp_in_float32_over_50_steps(name: str) -> None:
    ours, theirs, names = mlps_fp32()
    index = names.index(name)
    for mine, reference in zip(ours[index], theirs[index], strict=True):
        for metric in ("train_loss", "val_loss", "lr"):
            assert mine[metric] == pytest.approx(reference[metric], rel=1e-4), metric


@functools.cache
def others_fp64() -> tuple[Curves, Curves, list[str]]:
    return both(OTHERS, 20, train_size=320, epochs=20, precision="fp64", lr=0.02)


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_in_float64_over_200_steps(name: str) -> None:
    ours, theirs, names = others_fp64()
    index = names.index(name)
    assert_same(ours[index], theirs[index], 1e-9)


small = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([0.003, 0.02, 0.05]),
        "beta": st.sampled_from([0.0, 0.5, 0.9]),
        "weight_decay": st.sampled_from([0.0, 0.001]),
        "dropout": st.sampled_from([0.0, 0.25]),
        "dropout_generator": st.sampled_from(["philox", "torch"]),
        "label_smoothing": st.sampled_from([0.0, 0.1]),
        "scheduler": st.sampled_from(["constant", "cosine", "cyclic"]),
        "batch_size": st.sampled_from([11, 16, 32]),
        "width_1": st.sampled_from([7, 16, 24]),
        "width_2": st.sampled_from([5, 12]),
        "epochs": st.integers(1, 4),
        "optimizer": st.sampled_from(["sgd", "sgd", "adam"]),
        "batch_norm": st.sampled_from([False, False, True]),
    }
)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(small, min_size=2, max_size=9), st.integers(2, 5), st.randoms(use_true_random=False), st.integers(0, 3))
def test_under_every_order_of_refilling(
    values: list[dict[str, object]], slots: int, random: object, pruned_after: int
) -> None:
    configs = [configuration(**value, train_size=97, val_size=40, precision="fp64") for value in values]
    order = list(range(len(configs)))
    random.shuffle(order)  # type: ignore[attr-defined]

    def prune(event: EpochEnd) -> bool:
        assert isinstance(event.key, int)
        return event.key % 3 == 0 and event.epoch == pruned_after

    ours, snapshots = packed(configs, slots, order=order, stop=prune)
    theirs, states = alone(configs)
    for index, curve in ours.items():
        pruned = index % 3 == 0 and 0 < pruned_after < configs[index].epochs
        assert len(curve) == (pruned_after if pruned else configs[index].epochs)
        assert_same(curve, theirs[index][: len(curve)], 1e-9)
        # Adam makes a step of any gradient, even of one that is rounding alone.
        if not pruned and configs[index].optimizer == "sgd":
            for name, weight in states[index]["network"].items():
                torch.testing.assert_close(snapshots[index]["network"][name], weight, rtol=1e-6, atol=1e-9)


NEIGHBOURS = [
    {"dropout": 0.2, "weight_decay": 0.001},
    {"label_smoothing": 0.1, "batch_size": 20},
    {"width_1": 15, "l1": 0.001},
]


@pytest.mark.parametrize("kind", [{}, {"batch_norm": True}, {"optimizer": "adam"}, CNN | {"batch_norm": True}])
def test_a_neighbour_that_diverges_changes_no_bit(kind: dict[str, object]) -> None:
    def curves(lr: float) -> tuple[list[list[dict[str, float]]], ClassifierConfig]:
        # It drops, decays and smooths too, so that its infinities meet every term.
        wild = configuration(**kind, epochs=4, lr=lr, dropout=0.1, weight_decay=0.1, l1=0.01, label_smoothing=0.1)
        configs = [configuration(**{**kind, **values}, epochs=4, lr=0.01) for values in NEIGHBOURS]
        history, states = packed([*configs[:2], wild, *configs[2:]], 4)
        weights = [value for index in (0, 1, 3) for value in states[index]["network"].values()]
        calm_weights.append(weights)
        wild_losses.append(history[2][-1]["train_loss"])
        return [history[index] for index in (0, 1, 3)], wild

    calm_weights: list[list[torch.Tensor]] = []
    wild_losses: list[float] = []
    tame, _ = curves(1e-3)
    beside_infinity, _ = curves(100.0)
    assert math.isfinite(wild_losses[0])
    if kind == {}:
        assert not math.isfinite(wild_losses[1])
    assert beside_infinity == tame
    assert all(torch.equal(a, b) for a, b in zip(*calm_weights, strict=True))


def some(kind: dict[str, object], count: int) -> list[ClassifierConfig]:
    """Trials of one pack with all that may differ, in shapes of which no two are alike."""
    return [
        configuration(
            **{
                "train_size": 500,
                "val_size": 250,
                "epochs": 2 + i % 3,
                "width_1": (17, 64, 100, 24, 130)[i % 5],
                "width_2": (16, 33, 64)[i % 3],
                "batch_size": (16, 32, 21, 100, 5, 50)[i % 6],
                "dropout": (0.0, 0.2)[i // 2 % 2],
                "weight_decay": (0.0, 1e-3)[i // 3 % 2],
                "l1": (0.0, 1e-4)[i // 4 % 2],
                "label_smoothing": (0.0, 0.1)[i // 5 % 2],
                **kind,
            }
        )
        for i in range(count)
    ]


@pytest.mark.parametrize(
    "kind",
    [
        {"precision": "fp32"},
        {"precision": "bf16"},
        {"batch_norm": True},
        {"optimizer": "adam", "lr": 1e-3},
        {"augment": True, "pad": 1, "flip": False},
        {"activation": "gelu"},
        {"activation": "tanh", "evaluate_train": True},
        {"dropout_generator": "philox"},
        {"dropout_generator": "philox", "precision": "bf16"},
    ],
)
def test_an_mlp_has_the_same_bits_in_any_company(kind: dict[str, object]) -> None:
    # What an exported configuration relies on: it was trained beside others and is trained again by itself.
    def without_norms(curves: Curves) -> Curves:
        return {
            index: [{name: value for name, value in metrics.items() if name != "grad_norm"} for metrics in curve]
            for index, curve in curves.items()
        }

    configs = some(kind, 10)
    among_many, states = packed(configs, 7)
    among_few, _ = packed(configs, 3)
    assert without_norms(among_few) == without_norms(among_many)
    for index in (1, 4, 7, 8):
        curves, own = packed(configs, 2, order=[index])
        assert without_norms(curves)[index] == without_norms(among_many)[index]
        weights, reference = own[index]["network"], states[index]["network"]
        assert all(torch.equal(weights[name], value) for name, value in reference.items())
