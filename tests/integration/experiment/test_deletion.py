"""Deleting studies while workers claim, write and read: all of it goes, and everybody is told."""

import threading
import time

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database import claims, trial_writes
from hpo.database.storage import Storage
from hpo.database.study_budget import set_budget
from hpo.database.trial_writes import Writes
from hpo.errors import ExperimentDeletedError
from hpo.experiment.deletion import delete_studies
from hpo.worker.trial_cache import TrialCache

TABLES = ("studies", "trials", "trial_user_attributes", "trial_heartbeats", "hpo_studies", "hpo_trials")


def new_study(storage: Storage, trials: int) -> int:
    study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE])
    with storage.engine.begin() as connection:
        set_budget(connection, study_id, trials, None, 10)
    return study_id


def counts(storage: Storage) -> dict[str, int]:
    with storage.engine.connect() as connection:
        return {table: connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one() for table in TABLES}


def test_claimants_are_told_and_leave_nothing(storage: Storage) -> None:
    study_ids = [new_study(storage, 10**6), new_study(storage, 10**6)]
    kept = new_study(storage, 3)
    claims.claim(storage.engine, [kept], "here:0")
    before = counts(storage)
    told: list[str] = []
    claimed = threading.Semaphore(0)

    def work(worker: str) -> None:
        try:
            while True:
                for claim in claims.claim(storage.engine, study_ids, worker)[0]:
                    with storage.engine.begin() as connection:
                        writes = Writes(user_attrs={"a": 1}, reports={1: 0.5})
                        trial_writes.finish(connection, claim.trial_id, TrialState.COMPLETE, 0.5, 1, writes)
                    claimed.release()
        except ExperimentDeletedError:
            told.append(worker)

    # Two, beside the deletion: an engine has three connections.
    threads = [threading.Thread(target=work, args=(f"here:{index}",)) for index in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        assert claimed.acquire(timeout=60)
    delete_studies(storage.engine, study_ids)
    for thread in threads:
        thread.join(60)
    assert sorted(told) == ["here:0", "here:1"]
    # What is left is the other study, as it was.
    assert counts(storage) == {**before, "studies": 1, "hpo_studies": 1}


def test_a_claim_that_waited_for_the_deletion(storage: Storage) -> None:
    """It has seen the study, and finds it gone when it gets the study's row."""
    study_id = new_study(storage, 5)
    caught: list[BaseException] = []

    def claim() -> None:
        try:
            claims.claim(storage.engine, [study_id], "here:1")
        except BaseException as error:
            caught.append(error)

    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with storage.engine.begin() as connection:
        connection.execute(sa.text("SELECT 1 FROM studies WHERE study_id = :s FOR UPDATE"), {"s": study_id})
        thread = threading.Thread(target=claim)
        thread.start()
        deadline = time.monotonic() + 60
        while connection.execute(sa.text(waiting)).scalar_one() == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
            connection.execute(sa.text("SELECT pg_stat_clear_snapshot()"))  # kept to a transaction's end otherwise
        connection.execute(sa.text("DELETE FROM study_directions WHERE study_id = :s"), {"s": study_id})
        connection.execute(sa.text("DELETE FROM studies WHERE study_id = :s"), {"s": study_id})
    thread.join(60)
    assert [type(error) for error in caught] == [ExperimentDeletedError]


def test_a_worker_loses_the_trials_of_a_deleted_study_and_keeps_the_others(storage: Storage) -> None:
    gone, kept = new_study(storage, 5), new_study(storage, 5)
    view = TrialCache(storage, auto_refresh=False)
    taken = [claims.claim(storage.engine, [study_id], "here:1")[0][0] for study_id in (gone, kept)]
    for claim in taken:
        view.track(claim)
    delete_studies(storage.engine, [gone])
    for study_id in (gone, kept):
        view.refresh(study_id)
    assert [view.leases.is_lost(claim.trial_id) for claim in taken] == [True, False]
    assert not claims.are_deleted(storage.engine, [gone, kept])
    assert claims.are_deleted(storage.engine, [gone])
    with pytest.raises(KeyError):
        TrialCache(storage).refresh(gone)
