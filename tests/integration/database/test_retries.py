"""What follows a trial that did not end by itself: progress protects it, the guilty one is found, nothing is charged
twice."""

import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from hpo.database import attributes, claims, dead_workers, retries, study_budget, trial_writes
from hpo.database.claims import Claim
from hpo.database.retries import Cause
from hpo.database.storage import Storage
from hpo.database.trial_writes import Writes
from tests.integration.trials_support import claim_one, finish, new_study


def claim_all(storage: Storage, study_id: int, worker: str, limit: int, num_held: int = 0) -> list[Claim]:
    """Claims as a worker with many slots does."""
    return claims.claim(storage.engine, [study_id], worker, limit, num_held=num_held, single=False)[0]


def begin(storage: Storage, trial_id: int, epoch: int = 0, *reports: int) -> None:
    """Records that the trial has begun after ``epoch`` epochs, and has reported these."""
    writes = Writes(user_attrs={attributes.START_EPOCH: epoch}, reports=dict.fromkeys(reports, 0.5))
    with storage.engine.begin() as connection:
        trial_writes.write(connection, {trial_id: writes})


def states(storage: Storage, study_id: int) -> list[str]:
    return [trial.state.name for trial in storage.get_all_trials(study_id)]


def last(storage: Storage, study_id: int) -> FrozenTrial:
    return storage.get_all_trials(study_id)[-1]


def column(storage: Storage, name: str, trial_id: int) -> object:
    with storage.engine.connect() as connection:
        return connection.execute(
            sa.text(f"SELECT {name} FROM hpo_trials WHERE trial_id = :t"), {"t": trial_id}
        ).scalar_one()


@pytest.mark.parametrize("cause", list(Cause))
def test_a_trial_that_moves_on_is_never_given_up(cause: Cause, storage: Storage) -> None:
    study_id = new_study(storage, 1)
    for epoch in range(12):
        claim = claim_one(storage, study_id)
        assert claim.attempt == epoch
        begin(storage, claim.trial_id, epoch, epoch + 1)
        with storage.engine.begin() as connection:
            assert retries.retry_or_fail(connection, claim.trial_id, "gone", 1, error="gone", cause=cause)
    assert finish(storage, claim_one(storage, study_id).trial_id)
    assert states(storage, study_id) == ["FAIL"] * 12 + ["COMPLETE"]


def test_progress_in_epochs_without_a_report_counts(storage: Storage) -> None:
    study_id = new_study(storage, 1)
    for epoch in range(5):
        claim = claim_one(storage, study_id)
        begin(storage, claim.trial_id, epoch)  # its checkpoint is the only trace of what came before
        with storage.engine.begin() as connection:
            assert retries.retry_or_fail(connection, claim.trial_id, "gone", 2, cause=Cause.DIED)
    assert states(storage, study_id)[-1] == "WAITING"


@pytest.mark.parametrize(
    ("cause", "max_retries", "num_attempts"),
    [
        (Cause.RAISED, 3, 4),
        (Cause.SILENT, 3, 4),
        (Cause.DIED, 3, 2),
        (Cause.DIED, 1, 2),
        (Cause.DIED, 0, 1),
        (Cause.DIED, 9, 4),
    ],
)
def test_without_progress_a_trial_is_given_up(
    cause: Cause, max_retries: int, num_attempts: int, storage: Storage
) -> None:
    study_id = new_study(storage, 1)
    for _ in range(num_attempts):
        assert "WAITING" not in states(storage, study_id)[:-1]
        claim = claim_one(storage, study_id)
        begin(storage, claim.trial_id)
        with storage.engine.begin() as connection:
            assert retries.retry_or_fail(connection, claim.trial_id, "gone", max_retries, cause=cause)
    assert states(storage, study_id) == ["FAIL"] * num_attempts
    assert claims.claim(storage.engine, [study_id], "here:1") == ([], True)


def test_the_same_error_twice_ends_the_lineage_and_its_epochs_are_spent(storage: Storage) -> None:
    study_id = new_study(storage, None, 100)
    for _ in range(2):
        claim = claim_one(storage, study_id)
        begin(storage, claim.trial_id, 0, 1, 2, 3)
        with storage.engine.begin() as connection:
            assert retries.retry_or_fail(connection, claim.trial_id, "no luck", 5, error="no luck")
    assert states(storage, study_id) == ["FAIL", "FAIL"]
    with storage.engine.connect() as connection:
        assert study_budget.read_budgets(connection, [study_id])[0].epochs_spent == 3


