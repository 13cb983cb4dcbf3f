"""What a run gives to training code: a folder, a log, the model's file; and what a trial leaves behind."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpo.trainers import registry, trial_log
from hpo.trainers.errors import TrainerError
from hpo.trainers.generator import GeneratorTrainer, trainer
from hpo.trainers.model_file import model_files
from hpo.trainers.protocol import BuildOptions, Config, Ended, EpochEnd, Event, Failed, Run
from hpo.trainers.trial_log import TrialLog, as_text


class Nothing(Config):
    pass


def train(function: object, config: object = None, run: Run | None = None) -> list[Event]:
    """All events of one trial."""
    made = GeneratorTrainer(function)  # type: ignore[arg-type]
    made.start("a", config or Nothing(), run or Run())
    events: list[Event] = []
    while found := made.advance():
        events += found
    return events


def test_the_folder_is_made_when_it_is_used(tmp_path: Path):
    run = Run(trial_folder=tmp_path / "deep" / "000001")
    assert not (tmp_path / "deep").exists()
    assert run.folder == tmp_path / "deep" / "000001"
    assert run.folder.is_dir()
    assert Run().folder.is_dir()
    assert Run(device="cuda:1").devices == ("cuda:1",)


def test_the_log_takes_any_text_and_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run(trial_folder=tmp_path)
    run.log("ü \ud800")
    run.log(3)
    assert (tmp_path / "log.txt").read_bytes() == "ü ".encode() + b"\\ud800\n3\n"
    monkeypatch.setattr(trial_log, "LIMIT_BYTES", 1000)
    monkeypatch.setattr(trial_log, "HEAD_BYTES", 100)
    monkeypatch.setattr(trial_log, "TAIL_BYTES", 200)
    log = TrialLog(tmp_path / "long.txt")
    for number in range(1000):
        log.write(b"line %04d\n" % number)
        assert log.path.stat().st_size <= 1000
    data = log.path.read_bytes()
    assert data.startswith(b"line 0000\n")
    assert data.endswith(b"line 0999\n")
    assert data.count(b"bytes left out") == 1
    left_out = int(data.partition(b"\n\xe2\x80\xa6 ")[2].split()[0])
    kept = data.replace(f"\n… {left_out} bytes left out …\n".encode(), b"")
    assert len(kept) + left_out == 10_000


def test_a_log_that_cannot_be_written_costs_nothing_else(tmp_path: Path):
    (tmp_path / "file").write_text("")
    TrialLog(tmp_path / "file" / "log.txt").write(b"x")


def test_bytes_that_are_no_text_are_shown():
    assert as_text(b"a\xff\x00\r\nb\t\x1b[0m") == "a\\xff\\x00\nb\t\\x1b[0m"


def test_one_model_is_kept(tmp_path: Path):
    run = Run(trial_folder=tmp_path / "trial")
    (tmp_path / "net.joblib").write_text("one")
    assert run.save_model(tmp_path / "net.joblib") == tmp_path / "trial" / "model.joblib"
    import torch

    torch_file = run.save_model(torch.nn.Linear(2, 1))
    assert model_files(run.folder) == [torch_file]
    assert set(torch.load(torch_file, weights_only=True)) == {"weight", "bias"}
    (run.folder / "model.bin").write_text("two")
    assert run.save_model(run.folder / "model.bin").read_text() == "two"
    with pytest.raises(FileNotFoundError, match="no model file at"):
        run.save_model("nowhere.pt")
    assert [path.name for path in run.folder.iterdir() if path.name.startswith(".")] == []


def test_a_state_without_torch_is_refused():
    code = "import hpo\ntry: hpo.Run().save_model({'w': 1})\nexcept TypeError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "give the file's path" in done.stdout


def test_a_trial_starts_with_seeded_generators_and_leaves_the_process_as_it_was(tmp_path: Path):
    drawn = []

    def wild(config: Nothing, run: Run) -> Iterator[dict[str, float]]:
        drawn.append((random.random(), Path.cwd()))
        os.environ["WILD"] = "1"
        os.environ.pop("KEPT")
        os.chdir("/")
        yield {"loss": 0.0}

    os.environ["KEPT"] = "as it was"
    before = Path.cwd()
    try:
        for seed in (7, 7, 8):
            assert len(train(wild, run=Run(seed=seed))) == 2
            assert Path.cwd() == before
            assert os.environ["KEPT"] == "as it was"
            assert "WILD" not in os.environ
        train(wild, run=Run(seed=7, trial_folder=tmp_path / "own", work_in_folder=True))
    finally:
        del os.environ["KEPT"]
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0]
    assert drawn[3] == (drawn[0][0], tmp_path / "own")
    assert Path.cwd() == before


def test_generators_of_their_own_are_left_alone():
    def draw(config: Nothing, run: Run) -> Iterator[dict[str, float]]:
        yield {"loss": random.random()}

    random.seed(1)
    expected = random.random()
    random.seed(1)
    first = train(draw, run=Run(seed=7, seed_libraries=False))[0]
    assert isinstance(first, EpochEnd)
    assert first.metrics == {"loss": expected}


def test_torch_is_seeded_whenever_it_is_imported():
    """Also by a trial that imports it itself: else a worker would seed its first trial otherwise."""
    code = """
