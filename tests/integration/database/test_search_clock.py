"""Budgets in time: what counts as time, what may begin in it, what is left when it is over."""

import time
from datetime import timedelta

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database import attributes, claims, dead_workers, retries, search_clock, study_budget, trial_writes
from hpo.database.storage import Storage
from hpo.database.study_budget import StudyBudget, set_budget
from hpo.database.trial_writes import Writes
from tests.integration.trials_support import claim_one, finish, new_study


def budget_of(storage: Storage, study_id: int) -> StudyBudget:
    with storage.engine.connect() as connection:
        return study_budget.read_budgets(connection, [study_id])[0]


def pass_seconds(storage: Storage, seconds: float) -> None:
    """Moves everything that has been noted into the past."""
    with storage.engine.begin() as connection:
        by = {"by": timedelta(seconds=seconds)}
        connection.execute(sa.text("UPDATE hpo_studies SET seen_at = seen_at - :by"), by)
        connection.execute(sa.text("UPDATE trial_heartbeats SET heartbeat = heartbeat - :by"), by)


def beat(storage: Storage, study_id: int, *trial_ids: int) -> None:
    with storage.engine.begin() as connection:
        search_clock.tick(connection, study_id, held=trial_ids)
    with storage.engine.begin() as connection:
        trial_writes.beat(connection, trial_ids)


def give_back(storage: Storage, trial_id: int) -> None:
    with storage.engine.begin() as connection:
        assert retries.give_back(connection, trial_id, "the time of the search is over")


def finish_after(storage: Storage, trial_id: int, wall_seconds: float) -> None:
    writes = Writes(user_attrs={attributes.WALL_SECONDS: wall_seconds})
    with storage.engine.begin() as connection:
        assert trial_writes.finish(connection, trial_id, TrialState.COMPLETE, 0.5, 1, writes)


def spent(storage: Storage, study_id: int) -> float:
    return budget_of(storage, study_id).seconds_spent


def nearly(seconds: float) -> object:
    return pytest.approx(seconds, abs=2)


def test_the_clock_runs_while_a_trial_runs_and_not_in_a_pause(storage: Storage) -> None:
    study_id = new_study(storage, 20, seconds=100)
    assert spent(storage, study_id) == 0
    first = claim_one(storage, study_id)
    pass_seconds(storage, 10)
    assert spent(storage, study_id) == nearly(10)
    # Two that run at once count once, from the first claim to the last end.
    second = claim_one(storage, study_id)
    pass_seconds(storage, 5)
    beat(storage, study_id, first.trial_id)
    finish(storage, first.trial_id)
    pass_seconds(storage, 5)
    finish(storage, second.trial_id)
    assert spent(storage, study_id) == nearly(20)
    pass_seconds(storage, 5000)
    assert spent(storage, study_id) == nearly(20)
    third = claim_one(storage, study_id)
    pass_seconds(storage, 7)
    give_back(storage, third.trial_id)
    pass_seconds(storage, 5000)
    assert spent(storage, study_id) == nearly(27)


def test_a_killed_launch_costs_little_and_a_database_that_was_away_counts(storage: Storage) -> None:
    study_id = new_study(storage, 20, seconds=1000)
    killed = claim_one(storage, study_id, "here:1")
    beat(storage, study_id, killed.trial_id)
    pass_seconds(storage, 500)
    alive = claim_one(storage, study_id, "here:2")
    assert dead_workers.fail_worker(storage.engine, "here:1", "it is gone", 3) == 1
    assert spent(storage, study_id) == nearly(0)
    # Its worker trained on while it could send no heartbeat.
    pass_seconds(storage, 300)
    beat(storage, study_id, alive.trial_id)
    assert spent(storage, study_id) == nearly(300)


def test_no_trial_begins_that_is_not_expected_to_end(storage: Storage) -> None:
    study_id = new_study(storage, None, seconds=100)
    first, second = claim_one(storage, study_id), claim_one(storage, study_id)
    pass_seconds(storage, 20)
    finish_after(storage, first.trial_id, 20.0)
    finish_after(storage, second.trial_id, 40.0)
    assert budget_of(storage, study_id).trial_seconds == 30
    third = claim_one(storage, study_id)
    for _ in range(3):
        pass_seconds(storage, 20)
        beat(storage, study_id, third.trial_id)
    # 20 s are left, a trial takes 30 on average: what runs goes on, nothing begins.
    assert claims.claim(storage.engine, [study_id], "here:2") == ([], False)
    # A lineage that goes on does begin, while there is time.
    give_back(storage, third.trial_id)
    third = claim_one(storage, study_id)
    assert (third.lineage, third.attempt) == (2, 1)
    finish_after(storage, third.trial_id, 1.0)
    # 61 s by three trials are still more than the 20 s that are left.
    assert budget_of(storage, study_id).trial_seconds == pytest.approx(61 / 3)
    assert claims.claim(storage.engine, [study_id], "here:2") == ([], True)
    with storage.engine.begin() as connection:
        set_budget(connection, study_id, None, None, 10, num_seconds=110)
    assert claim_one(storage, study_id).lineage == 3


