"""Trials of several seeds: the mean of trainings that are, each, what one seed alone gives."""

import importlib
import json
import math
import os
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo.search.seeds import derive_seed, seeds_of_trial
from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.generator import GeneratorTrainer
from hpo.trainers.program import ProgramOptions, ProgramTrainer
from hpo.trainers.protocol import BuildOptions, Config, Ended, EpochEnd, Event, Evicted, Failed, Run, State
from hpo.trainers.registry import TRAINERS, TrainerEntry
from hpo.trainers.seed_member import mean_metrics, seed_values
from hpo.trainers.several_seeds import SeedsTrainer, build_with_seeds

SEEDS = seeds_of_trial(5, 3)


class Epochs(Config):
    epochs: int = 4


def noisy(config: Epochs, run: Run) -> Iterator[dict[str, float]]:
    """Draws from every global generator, changes folder and environment; saves what it needs."""
    state = run.checkpoint or {"total": 0.0}
    if run.checkpoint is None and run.trial_folder is not None:
        run.folder.mkdir(exist_ok=True)
    os.environ["OF_THE_TRAINING"] = str(run.seed)
    for _ in range(run.start_epoch, config.epochs):
        assert os.environ["OF_THE_TRAINING"] == str(run.seed)
        drawn = random.random() + float(np.random.rand()) + float(torch.rand(()))
        state["total"] += drawn
        run.save(state)
        yield {"loss": drawn, "size": 7.0}


def entry_of(function: Any, max_slots: int | None = 1) -> TrainerEntry:
    return TrainerEntry("noisy", Epochs, lambda options: GeneratorTrainer(function), "", max_slots=max_slots)


def run_of(seeds: tuple[int, ...] = SEEDS, **more: Any) -> Run:
    return Run(seed=seeds[0], seeds=seeds, metric="loss", **more)


def history_of(trainer: Any, config: Any, run: Run, stop_after: int | None = None) -> tuple[list[dict], State | None]:
    """The metrics of each epoch, and the last state that can be continued, as a checkpoint keeps it."""
    trainer.start("t", config, run)
    history: list[dict[str, float]] = []
    state = None
    while events := trainer.advance():
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            if not isinstance(event, EpochEnd):
                return history, state
            history.append(dict(event.metrics))
            if event.snapshot is not None and not event.finished:
                state = event.capture()() if event.capture is not None else event.snapshot()
            if event.finished or event.epoch == stop_after:
                trainer.stop("t")
                return history, state
    raise AssertionError("it never ended")


def test_seeds_are_derived_from_the_trials_own():
    assert (5, derive_seed(5, "seed", 1), derive_seed(5, "seed", 2)) == SEEDS
    assert seeds_of_trial(5, 1) == (5,)
    assert len(set(seeds_of_trial(5, 50))) == 50


def test_the_mean_and_the_spread_of_an_epoch():
    of_seeds = [{"loss": 1.0, "size": 7.0}, {"loss": 2.0, "size": 7.0}, {"loss": 6.0, "size": 7.0, "extra": 1.0}]
    found = mean_metrics(of_seeds, ["loss"])
    assert found.pop("loss_std") == statistics.stdev([1.0, 2.0, 6.0])
    assert found == {"loss": 3.0, "size": 7.0, "extra": 1.0, "loss_seed_0": 1.0, "loss_seed_1": 2.0, "loss_seed_2": 6.0}
    assert seed_values(found, "loss") == [1.0, 2.0, 6.0]
    assert seed_values({"loss": 1.0}, "loss") == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_seed_that_diverges_makes_the_mean_not_finite(bad: float):
    found = mean_metrics([{"loss": 1.0}, {"loss": bad}, {"loss": 1e308}], ["loss"])
    assert not math.isfinite(found["loss"])
    assert "loss_std" not in found
    assert math.isfinite(mean_metrics([{"loss": 1.7e308}, {"loss": 1.7e308}], [])["loss"])


