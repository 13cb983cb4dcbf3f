"""The protocol around the packs: checkpoints, refills, turns, memory, and what is refused."""

import logging
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from hpo.trainers.classifier import entry
from hpo.trainers.classifier.packed import memory, shape, tables
from hpo.trainers.classifier.packed.ahead import Ahead
from hpo.trainers.classifier.packed.probe import choose
from hpo.trainers.classifier.packed.trainer import PackedTrainer
from hpo.trainers.classifier.training import ClassifierTrainer
from hpo.trainers.errors import TrainerError
from hpo.trainers.loading import load_trainers
from hpo.trainers.protocol import BuildOptions, EpochEnd, Failed, Run, Trainer
from hpo.trainers.registry import TRAINERS
from tests.unit.packed_support import alone, assert_same, configuration, packed, run_all


def trainer(slots: int) -> PackedTrainer:
    return PackedTrainer(BuildOptions(threads=1), slots)


KINDS = [
    {"dropout": 0.2},
    {"beta": 0.0},
    {"optimizer": "adam", "lr": 0.002},
    {"batch_norm": True, "batch_size": 25},
]


class TestCheckpoints:
    @pytest.mark.parametrize("values", KINDS)
    @pytest.mark.parametrize("packed_first", [True, False])
    def test_either_trainer_resumes_the_others(self, values: dict[str, object], packed_first: bool) -> None:
        configs = [configuration(**values, width_1=13, epochs=4, precision="fp64")] * 2
        whole, states = alone(configs)

        def make(is_packed: bool) -> Trainer:
            return trainer(2) if is_packed else ClassifierTrainer(BuildOptions(threads=1))

        first, snapshots = run_all(make(packed_first), configs, stop=lambda event: event.epoch == 2)
        runs = {i: Run(seed=i, start_epoch=2, checkpoint=snapshots[i]) for i in (0, 1)}
        second, ends = run_all(make(not packed_first), configs, runs=runs)
        for index in (0, 1):
            assert snapshots[index]["epoch"] == 2
            assert ends[index]["epoch"] == 4
            assert_same(first[index] + second[index], whole[index], 1e-9)
            assert list(ends[index]["network"]) == list(states[index]["network"])
            for name, value in states[index]["network"].items():
                assert ends[index]["network"][name].shape == value.shape
                assert ends[index]["network"][name].dtype == value.dtype
            for mine, theirs in zip(ends[index]["optimizer"], states[index]["optimizer"], strict=True):
                assert {name: value.shape for name, value in mine.items()} == {n: v.shape for n, v in theirs.items()}

    def test_a_missing_checkpoint_fails_that_trial_alone(self) -> None:
        packs = trainer(2)
        packs.start("broken", configuration(), Run(start_epoch=3))
        packs.start("whole", configuration(epochs=1), Run())
        failed, event = packs.advance()
        assert isinstance(failed, Failed)
        assert failed.key == "broken"
        assert str(failed.error) == "cannot start at epoch 3: there is no checkpoint"
        assert isinstance(event, EpochEnd)
        assert (event.key, event.epoch, event.finished) == ("whole", 1, True)
        assert packs.advance() == []


