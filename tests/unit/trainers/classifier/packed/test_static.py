"""What a GPU computes, on a CPU: all slots in one captured step of fixed shapes, replayed on the same tensors."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.packed import evaluate, shape
from hpo.trainers.classifier.packed import step as packed_step
from hpo.trainers.classifier.packed.evaluate import BATCH_IMAGES
from hpo.trainers.classifier.packed.graph import CaptureError, RecordedStep, capture
from hpo.trainers.classifier.packed.memory import is_out_of_memory
from hpo.trainers.classifier.packed.pack import Pack
from hpo.trainers.classifier.packed.trainer import PackedTrainer
from hpo.trainers.protocol import BuildOptions, Run
from tests.unit.packed_support import alone, assert_same, configuration, packed, run_all
from tests.unit.trainers.classifier.packed.test_same import CNN, MLPS, OTHERS, SQUEEZE

CASES: dict[str, dict[str, object]] = {
    "mlp": {},
    "mlp dropout": {"dropout": 0.2},
    "mlp philox": {"dropout": 0.2, "dropout_generator": "philox"},
    "mlp batch_norm": {"batch_norm": True},
    "mlp augment": {"augment": True, "pad": 1},
    "mlp nesterov": {"nesterov": True},
    "mlp adam": {"optimizer": "adam"},
    "mlp adamw": {"optimizer": "adamw"},
    "cnn": CNN,
    "cnn batch_norm": {**CNN, "batch_norm": True, "dropout": 0.1},
    "cnn augment": {**CNN, "augment": True, "pad": 1, "optimizer": "adam"},
    "cnn philox": {**CNN, "dropout": 0.1, "dropout_generator": "philox"},
    "squeeze_expand": SQUEEZE,
    "relu_line": {"network": "relu_line", "dataset": "line", "batch_norm": True},
}


def of(cases: dict[str, dict[str, object]], **values: object) -> list[ClassifierConfig]:
    return [configuration(**{**values, **case}) for case in cases.values()]


@pytest.mark.parametrize("cases", [MLPS, OTHERS], ids=["mlps", "others"])
def test_a_static_pack_trains_as_trials_do_alone(cases: dict[str, dict[str, object]]) -> None:
    """Trials of every kind in few slots, so that slots are refilled after the capture."""
    configs = of(cases, train_size=97, val_size=40, epochs=5, precision="fp64", lr=0.02)
    ours, _ = packed(configs, 12, static=True)
    theirs, _ = alone(configs)
    for index in range(len(configs)):
        assert_same(ours[index], theirs[index], 1e-9)


def test_a_resumed_and_a_pruned_trial_in_a_static_pack() -> None:
    configs = [configuration(epochs=4, precision="fp64", width_1=10 + index, optimizer="adam") for index in range(4)]
    whole, _ = alone(configs)
    ours, states = packed(configs, 2, static=True, stop=lambda event: event.epoch == 2)
    again = {index: Run(seed=index, start_epoch=2, checkpoint=states[index]) for index in range(4)}
    rest, _ = packed(configs, 2, static=True, runs=again)
    for index in range(4):
        assert_same([*ours[index], *rest[index]], whole[index], 1e-9)


def add(tensor: torch.Tensor, value: Any) -> None:
    tensor.add_(value)


class TestCapture:
    def test_a_step_is_replayed_on_what_the_tensors_hold(self) -> None:
        x, total = torch.ones(3), torch.zeros(3)

        def step() -> None:
            total.add_(x * 2)

        captured = capture(step, [total], torch.device("cpu"))
        assert total.tolist() == [0, 0, 0]
        captured.replay()
        x.fill_(5)
        captured.replay()
        assert total.tolist() == [12, 12, 12]

    @pytest.mark.parametrize("which", ["read", "written"])
    def test_a_replaced_tensor_is_found(self, which: str) -> None:
        tensors = {"read": torch.ones(3), "written": torch.zeros(3)}
        captured = RecordedStep(lambda: add(tensors["written"], tensors["read"]))
        captured.replay()
        tensors[which] = tensors[which].clone()
        with pytest.raises(CaptureError, match=r"replaced since it was captured: \(3,\) torch.float32 in aten.add_"):
            captured.replay()

    def test_another_shape_or_operation_is_found(self) -> None:
        rows = [2]
        x = torch.ones(4)
        captured = RecordedStep(lambda: add(x[: rows[0]], 1))
        rows[0] = 3
        with pytest.raises(CaptureError, match="not the one that was captured"):
            captured.replay()

    @pytest.mark.parametrize(
        "draw", [random.random, lambda: np.random.rand(), lambda: torch.rand(1)], ids=["python", "numpy", "torch"]
    )
    def test_random_numbers_of_a_global_generator_are_found(self, draw: Any) -> None:
        with pytest.raises(CaptureError, match="global generator"):
            RecordedStep(draw)

    def test_a_pack_whose_tensors_were_replaced_does_not_go_on(self) -> None:
        pack = Pack(shape.padded(configuration()), 2, Run(), threads=1, static=True)
        pack.add(0, configuration(), Run())
        pack.advance(1)
        pack.step.tables.lrs = pack.step.tables.lrs.clone()
        with pytest.raises(CaptureError, match="replaced"):
            pack.advance(1)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_the_captured_step_runs_on_meta(name: str, precision: str) -> None:
    """There ``.item()``, boolean indexing, ``nonzero``, sizes that depend on data and mixed devices raise."""
    template = shape.padded(configuration(**CASES[name], precision=precision))
    pack = Pack(template, 3, Run(device="meta"), threads=1, static=True)
    assert pack.step.network.parameters[0].device.type == "meta"


def test_that_meta_would_find_it() -> None:
    values = torch.zeros(3, device="meta")
    for step in (values.sum().item, values.nonzero, lambda: values[values > 0]):
        with pytest.raises((RuntimeError, NotImplementedError)):
            RecordedStep(step)  # type: ignore[arg-type]


class TestEvaluation:
    @pytest.mark.parametrize("values", [{}, CNN], ids=["mlp", "cnn"])
    def test_a_captured_evaluation_is_that_of_any_slots(
        self, values: dict[str, object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Groups of two of five slots, of which the last is not full, and batches of which the last is not whole."""
        config = configuration(**values, precision="fp64", val_size=77)
        pack = Pack(shape.padded(config), 5, Run(), threads=1, static=True)
        for key in range(5):
            pack.add(key, config, Run(seed=key))
        split = pack._split("val")
        monkeypatch.setitem(BATCH_IMAGES, "features", 30)
        monkeypatch.setitem(BATCH_IMAGES, "images", 30)
        monkeypatch.setattr(evaluate, "_most_slots", lambda *_: 2)
        captured = evaluate.CapturedEvaluation(pack.step.network, split, pack.device)
        for positions in ([4, 0, 2], [1], [0, 1, 2, 3, 4]):
            for mine, other in zip(
                captured.run(positions), evaluate.evaluate_slots(pack.step.network, positions, split), strict=True
            ):
                assert mine == pytest.approx(other, rel=1e-12)

    def test_it_runs_on_meta(self) -> None:
        for values in ({}, {"batch_norm": True}, CNN, SQUEEZE):
            pack = Pack(shape.padded(configuration(**values)), 3, Run(device="meta"), threads=1, static=True)
            evaluate.CapturedEvaluation(pack.step.network, pack._split("val"), pack.device)


