"""What follows the end of a worker: real processes, some of which are no good, on a real database."""

import re
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hpo.database.storage import Storage
from hpo.errors import ExperimentError
from hpo.experiment.experiment import Experiment, create_experiment
from hpo.launchers.local import LocalFleet, plan_slots
from hpo.launchers.registry import LocalOptions
from hpo.launchers.supervise import read_status, supervise
from hpo.settings import Settings
from hpo.studyfile.load import parse_study_file
from hpo.trainers.loading import load_trainers

STUDY = """
name = "supervised"
trainer = "sleeping"
metric = "value"
samplers = ["random"]
budget = { trials = 6 }
[fixed]
epochs = 2
epoch_seconds = 0.05
[space]
lr = { low = 1e-3, high = 1.0, log = true }
"""


@dataclass
class Fleet(LocalFleet):
    """Workers of which those at some places run a program that is no worker."""

    programs: dict[int, str] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)

    def command(self, place: int) -> list[str]:
        self.starts.append(place)
        if place in self.programs:
            return [sys.executable, "-c", self.programs[place]]
        return super().command(place)


class Lines:
    """Progress that keeps the events."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, status: dict[str, Any]) -> None:
        pass

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def experiment(storage: Storage, home: Path) -> Experiment:
    load_trainers("benchmarks.sleeping")
    return create_experiment(storage, parse_study_file(tomllib.loads(STUDY), "study.toml"))[0]


@pytest.fixture
def fleet(experiment: Experiment, address: str, home: Path):
    def make(workers: int, **programs: str) -> Fleet:
        settings = Settings(storage=address, home=home, trainers="benchmarks.sleeping")
        slots = plan_slots(experiment.name, settings, LocalOptions(workers=workers, gpus="none"))
        return Fleet(experiment.name, slots, programs={int(name[1:]): program for name, program in programs.items()})

    return make


def test_a_bad_place_is_left_out_and_the_others_finish(experiment: Experiment, fleet) -> None:
    broken = fleet(2, p0="import sys; print('CUDA error: an illegal memory access'); sys.exit(1)")
    progress = Lines()
    # The good worker takes as long to start as the bad one takes to fail three times.
    supervise(experiment, broken, LocalOptions(), progress)
    assert [study["finished"] for study in read_status(experiment)["studies"]] == [True]
    assert broken.starts.count(0) == 3
    assert broken.starts.count(1) == 1
    last = [line for line in progress.lines if line.startswith("worker 0")][-1]
    assert "    CUDA error: an illegal memory access" in last
    assert last.endswith("its place is left out: 3 workers in a row could not work there")


def test_where_no_place_works_the_first_reason_ends_the_launch(experiment: Experiment, fleet) -> None:
    number = "import os, sys; print('broken beyond repair'); sys.exit(1)"
    broken = fleet(2, p0=number, p1=number)
    began = time.monotonic()
    with pytest.raises(ExperimentError) as caught:
        supervise(experiment, broken, LocalOptions(), Lines())
    # Both end within the same moment: which one the launcher sees first is not determined.
    reason = r"worker [01] cannot go on: it ended with exit code 1\n    broken beyond repair"
    assert re.fullmatch(reason, str(caught.value))
    assert time.monotonic() - began < 10
    assert all(slot.process is None for slot in broken.slots)


def test_arguments_that_make_no_sense_end_it_at_once(experiment: Experiment, fleet) -> None:
    broken = fleet(1, p0="import sys; print('no such option'); sys.exit(2)")
    reason = "worker 0 cannot go on: it ended with exit code 2\n    no such option"
    with pytest.raises(ExperimentError, match=reason) as caught:
        supervise(experiment, broken, LocalOptions(), Lines())
    assert caught.value.exit_code == 2
    assert broken.starts == [0]


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("raise SystemExit(75)", "asked to be replaced"),
        ("raise SystemExit(130)", "was asked to end by a signal"),
    ],
)
def test_ends_without_progress_are_counted(experiment: Experiment, fleet, program: str, how: str) -> None:
    """A memory limit below a worker's own size has it replaced for ever, as something does that ends every worker."""
    broken = fleet(1, p0=program)
    with pytest.raises(ExperimentError, match="4 workers in a row died before any trial moved on") as caught:
        supervise(experiment, broken, LocalOptions(max_restarts=3), Lines())
    assert how in str(caught.value)
    assert len(broken.starts) == 4


def test_what_a_dead_worker_writes_is_no_command_to_the_terminal(experiment: Experiment, fleet) -> None:
    with pytest.raises(ExperimentError) as caught:
        supervise(experiment, fleet(1, p0=r"print('\x1b[2Jx\x07'); raise SystemExit(2)"), LocalOptions(), Lines())
    assert str(caught.value).endswith(r"    \x1b[2Jx\x07")


def test_logs_are_named_by_experiment_and_worker(experiment: Experiment, fleet, home: Path) -> None:
    fleet(2)
    made = fleet(2)
    names = [slot.log_path.name for slot in made.slots]
    assert all(name.startswith("supervised@") for name in names)
    assert [name[-6:] for name in names] == ["-0.log", "-1.log"]
    assert {slot.log_path.parent for slot in made.slots} == {home / "logs"}
