"""A shared address that does not answer: trials go on, one warning says so, and what is due is sent once it answers."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from hpo.database.storage import Storage
from hpo.experiment.experiment import Experiment, create_experiment
from hpo.experiment.status import snapshot
from hpo.experiment.trial_log import trial_log
from hpo.files.kept_folders import KeptFolder
from hpo.settings import Settings
from hpo.studyfile.load import parse_study_file
from hpo.trainers.generator import trainer
from hpo.trainers.protocol import Config, Run
from hpo.worker import uploads
from hpo.worker.options import WorkerOptions
from hpo.worker.worker import Worker

away: list[Any] = []
"""What an epoch does before it ends, in the test that runs."""


class Saving(Config):
    x: float = 0.5


@trainer("saving", metrics={"loss": "minimize"})
def saving(config: Saving, run: Run) -> Iterator[dict[str, float]]:
    """Saves a checkpoint after each epoch, writes a log, and keeps a model."""
    for epoch in range(run.start_epoch + 1, 4):
        run.log(f"epoch {epoch} of trial {run.trial}")
        for action in away:
            action(run.trial, epoch)
        run.save({"epoch": epoch})
        yield {"loss": config.x / epoch}
    (run.folder / "model.txt").write_text(str(config.x))


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system of ``memory://``, which can be made not to answer."""
    monkeypatch.setattr(uploads, "ASKED_END_SECONDS", 1.0)
    files = fsspec.filesystem("memory")
    yield files
    away.clear()
    files.store.clear()
    files.pseudo_dirs[:] = [""]


class Client:
    """Makes the calls of a file system fail as a client of an object store does: with an error of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: Any) -> None:
        self.answers, self.calls = True, 0
        for name in ("pipe_file", "put_file", "cat_file", "ls", "find", "rm", "rm_file", "exists"):
            monkeypatch.setattr(files, name, self._wrapped(getattr(files, name)))

    def _wrapped(self, found: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if not self.answers:
                self.calls += 1
                raise RuntimeError("Could not connect to the endpoint URL")
            return found(*arguments, **options)

        return call


def made(storage: Storage, keep: str = "best") -> Experiment:
    file = {"name": "e", "trainer": "saving", "metric": "loss", "samplers": ["random"], "keep_folders": keep}
    file |= {"budget": {"trials": 3}, "space": {"x": {"low": 0.0, "high": 1.0}}}
    return create_experiment(storage, parse_study_file(file, "e.toml"))[0]


def options(settings: Settings) -> WorkerOptions:
    return WorkerOptions(
        settings.checkpoints,
        settings.artifacts,
        shared_artifacts=settings.artifact_root,
        unsent=settings.unsent_artifacts,
    )


def test_an_address_that_does_not_answer(
    storage: Storage, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(monkeypatch, files)
    settings = Settings(home=tmp_path / "home", checkpoint_dir="memory://store/folder", storage=None)
    experiment = made(storage)

    def leave(trial: int, epoch: int) -> None:
        client.answers = (trial, epoch) < (1, 2)  # away from the second trial's second epoch on
        if (trial, epoch) == (2, 3):  # until a call has failed
            deadline = time.monotonic() + 30
            while not client.calls and time.monotonic() < deadline:
                time.sleep(0.01)

    away.append(leave)
    with caplog.at_level(logging.INFO, "hpo"):
        assert Worker(experiment, options(settings)).run() == 0
    status = snapshot(experiment)
    assert status["studies"][0]["states"]["complete"] == 3
    warnings = [record.getMessage() for record in caplog.records if "does not answer" in record.getMessage()]
    assert len(warnings) == 1
    assert "trials go on" in warnings[0]
    assert "Could not connect" in warnings[0]
    # On this machine everything is there, and says where the rest is not.
    for number in range(3):
        assert f"epoch 3 of trial {number}" in trial_log(experiment, str(number), settings).decode() or number == 0
    unsent = list((tmp_path / "home" / "unsent").glob("*/*"))
    assert len(unsent) >= 2

    # The next worker of the home sends the artifacts, once the address answers.
    client.answers = True
    away.clear()
    assert Worker(experiment, options(settings)).run() == 0
    assert list((tmp_path / "home" / "unsent").glob("*/*")) == []
    elsewhere = Settings(home=tmp_path / "elsewhere", checkpoint_dir="memory://store/folder", storage=None)
    for number in range(3):
        assert f"epoch 3 of trial {number}" in trial_log(experiment, str(number), elsewhere).decode()


@pytest.mark.parametrize(("keep", "kept"), [("best", 1), ("all", 3), ("none", 0)])
def test_kept_folders_and_logs(storage: Storage, files: Any, tmp_path: Path, keep: str, kept: int) -> None:
    settings = Settings(home=tmp_path / "home", checkpoint_dir="memory://store/folder", storage=None)
    experiment = made(storage, keep)
    assert Worker(experiment, options(settings)).run() == 0
    elsewhere = Settings(home=tmp_path / "elsewhere", checkpoint_dir="memory://store/folder", storage=None)
    key = experiment.studies[0].key
    found = [KeptFolder(elsewhere, key, lineage) for lineage in range(3)]
    assert sum(folder.where is not None for folder in found) == kept
    for folder in found:
        if folder.where is not None:
            assert folder.model() == "model.txt"
            assert set(folder.files) == {"model.txt", "log.txt"}
            with pytest.raises(KeyError):
                folder.open("../../x")
    # No checkpoint of an ended trial stays.
    assert [path for path in files.find("/store/folder") if path.endswith(".ckpt")] == []
    for number in range(3):
        assert f"epoch 1 of trial {number}" in trial_log(experiment, str(number), elsewhere).decode()


def test_no_epoch_waits_for_a_slow_address(
    storage: Storage, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = files.pipe_file

    def slowly(*arguments: Any, **given: Any) -> Any:
        time.sleep(3.0)
        return pipe(*arguments, **given)

    monkeypatch.setattr(files, "pipe_file", slowly)
    took: dict[int, float] = {}
    away.append(lambda trial, epoch: took.setdefault(10 * trial + epoch, time.monotonic()))
    settings = Settings(home=tmp_path / "home", checkpoint_dir="memory://store/folder", storage=None)
    assert Worker(made(storage), options(settings)).run() == 0
    for trial in range(3):
        # Two epochs, each with a checkpoint of 3 s if it waited.
        assert took[10 * trial + 3] - took[10 * trial + 1] < 3.0
    assert [path for path in files.find("/store/folder") if path.endswith(".ckpt")] == []
