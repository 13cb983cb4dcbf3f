"""Machines with faults: a full disk, a clock that jumps."""

import contextlib
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from benchmarks.postgres_server import PostgresServer
from hpo.database.storage import Storage, open_storage
from hpo.files.checkpoints import CheckpointFolder

from .conftest import REPOSITORY, Hpo
from .outcomes import one_line, trials_of

Study = Callable[..., Path]
Disk = Callable[[Path, str], Path]

BULKY = """
import os
from collections.abc import Iterator

import hpo


class Config(hpo.Config):
    index: int
    epochs: int = 4


@hpo.trainer("bulky", metrics={"value": "maximize"})
def bulky(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    for epoch in range(run.start_epoch + 1, config.epochs + 1):
        with open(os.environ["BULKY_LOG"], "a") as log:
            log.write(f"{config.index}:{epoch}\\n")
        if (config.index, epoch) == (1, 3) and (filler := os.environ.get("FILLER")):
            with open(filler, "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"x" * 65536)
                except OSError:
                    pass
        run.save({"epoch": epoch, "weights": "w" * 200_000})
        yield {"value": config.index + epoch / 10}
"""

BULKY_STUDY = """
name = "bulky"
trainer = "bulky"
metric = "value"
samplers = ["grid"]
budget = { trials = 3 }
[space]
index = { low = 0, high = 2, grid = true }
"""


