"""Where a worker's trials come from: nothing is kept of what is not on record, nothing claimed is forgotten."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

import benchmarks.sleeping  # noqa: F401  (registers the trainer)
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.experiment.experiment import create_experiment
from hpo.studyfile.load import parse_study_file
from hpo.worker.claim_queue import ClaimQueue
from hpo.worker.db_thread import DatabaseThread
from hpo.worker.options import WorkerOptions
from hpo.worker.study_runner import StudyRunner
from hpo.worker.trial_cache import TrialCache
from hpo.worker.worker import Worker
from tests.integration.trials_support import wait_until
from tests.unit.study_files import study as study_table


@contextlib.contextmanager
def queue_of(storage: Storage, capacity: int = 1, **changes: object) -> Iterator[ClaimQueue]:
    """The queue of a worker that holds nothing, on an experiment of 12 TPE trials but for ``changes``."""
    space = {"lr": {"low": 1e-3, "high": 1.0, "log": True}}
    table = study_table(**{"samplers": ["tpe"], "pruner": "none", "budget": {"trials": 12}, "space": space, **changes})
    experiment, _ = create_experiment(storage, parse_study_file(table, "study.toml"))
    view = TrialCache(storage, auto_refresh=False)
    runners = {study.study_id: StudyRunner(view, experiment.study_file, study) for study in experiment.studies}
    db_thread = DatabaseThread(view)
    yield ClaimQueue(experiment, runners, db_thread, "here:1", list, capacity)
    db_thread.stop()


@pytest.fixture
def queue(storage: Storage) -> Iterator[ClaimQueue]:
    with queue_of(storage) as queue:
        yield queue


@contextlib.contextmanager
def locked(storage: Storage, table: str, mode: str) -> Iterator[None]:
    """Keeps everybody else from the table within the block: SHARE from writing, ACCESS EXCLUSIVE from reading too."""
    with sa.create_engine(storage.engine.url, poolclass=sa.NullPool).connect() as connection:
        connection.execute(sa.text(f"LOCK TABLE {table} IN {mode} MODE"))
        yield


WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def waiting(storage: Storage) -> list[int]:
    """Server processes that wait for a lock."""
    with storage.engine.connect() as connection:
        return list(connection.execute(sa.text(WAITING)).scalars())


def test_no_checkpoint_before_the_configuration_is_on_record(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, checkpoints = tmp_path / "log", tmp_path / "checkpoints"
    monkeypatch.setenv("SLEEPING_LOG", str(log))
    table = {"name": "sleepy", "trainer": "sleeping", "metric": "value", "samplers": ["tpe"], "budget": {"trials": 1}}
    table |= {"fixed": {"epochs": 3, "epoch_seconds": 0.01}, "space": {"lr": {"low": 1e-3, "high": 1.0, "log": True}}}
    experiment, _ = create_experiment(storage, parse_study_file(table, "study.toml"))
    with ThreadPoolExecutor(1) as pool:
        with locked(storage, "trial_params", "SHARE"):
            worker = Worker(experiment, WorkerOptions(str(checkpoints), tmp_path / "artifacts"))
            ended = pool.submit(worker.run)
            # It is claimed and trains; its configuration is on its way.
            wait_until(lambda: log.exists() and bool(waiting(storage)))
            wait_until(lambda: bool(worker.running) and next(iter(worker.running.values())).history != [])
            assert not ended.done()
            assert [path for path in checkpoints.rglob("*") if path.is_file()] == []
            assert len(log.read_bytes().splitlines()) == 1
        assert ended.result(60) == 0
    trial = storage.get_all_trials(experiment.study_ids[0])[0]
    assert trial.state is TrialState.COMPLETE
    assert trial.user_attrs[attributes.CONFIG]["lr"] == trial.params["lr"]
    assert len(log.read_bytes().splitlines()) == 3


def test_what_was_claimed_before_the_database_went_away_is_not_forgotten(storage: Storage, queue: ClaimQueue) -> None:
    # A look at the others' trials comes between the claim and the configuration.
    with ThreadPoolExecutor(1) as pool:
        with locked(storage, "trial_intermediate_values", "ACCESS EXCLUSIVE"):
            coming = pool.submit(queue.take, 1)
            wait_until(lambda: bool(waiting(storage)))
            cut = waiting(storage)
            with storage.engine.connect() as connection:
                for pid in cut:
                    connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            wait_until(lambda: bool(set(waiting(storage)) - set(cut)))
        taken = coming.result(60)
    assert taken is not None
    trials = storage.get_all_trials(taken.claim.study_id)
    assert [(trial.number, trial.state) for trial in trials] == [(0, TrialState.RUNNING)]


@pytest.mark.parametrize(
    ("pruner", "budget", "at_once"),
    [
        ("none", {"trials": 12}, 3),
        ("median", {"epochs": 96}, 3),
        ({"name": "asha", "min_epochs": 1}, {"epochs": 96}, 6),
    ],
    ids=["trials", "epochs", "epochs under ASHA"],
)
def test_a_pack_begins_a_quarter_of_the_trials_that_the_budget_comes_to(
    storage: Storage, pruner: object, budget: object, at_once: int
) -> None:
    """96 epochs of 8 are 12 whole trainings, and under ASHA some 40 trials: a quarter, but half of the epochs."""
    with queue_of(storage, 64, pruner=pruner, budget=budget) as queue:
        first = queue.take(64)
    assert first is not None
    assert len(storage.get_all_trials(first.claim.study_id)) == at_once
