"""The heartbeat: one thread for all trials of a worker, which neither an outage nor a failing duty ends."""

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

import hpo.worker.heartbeat
from benchmarks.postgres_server import PostgresServer
from hpo.database import claims, retries
from hpo.database.storage import Storage
from hpo.worker.heartbeat import Heartbeat
from hpo.worker.trial_cache import TrialCache
from tests.integration.trials_support import attempts_to_connect, new_study, statements, wait_until

Start = Callable[..., Heartbeat]
NEVER_SECONDS = 3600.0


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes a heartbeat over a view with claimed trials; its thread has ended when the test has."""
    started: list[Heartbeat] = []

    def make(
        storage: Storage, trials: int = 3, interval_seconds: float = 0.02, grace_seconds: float = NEVER_SECONDS, *duties
    ) -> Heartbeat:
        view = TrialCache(storage, auto_refresh=False)
        study_id = new_study(storage, trials)
        for claim in claims.claim(storage.engine, [study_id], "here:1", trials)[0]:
            view.track(claim)
        assert len(view.leases.trial_ids) == trials
        started.append(Heartbeat(view, interval_seconds, grace_seconds, list(duties)))
        return started[-1]

    yield make
    for heartbeat in started:
        heartbeat.stop()
        wait_until(lambda heartbeat=heartbeat: not heartbeat._thread.is_alive())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock by which the heartbeat judges; set ``now`` to let time pass."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(hpo.worker.heartbeat, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def beats(storage: Storage) -> list[str]:
    """The last beat of each trial."""
    with storage.engine.connect() as connection:
        query = "SELECT heartbeat::text FROM trial_heartbeats ORDER BY trial_id"
        return [row[0] for row in connection.execute(sa.text(query))]


def test_one_statement_beats_for_all_trials(storage: Storage, start: Start) -> None:
    heartbeat = start(storage, 64, NEVER_SECONDS)
    before = beats(storage)
    with statements(storage.engine) as executed:
        heartbeat.beat()
    assert len(executed) == 1
    after = beats(storage)
    assert len(after) == 64
    assert len(set(after)) == 1
    assert after[0] > max(before)


def test_one_thread_beats_again_and_again(storage: Storage, start: Start) -> None:
    start(storage, 64)
    for _ in range(3):
        before = beats(storage)
        wait_until(lambda before=before: all(now > then for now, then in zip(beats(storage), before, strict=True)))
    assert [thread.name for thread in threading.enumerate()].count("heartbeat") == 1


def test_a_worker_without_trials_asks_the_database_nothing(storage: Storage, start: Start) -> None:
    turns: list[None] = []
    with statements(storage.engine) as executed:
        heartbeat = Heartbeat(TrialCache(storage), 0.01, NEVER_SECONDS, [lambda: turns.append(None)])
        wait_until(lambda: len(turns) > 3)
        heartbeat.stop()
    assert executed == []


def test_what_others_took_is_noted(storage: Storage, start: Start) -> None:
    heartbeat = start(storage)
    swept, kept, ended = heartbeat.cache.leases.trial_ids
    with storage.engine.begin() as connection:
        assert retries.give_back(connection, swept, "silent")
        assert retries.retry_or_fail(connection, ended, "its trainer", max_retries=0)
    wait_until(lambda: heartbeat.cache.leases.is_lost(swept) and heartbeat.cache.leases.is_lost(ended))
    assert not heartbeat.cache.leases.is_lost(kept)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_beats_go_on_after_a_restart_of_the_server(
    end: str, stoppable: PostgresServer, stoppable_storage: Storage, start: Start
) -> None:
    heartbeat = start(stoppable_storage)
    before = beats(stoppable_storage)
    wait_until(lambda: beats(stoppable_storage) > before)
    getattr(stoppable, end)()
    with attempts_to_connect(stoppable_storage.engine) as attempts:
        wait_until(lambda: len(attempts) >= 3)
    stoppable.start()
    last = beats(stoppable_storage)
    wait_until(lambda: beats(stoppable_storage) > last)
    # The same thread, and the trials are still its own.
    assert heartbeat._thread.is_alive()
    assert not any(heartbeat.cache.leases.is_lost(trial_id) for trial_id in heartbeat.cache.leases.trial_ids)


def test_a_failing_duty_is_told_and_harms_nothing(
    storage: Storage, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    turns: list[None] = []

    def sweep() -> None:
        raise OSError("no luck")

    start(storage, 3, 0.02, NEVER_SECONDS, sweep, lambda: turns.append(None))
    before = beats(storage)
    wait_until(lambda: len(turns) >= 3 and beats(storage) > before)
    assert caplog.messages.count("sweep failed: OSError: no luck") >= 3


def test_a_beat_that_fails_for_good_is_told_and_the_next_one_tried(
    storage: Storage, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    start(storage)
    with storage.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE trial_heartbeats RENAME TO elsewhere"))
    wait_until(lambda: any(message.startswith("a heartbeat failed: ProgrammingError") for message in caplog.messages))
    with storage.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO trial_heartbeats"))
    before = beats(storage)
    wait_until(lambda: beats(storage) > before)


def test_half_a_grace_period_without_a_beat_makes_doubtful(
    storage: Storage, start: Start, clock: SimpleNamespace
) -> None:
    heartbeat = start(storage, 1, NEVER_SECONDS, 30.0)
    # A worker that has just started may sweep: nobody's silence is its own outage.
    assert heartbeat.may_declare_others_dead
    clock.now += 14.9
    assert not heartbeat.lease_may_be_lost
    clock.now += 0.2
    assert heartbeat.lease_may_be_lost
    heartbeat.beat()
    assert not heartbeat.lease_may_be_lost


def test_after_an_outage_nobody_is_taken_for_dead_for_a_grace_period(
    storage: Storage, start: Start, clock: SimpleNamespace
) -> None:
    heartbeat = start(storage, 1, NEVER_SECONDS, 30.0)
    for _ in range(5):
        clock.now += 14.0
        heartbeat.beat()
        assert heartbeat.may_declare_others_dead
    clock.now += 16.0
    heartbeat.beat()
    for _ in range(3):
        assert not heartbeat.may_declare_others_dead
        clock.now += 9.9
        heartbeat.beat()
    assert not heartbeat.may_declare_others_dead
    clock.now += 0.4
    assert heartbeat.may_declare_others_dead


def test_it_ends_although_the_database_is_away(
    stoppable: PostgresServer, stoppable_storage: Storage, start: Start
) -> None:
    heartbeat = start(stoppable_storage)
    stoppable.stop()
    with attempts_to_connect(stoppable_storage.engine) as attempts:
        wait_until(lambda: len(attempts) >= 2)
        heartbeat.stop()
        wait_until(lambda: not heartbeat._thread.is_alive())