class TestSlots:
    def test_a_refill_allocates_nothing(self) -> None:
        packs = trainer(2)
        packs.start(0, configuration(epochs=1), Run())
        packs.start(1, configuration(epochs=9), Run())
        assert [event.key for event in packs.advance()] == [0, 1]
        (pack,) = packs.packs
        addresses = [stack.data_ptr() for stack in pack.step.network.parameters]
        packs.stop(1)
        for key in (2, 3):
            packs.start(key, configuration(lr=0.01, width_2=11), Run(seed=key))
        assert {event.key for event in packs.advance()} == {2, 3}
        assert packs.packs == [pack]
        assert [stack.data_ptr() for stack in pack.step.network.parameters] == addresses
        assert [slot.key for slot in pack.slots] == [2, 3]

    def test_a_pack_grows_while_its_trials_go_on(self) -> None:
        configs = [configuration(epochs=3, dropout=0.1, precision="fp64") for _ in range(7)]
        packs = trainer(7)
        for key in range(3):
            packs.start(key, configs[key], Run(seed=key))
        curves = {key: [] for key in range(7)}
        started = 3
        while events := packs.advance():
            for event in events:
                assert isinstance(event, EpochEnd)
                curves[event.key].append(
                    {name: v for name, v in event.metrics.items() if not name.startswith("seconds")}
                )
            while started < 7:
                packs.start(started, configs[started], Run(seed=started))
                started += 1
        theirs, _ = alone(configs)
        for key, curve in curves.items():
            assert_same(curve, theirs[key], 1e-9)

    def test_one_too_many_is_refused(self) -> None:
        packs = trainer(1)
        packs.start(0, configuration(), Run())
        with pytest.raises(RuntimeError, match="all slots are taken"):
            packs.start(1, configuration(), Run())

    def test_a_stopped_trial_says_nothing_more(self) -> None:
        packs = trainer(3)
        for key in range(3):
            packs.start(key, configuration(epochs=2), Run(seed=key))
        packs.stop(0)
        assert [event.key for event in packs.advance()] == [1, 2]
        packs.stop(1)
        packs.stop("unknown")
        assert [event.key for event in packs.advance()] == [2]
        assert packs.advance() == []

    def test_trials_that_cannot_be_packed_train_one_after_the_other(self, caplog: pytest.LogCaptureFixture) -> None:
        large = configuration(network="resnet18", train_size=64, val_size=32, epochs=1)
        configs = [large, configuration(epochs=2), large]
        with caplog.at_level(logging.INFO, "hpo"):
            ours, _ = packed(configs, 3)
        theirs, _ = alone(configs)
        assert ours[0] == theirs[0]
        assert ours[2] == theirs[2]
        assert caplog.messages == ["network 'resnet18' has no packed form: such trials train one at a time"]

    def test_many_small_packs_are_said_and_exact(self, caplog: pytest.LogCaptureFixture) -> None:
        kinds = [(opt, act) for opt in ("sgd", "adam", "adamw") for act in ("relu", "tanh")]
        configs = [
            configuration(optimizer=optimizer, activation=activation, lr=0.005, precision="fp64")
            for optimizer, activation in kinds
        ]
        with caplog.at_level(logging.INFO, "hpo"):
            ours, _ = packed(configs, 6)
        theirs, _ = alone(configs)
        for index, curve in theirs.items():
            assert_same(ours[index], curve, 1e-9)
        assert len(caplog.messages) == 1
        assert "many small packs" in caplog.messages[0]