def test_what_is_not_charged_ends_a_lineage_only_if_it_is_repeated(storage: Storage) -> None:
    study_id = new_study(storage, 1)
    for error, state in (("device lost", "WAITING"), ("other", "WAITING"), ("other", "FAIL")):
        claim = claim_one(storage, study_id)
        with storage.engine.begin() as connection:
            retries.retry_or_fail(connection, claim.trial_id, error, 0, error=error, is_charged=False)
        assert states(storage, study_id)[-1] == state


def test_a_worker_that_died_with_one_trial_is_charged_to_it(storage: Storage) -> None:
    study_id = new_study(storage, 1)
    for attempt in range(2):
        claim = claim_one(storage, study_id, f"here:{attempt}")
        begin(storage, claim.trial_id)
        assert dead_workers.fail_worker(storage.engine, f"here:{attempt}", "killed", 3) == 1
    assert states(storage, study_id) == ["FAIL", "FAIL"]


def test_after_a_crash_of_a_pack_each_trial_runs_alone_until_the_guilty_one_is_found(storage: Storage) -> None:
    study_id = new_study(storage, 4)
    pack = claim_all(storage, study_id, "pack:1", 4)
    assert [claim.lineage for claim in pack] == [0, 1, 2, 3]
    for claim in pack:
        begin(storage, claim.trial_id)
    assert dead_workers.fail_worker(storage.engine, "pack:1", "killed", 0) == 4
    # Nobody is charged, although nothing may be tried again here; each is then claimed alone.
    (first,) = claim_all(storage, study_id, "pack:2", 4)
    assert (first.lineage, first.apart) == (0, True)
    assert claim_all(storage, study_id, "pack:2", 3, num_held=1) == []
    assert claims.claim(storage.engine, [study_id], "pack:2", 3, num_held=1, single=False) == ([], False)
    begin(storage, first.trial_id)
    assert finish(storage, first.trial_id)
    (second,) = claim_all(storage, study_id, "pack:2", 4)
    begin(storage, second.trial_id)
    # It ends its process alone: it is the one, and the others may be trained side by side again.
    assert dead_workers.fail_worker(storage.engine, "pack:2", "killed", 0) == 1
    others = claim_all(storage, study_id, "pack:3", 4)
    assert [(claim.lineage, claim.apart) for claim in others] == [(2, False), (3, False)]
    assert states(storage, study_id).count("FAIL") == 5


def test_a_worker_with_one_slot_claims_apart_ones_like_others(storage: Storage) -> None:
    study_id = new_study(storage, 2)
    for claim in claim_all(storage, study_id, "pack:1", 2):
        begin(storage, claim.trial_id)
    dead_workers.fail_worker(storage.engine, "pack:1", "killed", 3)
    first = claim_one(storage, study_id, "single:1")
    claimed, _ = claims.claim(storage.engine, [study_id], "single:1", num_held=1)
    assert [first.lineage, claimed[0].lineage] == [0, 1]


@pytest.mark.parametrize("end", ["dead", "silent"])
def test_what_was_claimed_ahead_and_never_begun_is_not_charged(end: str, storage: Storage) -> None:
    study_id = new_study(storage, 3)
    training, *ahead = [claim_one(storage, study_id, "here:1") for _ in range(3)]
    begin(storage, training.trial_id)
    if end == "dead":
        assert dead_workers.fail_worker(storage.engine, "here:1", "killed", 0) == 3
    else:
        with storage.engine.begin() as connection:
            old = "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 hour'"
            connection.execute(sa.text(old))
        with storage.engine.connect() as connection:
            started = connection.execute(sa.text("SELECT now() - pg_postmaster_start_time()")).scalar_one()
        grace_seconds = started.total_seconds() / 2
        assert dead_workers.sweep(storage.engine, [study_id], grace_seconds, 0) == 3
    trials = storage.get_all_trials(study_id)
    waiting = sorted(t.user_attrs[attributes.LINEAGE] for t in trials if t.state is TrialState.WAITING)
    assert waiting == [claim.lineage for claim in ahead]
    assert trials[0].state is TrialState.FAIL