def test_what_runs_at_the_end_waits_for_a_larger_budget(storage: Storage) -> None:
    study_id = new_study(storage, 20, seconds=10)
    claim = claim_one(storage, study_id)
    assert claim.deadline is not None
    pass_seconds(storage, 11)
    now = budget_of(storage, study_id)
    assert (now.seconds_left, now.is_out_of_time, now.finished) == (0, True, False)
    give_back(storage, claim.trial_id)
    now = budget_of(storage, study_id)
    assert (now.waiting, now.finished) == (1, True)
    assert claims.claim(storage.engine, [study_id], "here:1") == ([], True)
    with storage.engine.begin() as connection:
        set_budget(connection, study_id, 20, None, 10, num_seconds=20)
    assert not budget_of(storage, study_id).finished
    again = claim_one(storage, study_id)
    assert (again.lineage, again.attempt) == (0, 1)


def test_two_searches_of_one_experiment_have_a_time_each_and_workers_alike(storage: Storage) -> None:
    study_ids = [new_study(storage, None, seconds=100) for _ in range(2)]
    first, _ = claims.claim(storage.engine, study_ids, "here:1", limit=4)
    assert sorted(claim.study_id for claim in first) == [study_ids[0]] * 2 + [study_ids[1]] * 2
    pass_seconds(storage, 15)
    for claim in first[:2]:
        finish(storage, claim.trial_id)
    assert [spent(storage, study_id) for study_id in study_ids] == [nearly(15), nearly(15)]


def test_a_budget_without_time_counts_none(storage: Storage) -> None:
    study_id = new_study(storage, 3)
    claim = claim_one(storage, study_id)
    assert claim.deadline is None
    pass_seconds(storage, 10)
    finish_after(storage, claim.trial_id, 10.0)
    now = budget_of(storage, study_id)
    assert (now.seconds_left, now.seconds_spent, now.trial_seconds) == (None, 0, None)


def test_the_time_of_gpus_is_that_of_workers_and_not_of_trials(storage: Storage) -> None:
    study_id, other = new_study(storage, 20), new_study(storage, 20)
    with storage.engine.begin() as connection:
        for of in (study_id, other):
            set_budget(connection, of, 20, None, 10, num_seconds=100, gpus=2)
    pack = [claim_one(storage, study_id, "here:1") for _ in range(4)]
    pass_seconds(storage, 5)
    assert spent(storage, study_id) == nearly(10)  # two GPUs, however many trials they train at once
    assert budget_of(storage, study_id).clock_seconds_left == nearly(45)
    assert budget_of(storage, study_id).units == {"trials": 20, "gpu_seconds": 100}
    second = claim_one(storage, study_id, "here:2")
    pass_seconds(storage, 5)
    assert spent(storage, study_id) == nearly(30)
    assert second.deadline is not None
    assert second.deadline - time.monotonic() == pytest.approx(90 / 4, abs=2)
    finish(storage, second.trial_id)
    # A worker that trains trials of two studies counts in parts.
    for _ in range(4):
        claim_one(storage, other, "here:1")
    pass_seconds(storage, 10)
    assert (spent(storage, study_id), spent(storage, other)) == (nearly(40), nearly(10))
    for claim in pack:
        finish(storage, claim.trial_id)
    pass_seconds(storage, 1000)
    assert spent(storage, study_id) == nearly(40)


def test_no_trial_begins_for_which_gpu_time_is_not_left(storage: Storage) -> None:
    study_id = new_study(storage, 20)
    with storage.engine.begin() as connection:
        set_budget(connection, study_id, 20, None, 10, num_seconds=100, gpus=1)
    first = claim_one(storage, study_id)
    pass_seconds(storage, 25)
    writes = Writes(user_attrs={attributes.WALL_SECONDS: 99.0, attributes.SECONDS: 30.0})
    with storage.engine.begin() as connection:
        trial_writes.finish(connection, first.trial_id, TrialState.COMPLETE, 0.5, 1, writes)
    assert budget_of(storage, study_id).trial_seconds == 30
    # 75 are left: two more trials of 30, of which neither has begun long ago, and no third.
    assert [len(claims.claim(storage.engine, [study_id], f"here:{n}")[0]) for n in range(3)] == [1, 1, 0]