import sys
from hpo.trainers.seeding import seed_libraries
seed_libraries(123)
assert "torch" not in sys.modules
import torch
first = torch.rand(1).item()
seed_libraries(123)
assert torch.rand(1).item() == first, first
assert torch.initial_seed() == 123
import numpy
print("right")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "right\n", done.stderr


def test_what_follows_the_last_yield_is_run():
    lines = []

    def tail(config: Nothing, run: Run) -> Iterator[dict[str, float]]:
        yield {"loss": 0.0}
        lines.append("after")

    assert train(tail)[-1] == Ended("a")
    assert lines == ["after"]


def test_an_exception_after_the_last_yield_fails_the_trial():
    def tail(config: Nothing, run: Run) -> Iterator[dict[str, float]]:
        yield {"loss": 0.0}
        raise OSError("disk full")

    last = train(tail)[-1]
    assert isinstance(last, Failed)
    assert str(last.error) == "disk full"


@dataclass
class Plain:
    lr: float
    layers: list[int] = field(default_factory=lambda: [8])
    num_epochs: int = 2
    derived: float = field(init=False)

    def __post_init__(self) -> None:
        if self.lr > 1:
            raise ValueError("lr is above 1")
        self.derived = 2 * self.lr


def test_a_dataclass_is_a_configuration(monkeypatch: pytest.MonkeyPatch):
    table = registry.TrainerTable({})
    monkeypatch.setattr(registry, "TRAINERS", table)

    @trainer("plain", max_epochs="num_epochs")
    def plain(config: Plain, run: Run) -> Iterator[dict[str, float]]:
        for _ in range(config.num_epochs):
            yield {"loss": config.derived + len(config.layers)}

    entry = table["plain"]
    assert entry.epochs_field == "num_epochs"
    assert entry.config is not None
    assert list(entry.config.model_fields) == ["lr", "layers", "num_epochs"]
    made = entry.build(BuildOptions())
    made.start("a", entry.config.model_validate({"lr": 0.5}), Run())
    (event,) = made.advance()
    assert isinstance(event, EpochEnd)
    assert event.metrics == {"loss": 2.0}
    made.stop("a")
    with pytest.raises(ValueError, match="lr is above 1"):
        entry.config.model_validate({"lr": 5})
    with pytest.raises(ValueError, match="Extra inputs"):
        entry.config.model_validate({"lr": 1, "rate": 2})


def test_max_epochs_names_a_field():
    with pytest.raises(TrainerError, match="max_epochs = 'epochs' is no field of Nothing"):

        @trainer("wrong", max_epochs="epochs")
        def wrong(config: Nothing, run: Run) -> Iterator[dict[str, float]]:
            yield {}

    with pytest.raises(TrainerError, match="at least 1, not 0"):

        @trainer("wrong", max_epochs=0)
        def zero(config: Nothing, run: Run) -> Iterator[dict[str, float]]:
            yield {}