def test_trainings_that_take_turns_are_each_what_one_seed_alone_gives(tmp_path: Path):
    alone = [history_of(GeneratorTrainer(noisy), Epochs(), run_of((seed,)))[0] for seed in SEEDS]
    before = random.getstate()
    trainer = build_with_seeds(entry_of(noisy), BuildOptions(), 3)
    assert trainer.capacity == 1
    together, _ = history_of(trainer, Epochs(), run_of(work_in_folder=True, trial_folder=tmp_path / "trial"))
    assert random.getstate() == before  # nothing of it is left behind
    assert "OF_THE_TRAINING" not in os.environ
    assert [seed_values(metrics, "loss") for metrics in together] == [
        [history[epoch]["loss"] for history in alone] for epoch in range(4)
    ]
    assert [metrics["loss"] for metrics in together] == [
        statistics.fmean(history[epoch]["loss"] for history in alone) for epoch in range(4)
    ]
    assert sorted(path.name for path in (tmp_path / "trial").iterdir()) == ["seed-1", "seed-2"]


def deterministic(config: Epochs, run: Run) -> Iterator[dict[str, float]]:
    """As a trainer of the user's own that continues exactly: its random numbers are of the seed and the epoch."""
    state = run.checkpoint or {"total": 0.0}
    for epoch in range(run.start_epoch, config.epochs):
        state["total"] += random.Random(f"{run.seed}, {epoch}").random()
        if epoch % 2 or run.seed == SEEDS[0]:
            run.save(state)  # not all seeds save at the same epochs
        yield {"loss": state["total"]}


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_resumed_trial_gives_the_same_bits(stop_after: int):
    entry = entry_of(deterministic)
    whole, _ = history_of(build_with_seeds(entry, BuildOptions(), 3), Epochs(), run_of())
    _, state = history_of(build_with_seeds(entry, BuildOptions(), 3), Epochs(), run_of(), stop_after)
    resumed, _ = history_of(
        build_with_seeds(entry, BuildOptions(), 3),
        Epochs(),
        run_of(start_epoch=stop_after, checkpoint=json.loads(json.dumps(state))),
    )
    assert whole[:stop_after] + resumed == whole


def test_a_training_that_ends_before_the_others_counts_on_with_its_last_epoch():
    def train(config: Epochs, run: Run) -> Iterator[dict[str, float]]:
        for epoch in range(run.start_epoch, 1 + SEEDS.index(run.seed)):
            run.save({})
            yield {"loss": float(epoch)}

    entry = entry_of(train)
    whole, _ = history_of(build_with_seeds(entry, BuildOptions(), 3), Epochs(), run_of())
    assert [seed_values(metrics, "loss") for metrics in whole] == [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 2.0]]
    _, state = history_of(build_with_seeds(entry, BuildOptions(), 3), Epochs(), run_of(), stop_after=2)
    resumed, _ = history_of(
        build_with_seeds(entry, BuildOptions(), 3), Epochs(), run_of(start_epoch=2, checkpoint=state)
    )
    assert resumed == whole[2:]


def test_a_training_that_fails_fails_its_trial_and_stops_the_others():
    closed: list[int] = []

    def train(config: Epochs, run: Run) -> Iterator[dict[str, float]]:
        try:
            yield {"loss": 1.0}
            if run.seed == SEEDS[1]:
                raise ValueError("this seed fails")
            yield {"loss": 1.0}
        finally:
            closed.append(run.seed)

    trainer = build_with_seeds(entry_of(train), BuildOptions(), 3)
    trainer.start("t", Epochs(), run_of())
    (first,) = trainer.advance()
    assert isinstance(first, EpochEnd)
    (failed,) = trainer.advance()
    assert isinstance(failed, Failed)
    assert (failed.key, str(failed.error)) == ("t", "this seed fails")
    assert sorted(closed) == sorted(SEEDS)
    assert trainer.advance() == []
    trainer.start("next", Epochs(), run_of())
    (again,) = trainer.advance()
    assert again.key == "next"


def test_a_metric_that_is_no_number_fails_the_trial():
    def train(config: Epochs, run: Run) -> Iterator[dict[str, Any]]:
        yield {"loss": "high"}

    trainer = build_with_seeds(entry_of(train), BuildOptions(), 2)
    trainer.start("t", Epochs(), run_of(SEEDS[:2]))
    (failed,) = trainer.advance()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, TypeError)


