"""Checkpoints on a thread of their own: how often they are written, and that none is lost or left behind."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo.database.claims import Claim
from hpo.errors import CheckpointError
from hpo.files.checkpoints import CheckpointFolder
from hpo.trainers.protocol import EpochEnd, State
from hpo.worker.leases import Leases
from hpo.worker.running_trial import RunningTrial
from hpo.worker.saving import CheckpointSaver


def running(trial_id: int = 1) -> RunningTrial:
    claim = Claim(study_id=1, trial_id=trial_id, number=trial_id, lineage=trial_id, attempt=0, fresh=True)
    return RunningTrial(claim, study=None, seed=0)  # type: ignore[arg-type]


def ended(epoch: int, make: Callable[[], State] | None = None) -> EpochEnd:
    return EpochEnd(1, epoch, {"loss": 1.0}, False, capture=lambda: make or (lambda: {"epoch": epoch}))


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path, "key")


def saver(folder: CheckpointFolder, seconds: float | None) -> CheckpointSaver:
    return CheckpointSaver({1: folder}, Leases(), seconds)


def epoch_on_disk(folder: CheckpointFolder, trial: RunningTrial) -> int | None:
    checkpoint = folder.latest(trial.claim.lineage)
    return None if checkpoint is None else checkpoint.epoch


def test_a_trial_that_is_given_back_leaves_its_last_epoch(folder: CheckpointFolder) -> None:
    saving, trial = saver(folder, 1000), running()
    for epoch in range(1, 6):
        trial.history.append({"loss": 1.0})
        assert saving.offer(trial, ended(epoch), 1) is None
    assert epoch_on_disk(folder, trial) is None
    saving.flush([trial.trial_id])
    checkpoint = folder.latest(trial.claim.lineage)
    assert checkpoint is not None
    assert (checkpoint.epoch, checkpoint.state, len(checkpoint.history)) == (5, {"epoch": 5}, 5)


def test_each_epoch_is_written_with_0_seconds(folder: CheckpointFolder) -> None:
    saving, trial = saver(folder, 0.0), running()
    saving.offer(trial, ended(1), 1)
    deadline = time.monotonic() + 20
    while epoch_on_disk(folder, trial) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_by_default_they_cost_a_fiftieth_of_the_time(folder: CheckpointFolder) -> None:
    """Each takes 20 ms; in about a second of training one may be written."""
    saving, trial, made = saver(folder, None), running(), []

    def slow(epoch: int) -> Callable[[], State]:
        def make() -> State:
            time.sleep(0.02)
            made.append(epoch)
            return {}

        return make

    began, epoch = time.monotonic(), 0
    while time.monotonic() - began < 1.0:
        epoch += 1
        saving.offer(trial, ended(epoch, slow(epoch)), 1)
        time.sleep(0.005)
    assert epoch > 10
    assert 1 <= len(made) <= 3, made


def test_nothing_is_written_of_an_ended_trial(folder: CheckpointFolder) -> None:
    saving, trial, entered, go_on = saver(folder, 0.0), running(), threading.Event(), threading.Event()

    def make() -> State:
        entered.set()
        go_on.wait(20)
        return {}

    saving.offer(trial, ended(1, make), 1)
    assert entered.wait(20)
    threading.Timer(0.1, go_on.set).start()
    saving.forget(trial.trial_id)  # waits for the one that is being written
    folder.remove(trial.claim.lineage)
    time.sleep(0.1)
    assert epoch_on_disk(folder, trial) is None


@pytest.mark.parametrize("state", [{"a": {1: object()}}, None], ids=["no state of ours", "raises"])
def test_what_cannot_be_saved_is_the_trials(folder: CheckpointFolder, state: Any) -> None:
    saving, trial = saver(folder, 0.0), running()

    def make() -> State:
        if state is None:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return dict(state)

    saving.offer(trial, ended(1, make), 1)
    saving.flush([trial.trial_id])
    ((failed, error),) = saving.errors()
    assert failed is trial
    assert isinstance(error, (TypeError, RuntimeError))
    assert saving.errors() == []


def test_a_disk_that_takes_nothing_ends_the_worker(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a file where the folder is to be")
    saving, trial = saver(CheckpointFolder(tmp_path, "key"), 0.0), running()
    saving.offer(trial, ended(1), 1)
    saving.flush([trial.trial_id])
    with pytest.raises(CheckpointError, match="cannot be written"):
        saving.errors()


def test_the_state_of_training_code_is_on_disk_before_it_goes_on(folder: CheckpointFolder) -> None:
    saving, trial = saver(folder, None), running()
    saving.offer(trial, EpochEnd(1, 3, {"loss": 1.0}, False, lambda: {"x": 1}), 1)
    assert epoch_on_disk(folder, trial) == 3


def test_the_state_of_training_code_may_change_before_it_is_written(folder: CheckpointFolder) -> None:
    saving, trial, state = saver(folder, 1000.0), running(), {"x": [1]}
    saving.offer(trial, EpochEnd(1, 3, {"loss": 1.0}, False, lambda: state), 1)
    state["x"].append(2)
    saving.flush([trial.trial_id])
    checkpoint = folder.latest(trial.claim.lineage)
    assert checkpoint is not None
    assert checkpoint.state == {"x": [1]}