class TestAhead:
    def test_what_is_made_ahead_is_what_would_be_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Initial weights on the thread, and the order, crops and learning rates of each next epoch."""
        monkeypatch.setattr(tables, "FEW_IMAGES", 0)
        configs = [configuration(epochs=3, augment=True, pad=1, scheduler="cosine", width_1=w) for w in (9, 24, 17)]
        plain, _ = packed(configs, 2)
        packs = trainer(2)
        for index, config in enumerate(configs[:2]):
            packs.prepare(config, index)
        packs.prepare(configs[0].model_copy(update={"network": "resnet18"}), 0)  # has no packed form: nothing to do
        assert len(packs._networks._made) == 2
        assert run_all(packs, configs)[0] == plain
        assert not packs._networks._made

    def test_what_nobody_asks_for_is_forgotten(self) -> None:
        made = Ahead[int](2)
        for key in range(5):
            made.prepare(key, lambda key=key: key)  # type: ignore[misc]
        assert list(made._made) == [3, 4]
        assert (made.get(4, lambda: -1), made.get(0, lambda: -1)) == (4, -1)

    def test_a_wanted_trainer_comes_back_within_an_epoch(self) -> None:
        configs = [configuration(epochs=2, batch_size=2, precision="fp64") for _ in range(3)]  # 160 steps an epoch
        packs, wanted = trainer(3), [True]
        packs.is_wanted = lambda: wanted[0]
        for key in range(2):
            packs.start(key, configs[key], Run(seed=key))
        assert packs.advance() == []
        assert [slot.step for slot in packs.packs[0].slots] == [64, 64]
        wanted[0] = False
        packs.start(2, configs[2], Run(seed=2))
        curves: dict[int, list[object]] = {key: [] for key in range(3)}
        while events := packs.advance():
            for event in events:
                assert isinstance(event, EpochEnd)
                curves[event.key].append(event.metrics["val_loss"])  # type: ignore[index]
        theirs, _ = alone(configs)
        for key, losses in curves.items():
            assert losses == pytest.approx([metrics["val_loss"] for metrics in theirs[key]], rel=1e-9)


class TestShape:
    def test_what_may_differ_shares_a_pack(self) -> None:
        template = shape.padded(configuration(width_1=24, width_2=16, batch_size=32))
        for values in ({"lr": 1.0}, {"dropout": 0.5}, {"scheduler": "cosine"}, {"epochs": 7}, {"width_1": 3}):
            assert shape.holds(template, configuration(**values))
        for values in ({"optimizer": "adam"}, {"batch_norm": True}, {"precision": "fp64"}, {"train_size": 64}):
            assert not shape.holds(template, configuration(**values))
        for values in ({"width_1": 25}, {"batch_size": 33}):
            assert not shape.holds(template, configuration(**values))

    def test_sizes_are_rounded_up(self) -> None:
        template = shape.padded(configuration(width_1=17, width_2=33, batch_size=20))
        assert (template.width_1, template.width_2, template.batch_size) == (24, 48, 32)

    def test_trials_of_very_different_size_do_not_share_on_a_cpu(self) -> None:
        packs = trainer(4)
        for key, width in enumerate((24, 20, 2500, 2000)):
            packs.start(key, configuration(width_1=width, epochs=1), Run(seed=key))
        assert packs.place() == []
        assert sorted([slot.config.width_1 for slot in pack.slots] for pack in packs.packs) == [[24, 20], [2500, 2000]]


class TestChoice:
    def test_slots_decide_which_trainer_is_built(self) -> None:
        load_trainers([])
        row = TRAINERS["classifier"]
        assert row.max_slots is None
        assert isinstance(row.build(BuildOptions(slots=1)), ClassifierTrainer)
        built = row.build(BuildOptions(slots=5))
        assert isinstance(built, PackedTrainer)
        assert built.capacity == 5

    def test_networks_that_do_not_pack_are_not_measured(self, caplog: pytest.LogCaptureFixture) -> None:
        resnet = configuration(network="resnet18", dataset="cifar10")
        with caplog.at_level(logging.INFO, "hpo"):
            assert choose(BuildOptions(configs=(resnet,))) == (1, 1)
        assert caplog.messages == ["trials train one at a time: network 'resnet18' has no packed form"]

    def test_the_choice_is_the_fastest_and_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "hpo"):
            slots, _ = choose(BuildOptions(configs=(configuration(),)))
        chosen, _, figures = caplog.messages[0].partition(" slots: trial-epochs a second by number of slots: ")
        rates = {int(k): float(v) for k, v in (pair.split(": ") for pair in figures.split(", "))}
        assert int(chosen) == slots
        assert 1 in rates
        assert slots in rates
        assert all(rates[slots] * 1.26 > rate for rate in rates.values())

    def test_a_trial_alone_on_a_gpu_is_a_pack_of_one(self) -> None:
        mlp, resnet = configuration(), configuration(network="resnet18", dataset="cifar10")
        for device, configs, expected in (
            ("cuda:0", (mlp,), True),
            ("cuda:0", (mlp, resnet), False),
            ("cuda:0", (mlp.model_copy(update={"compiled": True}),), False),
            ("cuda:0", (), False),
            ("cpu", (mlp,), False),
        ):
            assert entry._is_graphed(BuildOptions(device, 1, configs=configs)) == expected

    def test_an_observed_trial_has_a_network_of_its_own(self) -> None:
        config, seen = configuration(epochs=1), list[object]()
        curves, _ = packed([config], 1, runs={0: Run(seed=0, observe=seen.append)})
        assert len(seen) == 11  # before the first of 10 steps and after each
        assert curves == alone([config])[0]

    @pytest.mark.parametrize("slots", [0, -1])
    def test_slots_below_1(self, slots: int) -> None:
        with pytest.raises(TrainerError, match=f"slots must be at least 1, not {slots}"):
            trainer(slots)

    def test_slots_above_what_memory_holds(self) -> None:
        options = BuildOptions(configs=(configuration(width_1=60_000, width_2=60_000, batch_size=32),))
        with pytest.raises(TrainerError, match=r"slots = 50000 is more than memory holds: cpu has .* take at most \d+"):
            PackedTrainer(options, 50_000)

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_workers_whose_slots_exceed_the_memory_together(self, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """As many as fit for one worker do not fit for each of two: both refuse them before they train."""
        configs = (configuration(width_1=64, width_2=64, batch_size=32),)
        free = 8 * 2**30
        monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
        monkeypatch.setattr(memory.torch.cuda, "mem_get_info", lambda device: (free, free))
        monkeypatch.setattr(memory, "_held_bytes", lambda: 0)
        alone = BuildOptions(device=device, configs=configs, memory_bytes=free)
        slots = memory.most_slots(alone)
        assert slots is not None
        memory.check_slots(alone, slots)
        each = BuildOptions(device=device, configs=configs, memory_bytes=free // 2, device_workers=2)
        message = rf"slots = {slots} is more than memory holds: {device} has .* take at most (\d+)"
        with pytest.raises(TrainerError, match=message) as caught:
            memory.check_slots(each, slots)
        found = re.search(r"take at most (\d+)", str(caught.value))
        assert found is not None
        assert 2 * int(found[1]) <= slots
        memory.check_slots(each, int(found[1]))


OUT_OF_MEMORY = """
import resource, torch
from tests.unit.packed_support import configuration
from hpo.trainers.classifier.packed.trainer import PackedTrainer
from hpo.trainers.protocol import BuildOptions, EpochEnd, Evicted, Run

