"""Where a worker's trials come from: nothing is trained that is not on record, nothing is claimed and forgotten."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo import attributes
from hpo.intake import Intake
from hpo.proposal import StudyDesk
from hpo.recorder import Recorder
from hpo.spec import parse_study_file
from hpo.storage import Storage
from hpo.study import create_experiment
from hpo.view import WorkerView
from tests.unit.study_files import study as study_table

from .trials_support import wait_until


@pytest.fixture
def intake(storage: Storage) -> Iterator[Intake]:
    """The intake of a worker that holds nothing, on an experiment of 12 TPE trials."""
    space = {"lr": {"low": 1e-3, "high": 1.0, "log": True}}
    table = study_table(samplers=["tpe"], pruner="none", budget={"trials": 12}, space=space)
    experiment, _ = create_experiment(storage, parse_study_file(table, "study.toml"))
    view = WorkerView(storage, auto_refresh=False)
    desks = {study.study_id: StudyDesk(view, experiment.study_file, study) for study in experiment.studies}
    recorder = Recorder(view)
    yield Intake(experiment, desks, recorder, "here:1", lambda: 0)
    recorder.stop()


def locked(storage: Storage, table: str) -> sa.Connection:
    """A connection that keeps everybody else from the table until it is closed."""
    connection = sa.create_engine(storage.engine.url, poolclass=sa.NullPool).connect()
    connection.execute(sa.text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
    return connection


WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def waiting(storage: Storage) -> list[int]:
    """Server processes that wait for a lock."""
    with storage.engine.connect() as connection:
        return list(connection.execute(sa.text(WAITING)).scalars())


def test_a_trial_is_handed_out_once_its_configuration_is_on_record(storage: Storage, intake: Intake) -> None:
    lock = locked(storage, "trial_params")
    handed_out = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(intake.next, 1)
        coming.add_done_callback(lambda _: handed_out.set())
        # It is claimed and proposed; the configuration is on its way.
        wait_until(lambda: bool(waiting(storage)))
        assert not handed_out.wait(0.3)
        lock.close()
        proposal = coming.result(60)
    assert proposal is not None
    assert proposal.config is not None
    stored = storage.get_trial(proposal.claim.trial_id)
    assert stored.user_attrs[attributes.CONFIG]["lr"] == stored.params["lr"] == proposal.config.lr


def test_what_was_claimed_before_the_database_went_away_is_not_forgotten(storage: Storage, intake: Intake) -> None:
    # A look at the others' trials comes between the claim and the configuration.
    lock = locked(storage, "trial_intermediate_values")
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(intake.next, 1)
        wait_until(lambda: bool(waiting(storage)))
        cut = waiting(storage)
        with storage.engine.connect() as connection:
            for pid in cut:
                connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        wait_until(lambda: bool(set(waiting(storage)) - set(cut)))
        lock.close()
        proposal = coming.result(60)
    assert proposal is not None
    trials = storage.get_all_trials(proposal.claim.study_id)
    assert [(trial.number, trial.state) for trial in trials] == [(0, TrialState.RUNNING)]