class Slots:
    """Slots whose trainings end their epochs at different times; the capacity may fall."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.epochs: dict[Any, int] = {}
        self.most_at_once = 0
        self.evicts: list[Any] = []
        self._calls = 0

    def start(self, key: Any, config: Epochs, run: Run) -> None:
        assert len(self.epochs) < self.capacity
        self.epochs[key] = run.start_epoch
        self.most_at_once = max(self.most_at_once, len(self.epochs))

    def advance(self) -> list[Event]:
        if self.evicts:
            key = self.evicts.pop()
            del self.epochs[key]
            self.capacity = 2
            return [Evicted(key, "out of memory")]
        keys: list[Any] = []
        while self.epochs and not keys:
            self._calls += 1
            keys = [key for index, key in enumerate(self.epochs) if (self._calls + index) % 3]
        events: list[Event] = []
        for key in keys:
            self.epochs[key] += 1
            epoch, state = self.epochs[key], {"epoch": self.epochs[key]}
            finished = epoch == 4
            events.append(
                EpochEnd(
                    key, epoch, {"loss": epoch + key[1] / 8}, finished, lambda s=state: s, lambda s=state: lambda: s
                )
            )
            if finished:
                self.stop(key)
        return events

    def stop(self, key: Any) -> None:
        self.epochs.pop(key, None)


def means() -> list[float]:
    return [epoch + 1 / 8 for epoch in range(1, 5)]


def test_a_packing_trainer_gives_a_trial_as_many_slots_as_it_has_seeds():
    slots = Slots(7)
    trainer = SeedsTrainer([slots], 3)
    assert (trainer.capacity, trainer.slots) == (2, 7)
    for key in "ab":
        trainer.start(key, Epochs(), run_of())
    with pytest.raises(RuntimeError, match="all slots are taken"):
        trainer.start("c", Epochs(), run_of())
    found: dict[str, list[float]] = {"a": [], "b": []}
    while events := trainer.advance():
        for event in events:
            found[event.key].append(event.metrics["loss"])
    assert found == {"a": means(), "b": means()}
    assert slots.most_at_once == 6
    assert not slots.epochs


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_trainings_that_are_ahead_of_the_others_resume_where_they_are(stop_after: int):
    whole, _ = history_of(SeedsTrainer([Slots(3)], 3), Epochs(), run_of())
    _, state = history_of(SeedsTrainer([Slots(3)], 3), Epochs(), run_of(), stop_after)
    assert state is not None
    epochs = [kept["epoch"] for kept in state["seeds"]]
    assert min(epochs) == stop_after  # the slowest one; the others may be ahead
    resumed, _ = history_of(
        SeedsTrainer([Slots(3)], 3),
        Epochs(),
        run_of(start_epoch=stop_after, checkpoint=json.loads(json.dumps(state))),
    )
    assert whole[:stop_after] + resumed == whole


def test_a_trial_of_which_one_slot_is_evicted_leaves_whole_and_fits_into_fewer_slots_later():
    slots = Slots(3)
    trainer = SeedsTrainer([slots], 3)
    trainer.start("a", Epochs(), run_of())
    trainer.advance()
    slots.evicts.append(("a", 1))
    assert trainer.advance() == [Evicted("a", "out of memory")]
    assert not slots.epochs
    assert trainer.capacity == 1
    history, _ = history_of(trainer, Epochs(), run_of())  # in two slots, one training waiting for another
    assert [metrics["loss"] for metrics in history] == means()
    assert slots.most_at_once == 3


def digits(**more: Any) -> ClassifierConfig:
    return ClassifierConfig(dataset="digits", network="mlp", width_1=8, width_2=8, epochs=3, batch_size=64, **more)


def without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in metrics.items() if not k.startswith("seconds")} for metrics in history]


@pytest.mark.parametrize("slots", [6, 1])
def test_the_classifiers_trainings_are_packed_or_take_turns_and_resume_to_the_bit(slots: int):
    importlib.import_module("hpo.trainers.classifier.entry")
    entry = TRAINERS["classifier"]

    def made(num_seeds: int) -> Any:
        return build_with_seeds(entry, BuildOptions(threads=1, slots=slots, configs=(digits(),)), num_seeds)

    def run(**more: Any) -> Run:
        return Run(seed=SEEDS[0], seeds=SEEDS, metric="val_loss", **more)

    trainer = made(3)
    assert trainer.capacity == (2 if slots == 6 else 1)
    whole, _ = history_of(trainer, digits(), run())
    alone = [history_of(made(1), digits(), Run(seed=seed))[0] for seed in SEEDS]
    assert [seed_values(metrics, "val_loss") for metrics in whole] == [
        [history[epoch]["val_loss"] for history in alone] for epoch in range(3)
    ]
    _, state = history_of(made(3), digits(), run(), stop_after=1)
    resumed, _ = history_of(made(3), digits(), run(start_epoch=1, checkpoint=state))
    assert without_seconds(whole[:1] + resumed) == without_seconds(whole)


PROGRAM = """
import json, os, sys, time
seed, folder = int(os.environ["HPO_SEED"]), os.environ["HPO_CHECKPOINT_DIR"]
done = len(os.listdir(folder))
for epoch in range(done + 1, 4):
    open(os.path.join(folder, str(epoch)), "w").close()
    print(json.dumps({"epoch": epoch, "loss": seed % 97 + epoch, "began": time.time()}), flush=True)
    time.sleep(float(sys.argv[2]))
