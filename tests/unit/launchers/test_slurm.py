"""What ``scontrol`` prints of a job array, read."""

from pathlib import Path

import pytest

from hpo.launchers.registry import SlurmOptions
from hpo.launchers.slurm import SlurmFleet
from hpo.launchers.slurm_commands import Task, parse_tasks, ranges
from hpo.settings import Settings

SHOWN = """\
JobId=12 ArrayJobId=12 ArrayTaskId=3-4,7%2 JobName=hpo-x JobState=PENDING Reason=Resources Restarts=0 ExitCode=0:0
JobId=13 ArrayJobId=12 ArrayTaskId=0 JobName=hpo-x JobState=RUNNING Reason=None Restarts=1 ExitCode=0:0
JobId=14 ArrayJobId=12 ArrayTaskId=1 JobName=hpo-x JobState=FAILED Reason=NonZeroExitCode ExitCode=70:0
JobId=15 ArrayJobId=12 ArrayTaskId=2 JobName=hpo-x JobState=FAILED Reason=RaisedSignal:9(Killed) ExitCode=0:9
"""


def test_tasks() -> None:
    assert parse_tasks(SHOWN) == [
        *(Task("12", place, "PENDING", 0, "Resources") for place in (3, 4, 7)),
        Task("12", 0, "RUNNING", 0, "None"),
        Task("12", 1, "FAILED", 70, "NonZeroExitCode"),
        Task("12", 2, "FAILED", -9, "RaisedSignal:9(Killed)"),
    ]
    assert parse_tasks("") == []


class Silent:
    def update(self, status: object) -> None: ...

    def line(self, text: str) -> None: ...


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("HPO_WORKER_ID", "HPO_LAUNCHER_PID", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "there")

    def make(name: str = "e", **options: object) -> SlurmFleet:
        settings = Settings(storage="postgresql://there/hpo", home=tmp_path)
        return SlurmFleet(name, settings, SlurmOptions(workers=2, **options), Silent())

    return make


def test_resources(fleet) -> None:
    assert fleet()._resources() == []
    given = fleet(
        partition="gpu", time="1:00:00", qos="low", cpus_per_worker=4, gpus_per_worker=1, sbatch="--mem=8G -x 'a b'"
    )
    assert given._resources() == [
        *("--partition=gpu", "--time=1:00:00", "--qos=low", "--cpus-per-task=4", "--gres=gpu:1"),
        *("--mem=8G", "-x", "a b"),
    ]
    assert "--gres=gpu:1" not in fleet(gpus_per_worker=1, gpus="none")._resources()


def test_the_environment_of_a_job_is_not_that_of_the_job_that_launched_it(fleet) -> None:
    environment = fleet()._environment()
    assert environment["HPO_STORAGE"] == "postgresql://there/hpo"
    assert environment["SLURM_CONF"] == "there"
    assert not {"HPO_WORKER_ID", "HPO_LAUNCHER_PID", "SLURM_JOB_ID"} & environment.keys()
    assert environment["HPO_DEVICE"] == "cpu"
    assert "HPO_DEVICE" not in fleet(gpus_per_worker=1)._environment()


def test_names_are_quoted_and_tell_experiments_apart(fleet) -> None:
    assert fleet("-x; rm 'a'")._script().splitlines()[-1].endswith("worker -- '-x; rm '\"'\"'a'\"'\"''")
    assert fleet("a b").job_name != fleet("a_b").job_name
    assert fleet("e").job_name == fleet("e").job_name


def test_ranges_are_short() -> None:
    assert ranges(list(range(2000))) == "0-1999"
    assert ranges([5, 0, 2, 1, 7, 8]) == "0-2,5,7-8"
    assert ranges([3]) == "3"