@pytest.fixture
def disk() -> Iterator[Disk]:
    """Mounts a small disk of its own at a folder."""
    mounted: list[Path] = []

    def mount(folder: Path, size: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Writes a file until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


class TestFullDisk:
    def test_of_the_checkpoints_in_the_middle_of_a_run(
        self, disk: Disk, hpo_command: Hpo, home: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "bulky.py").write_text(BULKY)
        (tmp_path / "bulky.toml").write_text(BULKY_STUDY)
        checkpoints = disk(home / "checkpoints", "2m")
        log, filler = tmp_path / "log", checkpoints / "filler"
        command = ("launch", "bulky.toml", "--trainers", "bulky", "--workers", "1")
        full = hpo_command(*command, BULKY_LOG=str(log), FILLER=str(filler))
        assert full.returncode == 1
        (key,) = [path.name for path in checkpoints.iterdir() if path.is_dir()]
        path = f"{checkpoints}/{key}/000001/000003.ckpt"
        assert f"error: the checkpoint {path} cannot be written: No space left on device" in full.stderr
        assert "Traceback" not in full.stderr
        # The last whole checkpoint stays, and nothing that is half written.
        assert sorted(path.name for path in (checkpoints / key / "000001").iterdir()) == ["000001.ckpt", "000002.ckpt"]
        kept = CheckpointFolder(checkpoints, key).latest(1)
        assert kept is not None
        assert (kept.epoch, len(kept.state["weights"])) == (2, 200_000)
        status = json.loads(hpo_command("status", "bulky", "--json", "--trainers", "bulky").stdout)
        (study,) = status["studies"]
        assert study["states"] == {"complete": 1, "pruned": 0, "running": 0, "waiting": 1, "failed": 0} or (
            # The next one may have been claimed ahead, and is given back too.
            study["states"] == {"complete": 1, "pruned": 0, "running": 0, "waiting": 2, "failed": 0}
        )

        filler.unlink()
        again = hpo_command(*command, BULKY_LOG=str(log))
        assert again.returncode == 0, again.stderr
        trials = trials_of(open_storage(home=home), "bulky/grid/0")
        complete = {trial.user_attrs["lineage"]: trial for trial in trials if trial.state is TrialState.COMPLETE}
        assert {index: trial.value for index, trial in complete.items()} == {0: 0.4, 1: 1.4, 2: 2.4}
        assert complete[1].intermediate_values == {1: 1.1, 2: 1.2, 3: 1.3, 4: 1.4}
        assert complete[1].user_attrs["start_epoch"] == 2
        # The epoch whose checkpoint did not fit was trained again, and no other: by the three workers that the launch
        # tried in that place, and by the one after the disk had room.
        trained = Counter(log.read_text().split())
        assert trained == {f"{index}:{epoch}": 1 for index in range(3) for epoch in range(1, 5)} | {"1:3": 4}

    def test_of_the_artifacts_costs_no_result(
        self, disk: Disk, hpo_command: Hpo, study: Study, home: Path, tmp_path: Path
    ) -> None:
        fill(disk(home / "artifacts", "64k") / "filler")
        done = hpo_command("launch", str(study(samplers='["random"]', budget="trials = 3", epochs=2)), "--workers", "1")
        assert done.returncode == 0, done.stderr
        trials = trials_of(open_storage(home=home), "sleepy/random/0")
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
        assert not any(key.startswith("artifacts:") for trial in trials for key in trial.system_attrs)
        assert [path.name for path in (home / "artifacts").iterdir()] == ["filler"]
        (log,) = home.glob("logs/*.log")
        assert log.read_text().count("epochs.csv is not attached to trial") == 3
        assert "No space left on device" in log.read_text()

    def test_from_the_start(self, disk: Disk, hpo_command: Hpo, study: Study, home: Path) -> None:
        disk(home, "1m")
        said = one_line(hpo_command("launch", str(study())))
        assert f"the embedded Postgres in {home}/postgres does not start: " in said
        assert "No space left on device" in said


JUMPING = '''
"""Shifts the wall clock of this process by hours, another number in each, and back and forth every half second."""

import datetime
import os
import time

import pandas  # before the class is replaced: its compiled part knows the real one only

real_ns, real_datetime = time.time_ns, datetime.datetime
offset = (os.getpid() % 7 - 3) * 3600


def shift():
    return offset + (18_000 if int(2 * time.monotonic()) % 2 else -18_000)


class Meta(type):
    def __instancecheck__(cls, instance):
        return isinstance(instance, real_datetime)


class Shifted(real_datetime, metaclass=Meta):
    @classmethod
    def now(cls, tz=None):
        return real_datetime.now(tz) + datetime.timedelta(seconds=shift())

    @classmethod
    def utcnow(cls):
        return real_datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=shift())


time.time_ns = lambda: real_ns() + shift() * 10**9
time.time = lambda: time.time_ns() / 1e9
datetime.datetime = Shifted
'''


def test_a_clock_that_jumps_by_hours(tcp: PostgresServer, hpo_command: Hpo, study: Study, tmp_path: Path) -> None:
    shifted = tmp_path / "shifted"
    shifted.mkdir()
    (shifted / "sitecustomize.py").write_text(JUMPING)
    log = tmp_path / "trainer.log"
    file = study(samplers='["random", "tpe"]', budget="trials = 8", epochs=10, seconds=0.08, pruner="median")
    # Who is silent is looked for every second, once the server has been there for 4 s; any of these clocks is wrong by
    # an hour at least.
    began = time.time()
    done = hpo_command(
        *("launch", str(file), "--workers", "2", "--heartbeat-seconds", "0.2", "--grace-seconds", "4"),
        HPO_STORAGE=tcp.address,
        PYTHONPATH=f"{shifted}{os.pathsep}{REPOSITORY}",
        SLEEPING_LOG=str(log),
    )
    ended = time.time()
    assert done.returncode == 0, done.stderr
    notes = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(abs(note["started"] - began) > 3000 for note in notes)
    assert any(note["ended"] < note["started"] for note in notes)
    storage = Storage(tcp.address.replace("postgresql:", "postgresql+psycopg2:"))
    trials = [trial for name in ("random", "tpe") for trial in storage.get_all_trials(_study_id(storage, name))]
    assert len(trials) == 16
    for trial in trials:
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        assert trial.user_attrs["attempt"] == 0
        assert 0 <= trial.user_attrs["seconds"] <= ended - began
        # By the database's clock.
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        assert began - 1 <= trial.datetime_start.timestamp() <= trial.datetime_complete.timestamp() <= ended + 1
    storage.engine.dispose()
    assert "silent" not in done.stderr
    status = json.loads(hpo_command("status", "sleepy", "--json", HPO_STORAGE=tcp.address).stdout)
    assert all(entry["retried"] == 0 and entry["seconds"] >= 0 for entry in status["studies"])
    compared = hpo_command("compare", "sleepy", HPO_STORAGE=tcp.address)
    assert compared.returncode == 0, compared.stderr


def _study_id(storage: Storage, sampler: str) -> int:
    return storage.get_study_id_from_name(f"sleepy/{sampler}/0")