sys.exit(3 if seed == int(sys.argv[1]) else 0)
"""


def programs(tmp_path: Path, fails: int = -1, seconds: float = 0.02) -> SeedsTrainer:
    script = tmp_path / "train.py"
    script.write_text(PROGRAM)
    options = ProgramOptions((sys.executable, str(script), str(fails), str(seconds)), "loss", args="none")
    return SeedsTrainer([ProgramTrainer(options) for _ in SEEDS], 3)


def test_a_program_runs_once_for_each_seed_in_a_folder_of_its_own(tmp_path: Path):
    history, _ = history_of(programs(tmp_path), {}, run_of(trial_folder=tmp_path / "trial"))
    assert [seed_values(metrics, "loss") for metrics in history] == [
        [seed % 97 + epoch for seed in SEEDS] for epoch in (1, 2, 3)
    ]
    assert {path.parent.name for path in (tmp_path / "trial").rglob("checkpoints")} == {"trial", "seed-1", "seed-2"}


def test_a_program_goes_on_from_the_checkpoints_of_each_seed(tmp_path: Path):
    trial = tmp_path / "trial"
    trainer = programs(tmp_path, seconds=0.3)
    trainer.start("t", {}, run_of(trial_folder=trial))
    while not isinstance(event := trainer.advance()[0], EpochEnd) or event.snapshot is None:
        pass
    state = event.snapshot()
    trainer.close()
    assert trainer.advance() == []
    resumed, _ = history_of(
        programs(tmp_path), {}, run_of(trial_folder=trial, start_epoch=event.epoch, checkpoint=state, attempt=1)
    )
    # A program may have gone on for an epoch before it was ended: that one is lost for all of them.
    later = [statistics.fmean(seed % 97 + epoch for seed in SEEDS) for epoch in range(event.epoch + 1, 4)]
    found = [metrics["loss"] for metrics in resumed]
    assert found
    assert found == later[-len(found) :]


def test_a_program_that_fails_for_one_seed_fails_the_trial(tmp_path: Path):
    with pytest.raises(Exception, match="ended with exit code 3"):
        history_of(programs(tmp_path, SEEDS[2]), {}, run_of(trial_folder=tmp_path / "trial"))


def test_a_program_that_cannot_be_started_fails_the_trial(tmp_path: Path):
    options = ProgramOptions((str(tmp_path / "absent"),), "loss", args="none")
    trainer = SeedsTrainer([ProgramTrainer(options) for _ in SEEDS], 3)
    trainer.start("t", {}, run_of(trial_folder=tmp_path / "trial"))
    (failed,) = trainer.advance()
    assert isinstance(failed, Failed)
    assert "cannot be started" in str(failed.error)
    assert Ended("t") not in trainer.advance()