torch.set_num_threads(1)
trainer = PackedTrainer(BuildOptions(threads=1), 32)
config = configuration(width_1=1024, width_2=1024, train_size=64, val_size=20, epochs=1)
trainer.start("first", config, Run())
trainer.advance()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20, used + 100 * 2**20))
todo, held, finished, evicted = list(range(32)), set(), set(), 0
while todo or held:
    while todo and len(held) < trainer.capacity:
        trainer.start(todo[0], config, Run(seed=todo[0]))
        held.add(todo.pop(0))
    for event in trainer.advance():
        held.remove(event.key)
        if isinstance(event, Evicted):
            assert event.reason.startswith("out of memory with "), event
            todo.append(event.key)
            evicted += 1
        else:
            assert isinstance(event, EpochEnd) and event.finished, event
            finished.add(event.key)
assert finished == set(range(32))
print(trainer.capacity, evicted)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS")
def test_out_of_memory_halves_the_slots_and_loses_no_trial() -> None:
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    capacity, evicted = map(int, done.stdout.split())
    assert 1 <= capacity <= 16
    assert evicted >= 16 - capacity
    assert "out of memory: from now on" in done.stderr


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_was_captured_at_an_epochs_end_stays_what_it_was(optimizer: str) -> None:
    """Trials of two widths in one pack, whose epochs end together and apart; the pack trains on before it is read."""
    packs = trainer(3)
    for key, (width, batch) in enumerate(((24, 32), (12, 32), (24, 16))):
        values = {"width_1": width, "batch_size": batch, "epochs": 3, "batch_norm": True, "optimizer": optimizer}
        packs.start(key, configuration(**values), Run(seed=key))
    pending = []
    while events := packs.advance():
        for event in events:
            assert isinstance(event, EpochEnd)
            assert event.snapshot is not None
            assert event.capture is not None
            pending.append((event.capture(), event.snapshot()))
    assert len(pending) == 9
    for make, snapshot in pending:
        state = make()
        assert state["epoch"] == snapshot["epoch"]
        assert state["network"].keys() == snapshot["network"].keys()
        for name, value in snapshot["network"].items():
            assert torch.equal(state["network"][name], value), name
        for mine, expected in zip(state["optimizer"], snapshot["optimizer"], strict=True):
            assert mine.keys() == expected.keys()
            assert all(torch.equal(mine[name], value) for name, value in expected.items())
