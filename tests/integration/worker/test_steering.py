"""A worker obeys what a person orders in the middle of an epoch that would take a minute."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hpo.database import workers
from hpo.database.storage import Storage
from hpo.errors import SteeredMeanwhileError
from hpo.experiment import steering
from hpo.experiment.experiment import Experiment, create_experiment
from hpo.experiment.status import snapshot
from hpo.studyfile.load import parse_study_file
from hpo.trainers.generator import trainer
from hpo.trainers.protocol import Config, Run
from hpo.worker.exit_codes import EXIT_PAUSED
from hpo.worker.options import WorkerOptions
from hpo.worker.worker import run_worker

begun = threading.Event()
slow_from = [10**9]
"""Number of the trial from which an epoch takes a minute."""
long_seconds = [60.0]


class Slow(Config):
    x: float = 0.5


@trainer("slow", metrics={"loss": "minimize"}, max_epochs=3)
def slow(config: Slow, run: Run) -> Iterator[dict[str, Any]]:
    """Three epochs; the second of some trials takes a minute."""
    for epoch in range(run.start_epoch + 1, 4):
        if epoch == 2 and run.trial >= slow_from[0]:
            begun.set()
            time.sleep(long_seconds[0])
        run.save({"epoch": epoch})
        yield {"loss": config.x / epoch}


@pytest.fixture
def experiment(storage: Storage) -> Experiment:
    table = {"name": "steered", "trainer": "slow", "metric": "loss", "samplers": ["random"], "pruner": "none"}
    table |= {"budget": {"trials": 3}, "space": {"x": {"low": 0.0, "high": 1.0}}}
    begun.clear()
    slow_from[0], long_seconds[0] = 1, 60.0
    return create_experiment(storage, parse_study_file(table, "study.toml"))[0]


@pytest.fixture
def work(tmp_path: Path) -> Callable[[Experiment], int]:
    def run(experiment: Experiment) -> int:
        checkpoints, artifacts = str(tmp_path / "checkpoints"), tmp_path / "artifacts"
        return run_worker(experiment, WorkerOptions(checkpoints, artifacts, heartbeat_seconds=0.5))

    return run


def once_it_trains(action: Callable[[], Any]) -> threading.Thread:
    """Runs the action once the long epoch has begun, in a thread."""

    def wait() -> None:
        assert begun.wait(30)
        slow_from[0] = 10**9
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def states(experiment: Experiment) -> dict[str, int]:
    return {name: count for name, count in snapshot(experiment)["studies"][0]["states"].items() if count}


def trained(experiment: Experiment) -> dict[str, int]:
    """Without those that wait: a trial may have been claimed ahead."""
    return {name: count for name, count in states(experiment).items() if name != "waiting"}


def attempts(experiment: Experiment) -> list[tuple[int, int, str, str | None]]:
    query = (
        "SELECT h.lineage, h.attempt, t.state::text, a.value_json FROM hpo_trials h JOIN trials t USING (trial_id) "
        "LEFT JOIN trial_user_attributes a ON a.trial_id = h.trial_id AND a.key = 'reason' ORDER BY 1, 2"
    )
    with experiment.storage.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def test_a_stop_interrupts_an_epoch_and_the_next_worker_goes_on_from_the_checkpoint(experiment, work) -> None:
    thread = once_it_trains(lambda: steering.stop(experiment, who="ann"))
    started = time.monotonic()
    assert work(experiment) == 0
    assert time.monotonic() - started < 30
    thread.join()
    assert trained(experiment) == {"complete": 1}
    assert attempts(experiment)[1] == (1, 0, "FAIL", '"the experiment was stopped by ann"')
    # A worker that starts while it is stopped ends at once.
    assert work(experiment) == 0
    assert trained(experiment) == {"complete": 1}
    steering.resume(experiment, who="ann")
    assert work(experiment) == 0
    assert states(experiment) == {"complete": 3}
    with experiment.storage.engine.connect() as connection:
        query = "SELECT value_json FROM trial_user_attributes JOIN hpo_trials h USING (trial_id) "
        query += "WHERE key = 'start_epoch' AND h.lineage = 1 AND h.attempt = 1"
        assert connection.execute(sa.text(query)).scalar() == "1"


def test_a_pause_has_the_worker_replaced_by_one_that_waits(experiment, work) -> None:
    thread = once_it_trains(lambda: steering.pause(experiment, who="ann"))
    assert work(experiment) == EXIT_PAUSED
    thread.join()
    assert trained(experiment) == {"complete": 1}

    def resume() -> None:
        time.sleep(1.5)
        assert trained(experiment) == {"complete": 1}
        steering.resume(experiment, who="bob")

    threading.Thread(target=resume).start()
    assert work(experiment) == 0
    assert states(experiment) == {"complete": 3}


def test_a_pruned_trial_ends_in_the_middle_of_its_epoch_and_the_worker_goes_on(experiment, work) -> None:
    thread = once_it_trains(lambda: steering.prune(experiment, "1", who="ann"))
    assert work(experiment) == 0
    thread.join()
    assert states(experiment) == {"complete": 2, "pruned": 1}
    assert attempts(experiment)[1] == (1, 0, "PRUNED", '"pruned by ann"')


def test_a_prune_that_no_worker_has_obeyed_is_obeyed_by_the_next_one(experiment, work) -> None:
    def both() -> None:
        steering.prune(experiment, "1", who="ann")
        steering.stop(experiment, who="bob")

    thread = once_it_trains(both)
    assert work(experiment) == 0
    thread.join()
    steering.resume(experiment)
    slow_from[0], long_seconds[0] = 1, 4.0
    assert work(experiment) == 0
    assert states(experiment)["pruned"] == 1


def test_finish_running_lets_the_trial_end_first(experiment, work) -> None:
    slow_from[0] = 10**9

    def stop_soon() -> None:
        steering.stop(experiment, finish_running=True, who="ann")

    steering.resume(experiment)
    slow_from[0], long_seconds[0] = 1, 2.0
    thread = once_it_trains(stop_soon)
    assert work(experiment) == 0
    thread.join()
    assert trained(experiment) == {"complete": 2}


def test_two_persons_who_steer_at_once_are_one_after_the_other(experiment) -> None:
    seen = steering.order_of(experiment).last_id
    steering.pause(experiment, who="ann", expected=seen)
    with pytest.raises(SteeredMeanwhileError, match="paused by ann"):
        steering.stop(experiment, who="bob", expected=seen)
    assert steering.order_of(experiment).halt == "paused"
    seen = steering.order_of(experiment).last_id
    assert "is stopped" in steering.stop(experiment, who="bob", expected=seen).message
    assert [event.who for event in steering.events_of(experiment)] == ["bob", "ann"]


def test_a_worker_reports_where_it_is_and_what_it_uses(experiment, work) -> None:
    found: list[Any] = []

    def look() -> None:
        time.sleep(1.2)
        with experiment.storage.engine.connect() as connection:
            found.extend(workers.read_workers(connection, experiment.study_ids))
        steering.stop(experiment)

    thread = once_it_trains(look)
    work(experiment)
    thread.join()
    (row,) = found
    assert (row.alive, row.state, row.report["device"], row.report["slots"]) == (True, "trains", "cpu", 1)
    assert row.report["memory_mb"] > 10
    assert row.report["cpu_percent"] is not None
    assert (row.trials[0].number, row.trials[0].epoch) == (1, 1)  # another may be claimed ahead
    with experiment.storage.engine.connect() as connection:
        (row,) = workers.read_workers(connection, experiment.study_ids)
    assert not row.alive
    assert "stopped by" in row.state
