"""Budgets in epochs: what trials reserve, and that no more is spent than there is."""

import random

import pytest
from optuna.trial import TrialState

from hpo.database import claims, retries, study_budget, trial_writes
from hpo.database.storage import Storage
from hpo.database.study_budget import StudyBudget
from hpo.database.trial_writes import Writes
from tests.integration.trials_support import claim_one, new_study


def budget_of(storage: Storage, study_id: int) -> StudyBudget:
    with storage.engine.connect() as connection:
        return study_budget.read_budgets(connection, [study_id])[0]


def end(storage: Storage, trial_id: int, epochs: int, state: TrialState = TrialState.PRUNED) -> None:
    with storage.engine.begin() as connection:
        assert trial_writes.finish(connection, trial_id, state, 0.5, epochs, Writes())


def give_back(storage: Storage, trial_id: int, epoch: int) -> None:
    with storage.engine.begin() as connection:
        writes = Writes(reports=dict.fromkeys(range(1, epoch + 1), 0.5))
        assert retries.give_back(connection, trial_id, "the epochs of the search are given out", writes)


def test_a_trial_reserves_what_others_have_spent(storage: Storage) -> None:
    study_id = new_study(storage, None, epochs=100, per_trial=10)
    first = [claim_one(storage, study_id) for _ in range(4)]
    assert [claim.reserved for claim in first] == [None] * 4  # a whole training, while the average is not known
    assert budget_of(storage, study_id).reserved == 40
    for claim, epochs in zip(first, (1, 1, 3, 3), strict=True):
        end(storage, claim.trial_id, epochs)
    assert (budget_of(storage, study_id).epochs_spent, budget_of(storage, study_id).reserved) == (8, 0)
    many = [claim_one(storage, study_id) for _ in range(18)]
    assert [claim.reserved for claim in many] == [2] * 18
    assert budget_of(storage, study_id).reserved == 36  # where whole trainings would have taken 9 trials at once

    # One that goes on beyond that reserves a whole training; near the end the others reserve one from the beginning.
    for claim in many[:5]:
        assert claims.reserve_all(storage.engine, study_id, claim.trial_id)
        assert claims.reserve_all(storage.engine, study_id, claim.trial_id)  # may be repeated
    assert budget_of(storage, study_id).epochs_left == 100 - 8 - 5 * 10 - 13 * 2
    assert claim_one(storage, study_id).reserved is None
    assert budget_of(storage, study_id).epochs_left == 6
    assert not budget_of(storage, study_id).has_capacity
    assert not claims.reserve_all(storage.engine, study_id, many[5].trial_id)


def test_a_trial_without_epochs_to_go_on_waits_for_those_of_others(storage: Storage) -> None:
    study_id = new_study(storage, None, epochs=60, per_trial=10)
    for _ in range(4):
        end(storage, claim_one(storage, study_id).trial_id, 2)
    short = [claim_one(storage, study_id) for _ in range(12)]
    whole = [claim for claim in short if claims.reserve_all(storage.engine, study_id, claim.trial_id)]
    given_back = next(claim for claim in short if claim not in whole and claim.reserved)
    give_back(storage, given_back.trial_id, 2)
    assert not budget_of(storage, study_id).may_continue
    assert not budget_of(storage, study_id).finished
    assert claims.claim(storage.engine, [study_id], "here:2") == ([], False)
    for claim in whole:
        end(storage, claim.trial_id, 1)
    again = claim_one(storage, study_id)
    assert (again.lineage, again.attempt, again.reserved) == (given_back.lineage, 1, None)


@pytest.mark.parametrize("seed", range(2))
def test_no_more_is_spent_than_there_is(storage: Storage, seed: int) -> None:
    """Many at once, most of them pruned, some never, some whose worker dies."""
    rng = random.Random(seed)
    total, per_trial = 150, 9
    study_id = new_study(storage, None, epochs=total, per_trial=per_trial)
    running: dict[int, claims.Claim] = {}
    done: dict[int, int] = {}  # lineage -> epochs that it has had
    at_once = 0
    for _ in range(2000):
        taken, finished = claims.claim(storage.engine, [study_id], "here:1", 8 - len(running), num_held=len(running))
        running |= {claim.trial_id: claim for claim in taken}
        if finished and not running:
            break
        at_once = max(at_once, len(running))
        for claim in list(running.values()):
            epoch = done[claim.lineage] = done.get(claim.lineage, 0) + 1
            survives = rng.random() < (0.4 if epoch in (1, 3) else 1.0)
            if not survives or epoch == per_trial:
                end(storage, claim.trial_id, epoch)
            elif rng.random() < 0.05:
                give_back(storage, claim.trial_id, epoch)
            elif claim.reserved is None or epoch < claim.reserved:
                continue
            elif claims.reserve_all(storage.engine, study_id, claim.trial_id):
                running[claim.trial_id] = claims.Claim(**{**vars(claim), "reserved": None})
                continue
            else:
                give_back(storage, claim.trial_id, epoch)
            del running[claim.trial_id]
        assert sum(done.values()) <= total
    budget = budget_of(storage, study_id)
    assert budget.finished
    assert budget.running == 0
    assert total - per_trial - 9 * budget.waiting < sum(done.values()) <= total
    assert at_once == 8