def test_a_sweep_leaves_those_that_beat(storage: Storage) -> None:
    study_id = new_study(storage, 2)
    silent, alive = claim_one(storage, study_id, "here:1"), claim_one(storage, study_id, "here:2")
    with storage.engine.begin() as connection:
        old = "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 hour' WHERE trial_id = :t"
        connection.execute(sa.text(old), {"t": silent.trial_id})
        started = connection.execute(sa.text("SELECT now() - pg_postmaster_start_time()")).scalar_one()
    assert dead_workers.sweep(storage.engine, [study_id], started.total_seconds() / 2, 3) == 1
    assert storage.get_trial(alive.trial_id).state is TrialState.RUNNING
    assert storage.get_trial(silent.trial_id).state is TrialState.FAIL


def test_a_refused_draw_is_recorded_once_and_costs_no_budget(storage: Storage) -> None:
    study_id = new_study(storage, 2)
    claim = claim_one(storage, study_id)
    writes = Writes(user_attrs={attributes.INFEASIBLE: {"lineage": 0, "draw": 0}}, system_attrs={"constraints:f": 1.0})
    for _ in range(2):
        with storage.engine.begin() as connection:
            recorded = retries.record_refused_draw(connection, study_id, 0, 0, "does not fit", writes)
    assert recorded is None
    assert states(storage, study_id) == ["RUNNING", "PRUNED"]
    refused = last(storage, study_id)
    assert refused.user_attrs[attributes.REASON] == "does not fit"
    assert refused.constraints == {"f": 1.0}
    with storage.engine.connect() as connection:
        budget = study_budget.read_budgets(connection, [study_id])[0]
        assert (budget.next_lineage, budget.running, budget.waiting) == (1, 1, 0)
        assert retries.count_infeasible(connection, [study_id]) == {study_id: 1}
    assert finish(storage, claim.trial_id)
    assert finish(storage, claim_one(storage, study_id).trial_id)
    assert claims.claim(storage.engine, [study_id], "here:1") == ([], True)


def test_an_infeasible_trial_is_replaced_by_another_draw_of_its_lineage(storage: Storage) -> None:
    study_id = new_study(storage, 1)
    claim = claim_one(storage, study_id)
    with storage.engine.begin() as connection:
        writes = Writes(params={"lr": (0.5, '{"name": "FloatDistribution"}')}, user_attrs={attributes.CONFIG: {}})
        assert retries.replace(connection, claim.trial_id, TrialState.PRUNED, "too wide", writes, draw=1)
    again = claim_one(storage, study_id)
    assert (again.lineage, again.draw, again.fresh) == (0, 1, False)
    # Nothing of the refused configuration is left.
    assert attributes.CONFIG not in storage.get_trial(again.trial_id).user_attrs
    with storage.engine.connect() as connection:
        assert retries.count_infeasible(connection, [study_id]) == {study_id: 1}


def test_failed_lineages_are_queued_again_with_their_failures_forgotten(storage: Storage) -> None:
    study_id = new_study(storage, None, 100)
    claim = claim_one(storage, study_id)
    with storage.engine.begin() as connection:
        writes = Writes(user_attrs={attributes.GIVEN: {"lr": 0.5}, attributes.START_EPOCH: 0}, reports={1: 0.5})
        assert retries.retry_or_fail(connection, claim.trial_id, "no luck", 0, error="no luck", writes=writes)
    refused = claim_one(storage, study_id)
    with storage.engine.begin() as connection:
        writes = Writes(user_attrs={attributes.REFUSED: True})
        assert retries.fail_for_good(connection, refused.trial_id, "lr = 'fast'", writes)
    assert retries.retry_failed(storage.engine, [study_id]) == 1
    assert retries.retry_failed(storage.engine, [study_id]) == 0
    with storage.engine.connect() as connection:
        assert study_budget.read_budgets(connection, [study_id])[0].epochs_spent == 0
    again = claim_one(storage, study_id)
    assert (again.lineage, again.attempt) == (0, 1)
    assert storage.get_trial(again.trial_id).user_attrs[attributes.GIVEN] == {"lr": 0.5}
    assert column(storage, "failures", again.trial_id) == 0
    assert finish(storage, again.trial_id)


def test_results_and_failures_of_an_experiment(storage: Storage) -> None:
    study_id = new_study(storage, 3)
    assert retries.results_and_failures(storage.engine, [study_id]) == (0, [])
    first = claim_one(storage, study_id)
    with storage.engine.begin() as connection:
        retries.retry_or_fail(connection, first.trial_id, "no luck", 0)
    assert retries.results_and_failures(storage.engine, [study_id]) == (0, ["no luck"])
    assert finish(storage, claim_one(storage, study_id).trial_id)
    assert retries.results_and_failures(storage.engine, [study_id]) == (1, ["no luck"])
