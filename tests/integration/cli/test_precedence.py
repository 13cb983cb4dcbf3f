"""Option, then environment, then study file, then default: followed from the command line into the trainer."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hpo
from hpo.cli.main import app
from hpo.database.storage import Storage
from hpo.experiment.experiment import experiment_names
from hpo.launchers.progress import PlainProgress
from hpo.trainers.generator import GeneratorTrainer
from hpo.trainers.protocol import BuildOptions, Config, Run
from hpo.trainers.registry import TRAINERS, TrainerEntry, register

STUDY = """
name = "{name}"
trainer = "{trainer}"
metric = "loss"
direction = "minimize"
{keys}
"""

Launch = Callable[..., BuildOptions]


class NoConfig(Config):
    epochs: int = 1


@pytest.fixture
def built() -> Iterator[list[BuildOptions]]:
    """What the builders of the trainers ``spy`` and ``narrow`` were told."""
    seen: list[BuildOptions] = []

    def train(config: NoConfig, run: Run) -> Iterator[dict[str, float]]:
        yield {"loss": 1.0}

    def build(options: BuildOptions) -> GeneratorTrainer:
        seen.append(options)
        return GeneratorTrainer(train)

    register(TrainerEntry("spy", NoConfig, build, "notes what it is told"))
    register(TrainerEntry("narrow", NoConfig, build, "trains two at a time", max_slots=2))
    yield seen
    del TRAINERS["spy"], TRAINERS["narrow"]


@pytest.fixture
def launch(
    built: list[BuildOptions], home: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Launch:
    """Launches an experiment with options and variables; returns what its trainer was told."""
    monkeypatch.setenv("HPO_STORAGE", address)
    monkeypatch.chdir(tmp_path)

    def run(*options: str, keys: str = "", trainer: str = "spy", **variables: str) -> BuildOptions:
        built.clear()
        file = tmp_path / "study.toml"
        name = re.sub(r"\W+", "-", " ".join(["e", *options, keys, trainer, *variables]))
        file.write_text(STUDY.format(name=name, keys=keys, trainer=trainer))
        arguments = ["launch", str(file), "--launcher", "inline", *options]
        done = CliRunner().invoke(app, arguments, env=dict[str, Any](variables))
        assert done.exit_code == 0, done.output
        (told,) = built
        return told

    return run


def test_slots(launch: Launch) -> None:
    assert launch().slots is None
    assert launch(keys="slots = 3").slots == 3
    assert launch(keys="slots = 3", HPO_SLOTS="4").slots == 4
    assert launch("--slots", "5", keys="slots = 3", HPO_SLOTS="4").slots == 5
    assert launch("--slots", "5", keys="slots = 3").slots == 5
    assert launch(HPO_SLOTS="4").slots == 4


def test_slots_of_a_trainer_that_has_fewer(launch: Launch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hpo")
    ignored = "the trainer narrow trains 2 at a time; slots = 5 is ignored"
    assert launch(trainer="narrow", keys="slots = 2").slots == 2
    assert ignored not in caplog.messages
    assert launch("--slots", "5", trainer="narrow").slots == 2
    assert ignored in caplog.messages
    assert launch(trainer="narrow").slots is None


def test_the_data_folder(launch: Launch) -> None:
    assert launch().data_dir is None
    assert launch(HPO_DATA="there").data_dir == Path("there")
    assert launch("--data-dir", "here", HPO_DATA="there").data_dir == Path("here")
    assert launch("--data-dir", "here", "--download").download is True
    assert launch(HPO_DOWNLOAD="1").download is True


def test_the_storage(launch: Launch, address: str, empty_database: str) -> None:
    launch()
    launch("--storage", empty_database)
    for opened, expected in ((address, ["e-spy"]), (empty_database, ["e-storage"])):
        storage = Storage(opened)
        assert [name[: len(start)] for name, start in zip(experiment_names(storage), expected, strict=True)] == expected
        storage.engine.dispose()


def test_the_home(launch: Launch, home: Path, tmp_path: Path) -> None:
    launch()
    assert len(list((home / "artifacts").iterdir())) == 1
    launch("--home", str(tmp_path / "given"))
    assert len(list((tmp_path / "given" / "artifacts").iterdir())) == 1
    assert len(list((home / "artifacts").iterdir())) == 1


def test_python_without_settings_takes_the_environment(
    launch: Launch, built: list[BuildOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HPO_SLOTS": "4", "HPO_DATA": "there"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "python.toml").write_text(STUDY.format(name="python", keys="slots = 3", trainer="spy"))
    for settings, slots in ((None, 4), (hpo.Settings(slots=5), 5)):
        # The second launch finds another experiment.
        (tmp_path / "python.toml").write_text(STUDY.format(name=f"python {slots}", keys="slots = 3", trainer="spy"))
        quiet = PlainProgress(io.StringIO())
        hpo.launch(tmp_path / "python.toml", launcher="inline", settings=settings, progress=quiet)
        assert (built[-1].slots, built[-1].data_dir) == (slots, Path("there"))


@pytest.mark.parametrize("slots", ["0", "-1"])
def test_no_slots_at_all_are_refused(slots: str, built: list[BuildOptions], home: Path, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.format(name="e", keys="", trainer="spy"))
    done = CliRunner().invoke(app, ["launch", str(tmp_path / "study.toml"), "--launcher", "inline", "--slots", slots])
    assert str(done.exception) == f"--slots must be at least 1, not {slots}"
    assert not home.exists()
