"""An inline launch in somebody else's process, such as a notebook's: its options, and what it leaves as it was."""

import io
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpo
from hpo.errors import ExperimentError, UsageError
from hpo.launchers import inline
from hpo.launchers.progress import PlainProgress
from hpo.launchers.registry import InlineOptions
from hpo.trainers.generator import GeneratorTrainer
from hpo.trainers.protocol import Config, Run
from hpo.trainers.registry import TRAINERS, TrainerEntry, register

STUDY = """
name = "{name}"
trainer = "unruly"
metric = "loss"
direction = "minimize"
samplers = ["random"]
budget = {{ trials = 3 }}
epoch_timeout_seconds = 1
[space]
x = {{ low = 0.0, high = 1.0 }}
"""


class UnrulyConfig(Config):
    x: float = 0.5
    epochs: int = 2


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[list[str]]:
    """A trainer that changes whatever it can of its process; the devices that it was given."""
    seen: list[str] = []

    def train(config: UnrulyConfig, run: Run) -> Iterator[dict[str, float]]:
        seen.append(run.device)
        os.chdir(tmp_path)
        logging.getLogger().setLevel(logging.DEBUG)
        logging.getLogger("hpo").addHandler(logging.NullHandler())
        signal.signal(signal.SIGUSR1, lambda *_: None)
        for _ in range(run.start_epoch, config.epochs):
            if "hangs" in run.study:
                time.sleep(60)
            yield {"loss": config.x}

    register(TrainerEntry("unruly", UnrulyConfig, lambda options: GeneratorTrainer(train), "changes its process"))
    yield seen
    del TRAINERS["unruly"]


@pytest.fixture
def launch(devices: list[str], home: Path, address: str, tmp_path: Path):
    def run(name: str = "unruly", settings: dict[str, object] | None = None, **options: object) -> hpo.LoadedExperiment:
        file = tmp_path / "study.toml"
        file.write_text(STUDY.format(name=name))
        return hpo.launch(
            file,
            launcher="inline",
            settings=hpo.Settings(storage=address, home=home, **(settings or {})),
            progress=PlainProgress(io.StringIO()),
            **options,
        )

    return run


def state() -> tuple[object, ...]:
    loggers = [logging.getLogger(), logging.getLogger("hpo"), logging.getLogger("optuna")]
    return (
        {number: signal.getsignal(number) for number in signal.valid_signals()},
        os.getcwd(),
        [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers],
        {thread.name for thread in threading.enumerate()},
        os.environ.get("HPO_WORKER_ID"),
    )


def test_the_process_is_as_it_was(launch, devices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = state()
    assert launch().status()["studies"][0]["states"]["complete"] == 3
    assert state() == before
    # And may be launched again.
    assert launch("again").status()["studies"][0]["states"]["complete"] == 3
    assert state() == before
    assert len(devices) == 6


def test_gpus(launch, devices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    launch("none", gpus="none")
    launch("one", gpus="5")
    launch("all")
    assert sorted(set(devices)) == ["cpu", "cuda:0", "cuda:1"]
    assert inline.device_of(InlineOptions(gpus="4")) == "cuda:0"
    with pytest.raises(UsageError, match="there is no GPU 0 here; there are 4, 5"):
        launch("absent", gpus="0")
    with pytest.raises(UsageError, match="the launcher inline uses one GPU, not 4,5"):
        launch("both", gpus="4,5")


def test_one_worker(launch) -> None:
    with pytest.raises(UsageError, match="the launcher inline runs one worker, not 2"):
        launch(workers=2)
    assert launch(workers=1).status()["studies"][0]["finished"]


def test_a_worker_that_wants_replacing_is_replaced_so_often(launch) -> None:
    before = state()
    with pytest.raises(ExperimentError):
        launch(settings={"memory_limit_mb": 1}, max_restarts=1)
    assert state() == before


def test_a_hung_epoch_interrupts_and_ends_no_process(launch) -> None:
    before = state()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        launch("hangs", settings={"heartbeat_seconds": 0.2})
    assert time.monotonic() - began < 30
    assert state() == before
