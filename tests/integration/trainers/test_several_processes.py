"""A trial on several devices: torchrun with gloo on the CPU, two processes. Only the first one reports."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from hpo.trainers.errors import ProgramError
from hpo.trainers.process_guard import processes_of
from hpo.trainers.program import ProgramOptions, ProgramTrainer
from hpo.trainers.program_environment import visible_devices
from hpo.trainers.protocol import Ended, EpochEnd, Event, Failed, Run

pytest.importorskip("torch")

TRAIN = """
import os, sys, time
import torch
import torch.distributed as dist
import hpo

dist.init_process_group("gloo")
rank = dist.get_rank()
open(os.path.join(os.environ["HPO_FOLDER"], f"rank-{rank}"), "w").write(str(os.getpid()))
for epoch in range(1, int(sys.argv[1]) + 1):
    total = torch.tensor([float(rank + 1)])
    dist.all_reduce(total)
    hpo.report(acc=total.item(), epoch=epoch)
    time.sleep(0.05)
dist.destroy_process_group()
"""
COMMAND = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node={num_gpus}")


def start(folder: Path, name: str, num_epochs: int) -> ProgramTrainer:
    (folder / "train.py").write_text(TRAIN)
    options = ProgramOptions((*COMMAND, str(folder / "train.py"), str(num_epochs)), "acc", args="none")
    trainer = ProgramTrainer(options)
    trainer.start(name, {}, Run(devices=("cpu", "cpu"), trial_folder=folder / name))
    return trainer


def all_events(trainer: ProgramTrainer) -> list[Event]:
    events: list[Event] = []
    while found := trainer.advance():
        events += found
    return events


def left_over(folder: Path, name: str) -> list[int]:
    return processes_of(f"HPO_FOLDER={folder / name}")


def test_two_trials_of_two_processes_side_by_side(tmp_path: Path) -> None:
    trainers = [start(tmp_path, name, 3) for name in ("one", "two")]
    first = [trainer.advance() for trainer in trainers]
    for trainer, events in zip(trainers, first, strict=True):
        every = [*events, *all_events(trainer)]
        assert [event.metrics for event in every if isinstance(event, EpochEnd)] == [{"acc": 3.0}] * 3
        assert every[-1] in (Ended("one"), Ended("two"))
    assert left_over(tmp_path, "one") == left_over(tmp_path, "two") == []


def test_a_process_of_it_is_killed(tmp_path: Path) -> None:
    trainer = start(tmp_path, "killed", 1000)
    trainer.advance()
    os.kill(int((tmp_path / "killed" / "rank-1").read_text()), signal.SIGKILL)
    last = all_events(trainer)[-1]
    assert isinstance(last, Failed)
    assert isinstance(last.error, ProgramError)
    assert "the program ended with exit code 1" in str(last.error)
    assert left_over(tmp_path, "killed") == []


def test_pruning_ends_all_processes(tmp_path: Path) -> None:
    trainer = start(tmp_path, "pruned", 1000)
    trainer.advance()
    assert len(left_over(tmp_path, "pruned")) >= 3
    started = time.monotonic()
    trainer.stop("pruned")
    assert time.monotonic() - started < 30
    assert left_over(tmp_path, "pruned") == []


@pytest.mark.parametrize(
    ("devices", "visible", "expected"),
    [
        (("cpu", "cpu"), "0,1", ""),
        (("cuda:0", "cuda:1"), None, "0,1"),
        (("cuda:0", "cuda:1"), "4,5,6", "4,5"),
        (("cuda:1",), "GPU-a, GPU-b", "GPU-b"),
        (("cuda",), "3", "3"),
    ],
)
def test_the_gpus_that_a_program_sees(devices: tuple[str, ...], visible: str | None, expected: str) -> None:
    assert visible_devices(devices, visible) == expected