def test_few_trials_get_a_step_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of eight trials goes on: from a number of steps on two slots are computed in place of eight."""
    monkeypatch.setattr(packed_step, "FEW_STEPS", 15)
    configs = [configuration(epochs=5 if index == 6 else 1, precision="fp64", dropout=0.1) for index in range(8)]
    trainer = PackedTrainer(BuildOptions(threads=1, configs=tuple(configs[:1])), 8, static=True)
    ours, _ = run_all(trainer, configs)
    theirs, _ = alone(configs)
    assert_same(ours[6], theirs[6], 1e-9)
    (part,) = trainer._parts  # it is kept for the next trial of its kind
    assert part.pack is not None
    assert part.pack.step._captured_few is not None
    captured = part.pack.step._captured
    again = {index: configuration(epochs=2, precision="fp64") for index in range(8)}
    ours, _ = run_all(trainer, list(again.values()))
    theirs, _ = alone(list(again.values()))
    for index in range(8):
        assert_same(ours[index], theirs[index], 1e-9)
    assert trainer._parts == [part]
    assert part.pack.step._captured is captured


def test_reproducible_bits_take_one_step_alone() -> None:
    pack = Pack(shape.padded(configuration(deterministic=True)), 8, Run(), threads=1, static=True)
    assert pack.step._few == 0


class TestCapacity:
    @pytest.mark.parametrize("static", [False, True])
    def test_no_pack_is_larger_than_the_trainer(self, static: bool) -> None:
        """Two kinds of trials: each pack begins with a share of the slots and grows no further than all of them."""
        kinds = [configuration(), configuration(optimizer="adam")]
        trainer = PackedTrainer(BuildOptions(threads=1, configs=tuple(kinds)), 7, static=static)
        for number in range(7):
            trainer.start(number, kinds[0], Run(seed=number))
        assert trainer.place() == []
        (pack,) = trainer.packs
        assert pack.capacity == 7
        assert len(pack.slots) == 7


def test_the_cause_of_a_failed_capture_counts() -> None:
    error = RuntimeError("operation failed due to a previous error during capture")
    assert not is_out_of_memory(error)
    error.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(error)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
