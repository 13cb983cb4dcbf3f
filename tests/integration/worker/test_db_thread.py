"""The database thread: reports are written while training goes on, in order, and an outage loses none of them."""

import logging
import threading
from collections.abc import Callable, Iterator

import optuna
import psycopg2
import pytest
import sqlalchemy as sa

from benchmarks.postgres_server import PostgresServer
from hpo.database import retries
from hpo.database.retrying import is_transient, persistently
from hpo.database.storage import Storage
from hpo.errors import StorageError
from hpo.worker.db_thread import DatabaseThread
from hpo.worker.trial_cache import TrialCache
from tests.integration.trials_support import LIMIT_SECONDS, attempts_to_connect, claim_one, new_study, wait_until

Start = Callable[[Storage], tuple[DatabaseThread, int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes a db_thread with one claimed trial; its thread has ended when the test has."""
    threads: list[DatabaseThread] = []

    def make(storage: Storage) -> tuple[DatabaseThread, int]:
        db_thread = DatabaseThread(TrialCache(storage, auto_refresh=False))
        threads.append(db_thread)
        claim = claim_one(storage, new_study(storage, 3))
        db_thread.cache.track(claim)
        return db_thread, claim.trial_id

    yield make
    for db_thread in threads:
        db_thread.stop(0.1)
        assert not db_thread._thread.is_alive()


def report(db_thread: DatabaseThread, trial_id: int, *steps: int, value: float = 0.5) -> None:
    for step in steps:
        db_thread.cache.set_trial_intermediate_value(trial_id, step, value)
        db_thread.write()


def nothing() -> None:
    """A job to wait for: the db_thread works in order, so everything before it has been done."""


def reported(storage: Storage, trial_id: int) -> dict[int, float]:
    return storage.get_trial(trial_id).intermediate_values


def test_who_reports_does_not_wait_for_the_database(storage: Storage, start: Start) -> None:
    db_thread, trial_id = start(storage)
    with storage.engine.connect() as other:
        other.execute(sa.text("SELECT 1 FROM trials WHERE trial_id = :t FOR UPDATE"), {"t": trial_id})
        # The db_thread hangs in its first write; the one who trains goes on, and sees what it has reported.
        report(db_thread, trial_id, *range(1, 50))
        assert len(db_thread.cache.get_trial(trial_id).intermediate_values) == 49
        assert reported(storage, trial_id) == {}
        other.rollback()
    db_thread.run(nothing)
    assert reported(storage, trial_id) == dict.fromkeys(range(1, 50), 0.5)


def test_jobs_are_done_in_order_by_one_thread(storage: Storage, start: Start) -> None:
    db_thread, trial_id = start(storage)
    done: list[tuple[int, str]] = []
    gate = threading.Event()
    db_thread.submit(lambda: gate.wait(LIMIT_SECONDS))
    for number in range(100):
        db_thread.submit(lambda number=number: done.append((number, threading.current_thread().name)))
    report(db_thread, trial_id, 1, value=0.25)
    report(db_thread, trial_id, 1, value=0.75)
    gate.set()
    db_thread.run(nothing)
    assert done == [(number, "database") for number in range(100)]
    assert reported(storage, trial_id) == {1: 0.75}


def test_an_outage_loses_nothing(stoppable: PostgresServer, stoppable_storage: Storage, start: Start) -> None:
    db_thread, trial_id = start(stoppable_storage)
    report(db_thread, trial_id, 1)
    db_thread.run(nothing)
    stoppable.stop()
    with attempts_to_connect(stoppable_storage.engine) as attempts:
        report(db_thread, trial_id, 2)
        wait_until(lambda: len(attempts) >= 2)
        # What is set while an older write is being repeated wins over it.
        report(db_thread, trial_id, 2, 3, value=0.75)
        last = db_thread.submit(nothing)
        wait_until(lambda: len(attempts) >= 4)
        assert not last.done()
    stoppable.start()
    last.result(LIMIT_SECONDS)
    assert reported(stoppable_storage, trial_id) == {1: 0.5, 2: 0.75, 3: 0.75}
    assert db_thread.cache.pending.take() == {}


def test_a_killed_server_loses_nothing(stoppable: PostgresServer, stoppable_storage: Storage, start: Start) -> None:
    db_thread, trial_id = start(stoppable_storage)
    with stoppable_storage.engine.connect() as other:
        other.execute(sa.text("SELECT 1 FROM trials WHERE trial_id = :t FOR UPDATE"), {"t": trial_id})
        report(db_thread, trial_id, *range(1, 20))
        # In the middle of a write.
        wait_until(lambda: _waits_for_a_lock(stoppable))
        stoppable.kill()
        other.invalidate()
    stoppable.start()
    db_thread.submit(nothing).result(LIMIT_SECONDS)
    assert reported(stoppable_storage, trial_id) == dict.fromkeys(range(1, 20), 0.5)


def _waits_for_a_lock(server: PostgresServer) -> bool:
    connection = psycopg2.connect(server.address)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        waiting = cursor.fetchone()
    connection.close()
    return bool(waiting and waiting[0])


def test_the_log_says_when_the_database_is_away_and_when_it_answers(
    stoppable: PostgresServer, stoppable_storage: Storage, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    db_thread, trial_id = start(stoppable_storage)
    stoppable.stop()
    report(db_thread, trial_id, 1)
    wait_until(lambda: "the database does not answer; waiting for it" in caplog.messages)
    stoppable.start()
    wait_until(lambda: any(message.startswith("the database answers again, after") for message in caplog.messages))
    assert caplog.messages.count("the database does not answer; waiting for it") == 1


def test_an_error_that_will_not_pass_is_raised_to_who_waits(storage: Storage, start: Start) -> None:
    db_thread, trial_id = start(storage)
    calls: list[None] = []

    def wrong() -> None:
        calls.append(None)
        raise ValueError("not a matter of time")

    with pytest.raises(ValueError, match="not a matter of time"):
        db_thread.run(wrong)
    with pytest.raises(sa.exc.ProgrammingError, match="no_such_table"), storage.engine.connect() as connection:
        db_thread.run(lambda: connection.execute(sa.text("SELECT * FROM no_such_table")))
    assert len(calls) == 1
    # The thread has outlived both.
    report(db_thread, trial_id, 1)
    assert db_thread.run(lambda: reported(storage, trial_id)) == {1: 0.5}


def test_a_report_that_cannot_be_written_is_kept_for_the_next_time(
    storage: Storage, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    db_thread, trial_id = start(storage)
    with storage.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE trial_intermediate_values RENAME TO elsewhere"))
    report(db_thread, trial_id, 1)
    db_thread.run(nothing)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].startswith("a report could not be written: ProgrammingError: ")
    with storage.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO trial_intermediate_values"))
    report(db_thread, trial_id, 2)
    db_thread.run(nothing)
    assert reported(storage, trial_id) == {1: 0.5, 2: 0.5}


def test_a_trial_that_another_worker_has_is_noted_and_not_written(storage: Storage, start: Start) -> None:
    db_thread, trial_id = start(storage)
    with storage.engine.begin() as connection:
        assert retries.give_back(connection, trial_id, "swept")
    report(db_thread, trial_id, 1)
    db_thread.run(nothing)
    assert db_thread.cache.leases.is_lost(trial_id)
    assert reported(storage, trial_id) == {}
    # Nothing is even sent from then on.
    db_thread.cache.set_trial_intermediate_value(trial_id, 2, 0.5)
    assert db_thread.cache.pending.take() == {}


def test_stopping_does_first_what_was_submitted(storage: Storage, start: Start) -> None:
    db_thread, trial_id = start(storage)
    gate = threading.Event()
    db_thread.submit(lambda: gate.wait(LIMIT_SECONDS))
    report(db_thread, trial_id, *range(1, 10))
    threading.Timer(0.1, gate.set).start()
    db_thread.stop()
    assert reported(storage, trial_id) == dict.fromkeys(range(1, 10), 0.5)
    db_thread.stop()


def test_stopping_does_not_wait_long_for_a_database_that_is_away(
    stoppable: PostgresServer, stoppable_storage: Storage, start: Start
) -> None:
    db_thread, trial_id = start(stoppable_storage)
    stoppable.stop()
    db_thread.cache.set_trial_intermediate_value(trial_id, 1, 0.5)
    written = db_thread.submit(db_thread._write)
    db_thread.stop(patience_seconds=0.2)
    assert isinstance(written.exception(), sa.exc.OperationalError)
    # It is still there for whoever wants it.
    assert db_thread.cache.pending.take()[trial_id].reports == {1: 0.5}


@pytest.mark.parametrize(
    ("statement", "passing"),
    [
        ("SELECT * FROM no_such_table", False),
        ("SELECT 1 / 0", False),
        ("SELECT no_such_function()", False),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$", True),  # serialization
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$", True),  # deadlock
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$", True),  # disk full
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53300'; END $$", True),  # too many connections
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '57P01'; END $$", True),  # the server is being stopped
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '42501'; END $$", False),  # no right
        ("SELECT pg_terminate_backend(pg_backend_pid())", True),
    ],
)
def test_which_errors_pass(statement: str, passing: bool, storage: Storage) -> None:
    with pytest.raises((sa.exc.DBAPIError, StorageError)) as caught, storage.engine.connect() as connection:
        connection.execute(sa.text(statement))
    assert is_transient(caught.value) is passing
    wrapped = optuna.exceptions.StorageInternalError("as Optuna's own storage raises it")
    wrapped.__cause__ = caught.value
    assert is_transient(wrapped) is passing


def test_repeating_ends_when_it_is_told_to() -> None:
    calls: list[None] = []

    def away() -> None:
        calls.append(None)
        raise StorageError("away", transient=True)

    with pytest.raises(StorageError, match="away"):
        persistently(away, lambda: len(calls) == 3)
    assert len(calls) == 3
