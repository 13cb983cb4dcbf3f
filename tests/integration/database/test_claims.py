"""Claims, ends and retries on a real Postgres: exact at any number of claimants, refused to those who lost."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database import claims, dead_workers, retries, trial_writes
from hpo.database.claims import Claim
from hpo.database.storage import Storage
from hpo.database.study_budget import set_budget
from hpo.database.trial_writes import Writes
from hpo.errors import ExperimentError
from tests.integration.trials_support import claim_one, finish, new_study


def test_eight_claimants_get_each_lineage_once(storage: Storage) -> None:
    study_ids = [new_study(storage, 30), new_study(storage, 17)]
    claimed: list[Claim] = []

    def work(worker: str) -> None:
        while True:
            taken, finished = claims.claim(storage.engine, study_ids, worker)
            claimed.extend(taken)
            if finished:
                return
            for claim in taken:
                assert finish(storage, claim.trial_id)

    threads = [threading.Thread(target=work, args=(f"here:{index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = Counter((claim.study_id, claim.lineage) for claim in claimed)
    assert set(counts.values()) == {1}
    assert sorted(lineage for study_id, lineage in counts if study_id == study_ids[0]) == list(range(30))
    assert sorted(lineage for study_id, lineage in counts if study_id == study_ids[1]) == list(range(17))
    for study_id, budget in zip(study_ids, (30, 17), strict=True):
        trials = storage.get_all_trials(study_id)
        assert [trial.number for trial in trials] == list(range(budget))
        assert {trial.state for trial in trials} == {TrialState.COMPLETE}


def test_studies_get_their_budgets_evenly(storage: Storage) -> None:
    study_ids = [new_study(storage, 4), new_study(storage, 8)]
    order = [claims.claim(storage.engine, study_ids, "here:1")[0][0].study_id for _ in range(6)]
    assert Counter(order) == {study_ids[0]: 2, study_ids[1]: 4}


def test_a_budget_in_epochs_is_never_exceeded_and_what_pruning_saves_is_spent(storage: Storage) -> None:
    study_id = new_study(storage, None, epochs=25, per_trial=10)
    first, second = claim_one(storage, study_id), claim_one(storage, study_id)
    # Both may take 10 epochs each: a third could make it 30.
    assert claims.claim(storage.engine, [study_id], "here:1") == ([], False)
    finish(storage, first.trial_id, epochs=3)
    third = claim_one(storage, study_id)
    assert third.lineage == 2
    finish(storage, second.trial_id, epochs=10)
    finish(storage, third.trial_id, epochs=10)
    assert claims.claim(storage.engine, [study_id], "here:1") == ([], True)


def test_a_larger_budget_opens_a_finished_study_again(storage: Storage) -> None:
    study_id = new_study(storage, 1)
    finish(storage, claim_one(storage, study_id).trial_id)
    assert claims.claim(storage.engine, [study_id], "here:1") == ([], True)
    with storage.engine.begin() as connection:
        set_budget(connection, study_id, 2, None, 10)
    assert claim_one(storage, study_id).lineage == 1


def test_a_retry_keeps_what_the_lineage_had_and_comes_first(storage: Storage) -> None:
    study_id = new_study(storage, 5)
    claim = claim_one(storage, study_id)
    distribution = optuna.distributions.FloatDistribution(0.001, 1.0, log=True)
    written = Writes(
        params={"lr": (0.1, optuna.distributions.distribution_to_json(distribution))},
        user_attrs={"config": {"lr": 0.1}, "seed": 7, "metrics": {"loss": 3.0}},
        system_attrs={"completed_rung_0": 0.4, "artifacts:1": "x"},
        reports={1: 0.25, 2: float("nan")},
    )
    with storage.engine.begin() as connection:
        assert retries.give_back(connection, claim.trial_id, "asked to end", written)
    retry = claim_one(storage, study_id, "there:2")
    assert (retry.lineage, retry.attempt, retry.fresh) == (0, 1, False)
    old, new = storage.get_all_trials(study_id)
    assert old.state is TrialState.FAIL
    assert old.user_attrs["reason"] == "asked to end"
    assert old.intermediate_values[1] == 0.25
    assert new.state is TrialState.RUNNING
    assert new.params == {"lr": 0.1}
    assert new.user_attrs == {"config": {"lr": 0.1}, "seed": 7, "lineage": 0, "attempt": 1, "worker": "there:2"}
    assert new.system_attrs == {"completed_rung_0": 0.4}
    assert new.intermediate_values == {}


def test_failures_are_counted_and_giving_back_is_not_one(storage: Storage) -> None:
    study_id = new_study(storage, 1)
    for attempt, error in enumerate(["a", "b", "c"]):
        claim = claim_one(storage, study_id)
        assert claim.attempt == 2 * attempt
        with storage.engine.begin() as connection:
            retries.give_back(connection, claim.trial_id, "asked to end")
        claim = claim_one(storage, study_id)
        with storage.engine.begin() as connection:
            assert retries.retry_or_fail(connection, claim.trial_id, error, max_retries=2, error=error)
    assert claims.claim(storage.engine, [study_id], "here:1") == ([], True)
    states = [trial.state for trial in storage.get_all_trials(study_id)]
    assert states == [TrialState.FAIL] * 6


def test_the_same_error_twice_is_not_tried_a_third_time(storage: Storage) -> None:
    study_id = new_study(storage, 1)
    for _ in range(2):
        claim = claim_one(storage, study_id)
        with storage.engine.begin() as connection:
            retries.retry_or_fail(connection, claim.trial_id, "boom", max_retries=9, error="ValueError: boom")
    assert claims.claim(storage.engine, [study_id], "here:1") == ([], True)


def test_a_silent_worker_is_swept_and_its_late_writes_are_refused(storage: Storage) -> None:
    study_id = new_study(storage, 2)
    claim = claim_one(storage, study_id)
    beating = claim_one(storage, study_id)
    # The server has been up for a moment only, so the grace is a fraction of one.
    _age_heartbeat(storage, claim.trial_id, 60)
    _age_heartbeat(storage, beating.trial_id, -60)
    assert dead_workers.sweep(storage.engine, [study_id], 0.2, 3) == 1
    assert dead_workers.sweep(storage.engine, [study_id], 0.2, 3) == 0
    with storage.engine.begin() as connection:
        assert trial_writes.write(connection, {claim.trial_id: Writes(reports={1: 9.0})}) == {claim.trial_id}
        assert trial_writes.beat(connection, [claim.trial_id, beating.trial_id]) == {claim.trial_id}
    assert not finish(storage, claim.trial_id, value=9.0)
    swept = storage.get_trial(claim.trial_id)
    assert swept.intermediate_values == {}
    assert swept.values is None
    assert "gave no sign of life for 0.2 s" in swept.user_attrs["reason"]
    assert claim_one(storage, study_id).attempt == 1


def test_the_start_of_the_server_counts_as_a_beat_of_everyone(storage: Storage) -> None:
    study_id = new_study(storage, 1)
    claim = claim_one(storage, study_id)
    with storage.engine.connect() as connection:
        age = connection.execute(sa.text("SELECT extract(epoch FROM now() - pg_postmaster_start_time())")).scalar_one()
    _age_heartbeat(storage, claim.trial_id, float(age) + 3600)
    assert dead_workers.sweep(storage.engine, [study_id], float(age) + 60, 3) == 0


def test_what_a_person_enqueues_takes_a_place_in_the_budget(storage: Storage) -> None:
    study_id = new_study(storage, 2)
    study = optuna.load_study(study_name=storage.get_study_name_from_id(study_id), storage=storage)
    study.enqueue_trial({"lr": 0.5})
    first, second = claim_one(storage, study_id), claim_one(storage, study_id)
    assert (first.lineage, first.fresh, second.lineage, second.fresh) == (0, False, 1, True)
    study.enqueue_trial({"lr": 0.7})
    assert claims.claim(storage.engine, [study_id], "here:1")[0] == []


def test_ending_twice_is_told_from_having_lost_the_trial(storage: Storage) -> None:
    study_id = new_study(storage, 2)
    mine, lost = claim_one(storage, study_id), claim_one(storage, study_id)
    finish(storage, mine.trial_id)
    with storage.engine.begin() as connection:
        retries.give_back(connection, lost.trial_id, "swept")
    with storage.engine.connect() as connection:
        assert trial_writes.ended_as(connection, mine.trial_id, TrialState.COMPLETE, "here:1")
        assert not trial_writes.ended_as(connection, mine.trial_id, TrialState.COMPLETE, "there:2")
        assert not trial_writes.ended_as(connection, lost.trial_id, TrialState.COMPLETE, "here:1")


def test_a_deleted_experiment_ends_its_workers(storage: Storage) -> None:
    study_id = new_study(storage, 2)
    claim = claim_one(storage, study_id)
    storage.delete_study(study_id)
    with storage.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM hpo_trials")).scalar_one() == 0
    with pytest.raises(ExperimentError, match="was deleted"):
        claims.claim(storage.engine, [study_id], "here:1")
    with storage.engine.begin() as connection:
        assert trial_writes.write(connection, {claim.trial_id: Writes(reports={1: 1.0})}) == {claim.trial_id}
        assert not retries.give_back(connection, claim.trial_id, "late")


def _age_heartbeat(storage: Storage, trial_id: int, seconds: float) -> None:
    with storage.engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE trial_heartbeats SET heartbeat = heartbeat - make_interval(secs => :s) WHERE trial_id = :t"
            ),
            {"s": seconds, "t": trial_id},
        )


def test_many_slots_leave_a_search_something_to_learn_from(storage: Storage) -> None:
    study_id = new_study(storage, 20)
    first, _ = claims.claim(storage.engine, [study_id], "here:1", 64, most_running={study_id: 5})
    assert len(first) == 5
    assert claims.claim(storage.engine, [study_id], "here:1", 64, num_held=5, most_running={study_id: 5}) == ([], False)
    # Another worker is not left idle for it.
    second, _ = claims.claim(storage.engine, [study_id], "there:2", 64, most_running={study_id: 5})
    assert len(second) == 1
    finish(storage, first[0].trial_id)
    finish(storage, first[1].trial_id)
    assert len(claims.claim(storage.engine, [study_id], "here:1", 64, num_held=3, most_running={study_id: 5})[0]) == 1


def test_what_is_enqueued_beyond_the_budget_keeps_nobody_waiting(storage: Storage) -> None:
    study_id = new_study(storage, 1)
    assert finish(storage, claim_one(storage, study_id).trial_id)
    study = optuna.load_study(study_name=storage.get_study_name_from_id(study_id), storage=storage)
    study.enqueue_trial({"lr": 0.5})
    assert claims.claim(storage.engine, [study_id], "here:1") == ([], True)
    assert [trial.state.name for trial in storage.get_all_trials(study_id)] == ["COMPLETE", "WAITING"]
    with storage.engine.begin() as connection:
        set_budget(connection, study_id, 2, None, 10)
    # A larger budget has a place for it.
    claim = claim_one(storage, study_id)
    assert (claim.enqueued, claim.lineage) == (True, 1)


def test_what_is_enqueued_obeys_a_budget_in_epochs(storage: Storage) -> None:
    study_id = new_study(storage, None, 10, per_trial=10)
    study = optuna.load_study(study_name=storage.get_study_name_from_id(study_id), storage=storage)
    study.enqueue_trial({"lr": 0.5})
    study.enqueue_trial({"lr": 0.6})
    assert claim_one(storage, study_id).enqueued
    assert claims.claim(storage.engine, [study_id], "here:1") == ([], False)


def test_claims_of_several_studies_never_wait_for_each_other(storage: Storage) -> None:
    """Four workers with many slots claim, end and give back over six studies; no transaction meets a deadlock."""
    study_ids = [new_study(storage, 40) for _ in range(6)]
    storages = [Storage(storage.secret_address) for _ in range(4)]

    def work(index: int) -> int:
        engine, num = storages[index].engine, 0
        order = study_ids if index % 2 else study_ids[::-1]
        for turn in range(12):
            claimed, _ = claims.claim(engine, order, f"here:{index}", 8, single=False)
            num += len(claimed)
            for claim in claimed[::-1]:
                with engine.begin() as connection:
                    if turn % 3:
                        retries.give_back(connection, claim.trial_id, "asked to end")
                    else:
                        trial_writes.finish(connection, claim.trial_id, TrialState.COMPLETE, 0.5, 1, Writes())
            if turn % 4 == 0 and claimed:
                dead_workers.fail_worker(engine, f"here:{index}", "killed", 1000)
        return num

    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(work, range(4)))
    for each in storages:
        each.engine.dispose()
    assert min(claimed) > 0
    numbers = [[t.number for t in storage.get_all_trials(study_id)] for study_id in study_ids]
    assert all(row == list(range(len(row))) for row in numbers)


def test_many_slots_are_claimed_in_as_many_statements_as_one(storage: Storage) -> None:
    study_ids = [new_study(storage, 100), new_study(storage, 50)]
    statements: list[str] = []

    def count(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    sa.event.listen(storage.engine, "before_cursor_execute", count)
    claims.claim(storage.engine, study_ids[:1], "here:1")
    num_for_one = len(statements)
    taken, finished = claims.claim(storage.engine, study_ids[:1], "here:1", limit=64, num_held=1)
    assert not finished
    assert len(statements) == 2 * num_for_one
    assert [(claim.number, claim.lineage, claim.attempt) for claim in taken] == [(n, n, 0) for n in range(1, 65)]
    mixed, _ = claims.claim(storage.engine, study_ids, "here:2", limit=64)
    # The second study first, until both have given out the same share.
    assert [claim.study_id for claim in mixed[:33]] == [study_ids[1]] * 33
    assert len({(claim.study_id, claim.lineage) for claim in [*taken, *mixed]}) == 128
    rest, _ = claims.claim(storage.engine, study_ids, "here:2", limit=64)
    assert len(rest) == 150 - 1 - 128
