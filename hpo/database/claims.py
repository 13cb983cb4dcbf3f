"""Claims: which worker trains which trial. A claim is one transaction, so a kill at any point loses nothing.

A study's budget is a number of *lineages*, 0 to N - 1, and ``hpo_trials`` holds one row for each attempt at one, with
a unique constraint: the next lineage is made when it is claimed, under the row lock on the study that Optuna itself
takes to number trials. Beginning, ending and retrying a trial write Optuna's own tables directly, because Optuna's
calls are one transaction for each value and two for a retry, and between two transactions a process can die.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from hpo.database import search_clock
from hpo.database.attempts import begin, hold, insert_trial, new_lineage
from hpo.database.study_budget import NEEDED, StudyBudget, read_budgets
from hpo.database.trial_writes import execute
from hpo.errors import ExperimentDeletedError


@dataclass(frozen=True)
class Claim:
    """A trial that is RUNNING in the caller's name.

    Attributes:
        fresh: a new trial without parameters; False for retries and enqueued trials.
        enqueued: a person added it with Optuna's ``enqueue_trial``; it has not run yet.
        apart: it has to be trained alone, because its last worker died while it held several trials.
        draw: number of configurations of this lineage that were refused before this attempt.
        deadline: when the time of its study is over, on this process's monotonic clock; None if time ends nothing.
        reserved: epochs that it may have before it has to ask for more; None if it may have all.
    """

    study_id: int
    trial_id: int
    number: int
    lineage: int
    attempt: int
    fresh: bool
    enqueued: bool = False
    apart: bool = False
    draw: int = 0
    deadline: float | None = None
    reserved: int | None = None


def lock_studies(connection: sa.Connection, study_ids: Iterable[int]) -> None:
    """Locks the studies against every other claim, retry and deletion until the transaction ends.

    All take these locks in the order of ids, and before the lock on any trial, so that two transactions never wait for
    each other.
    """
    execute(
        connection,
        "SELECT 1 FROM studies WHERE study_id = ANY(:ids) ORDER BY study_id FOR UPDATE",
        ids=sorted(set(study_ids)),
    )


LEARNING_SHARE = 4
"""At most one trial of so many of a budget runs at once, so that most of them can learn from others."""


def claim(
    engine: sa.Engine,
    study_ids: Sequence[int],
    worker: str,
    limit: int = 1,
    *,
    num_held: int = 0,
    most_running: Mapping[int, int] | None = None,
    single: bool = True,
    num_first: int = 0,
) -> tuple[list[Claim], bool]:
    """Claims up to ``limit`` trials for ``worker``, from the studies that have given out the least of their budgets.

    Retries and enqueued trials are claimed first. A worker that holds no trial (``num_held``) gets one if there is any.
    Beyond that first one, it begins no trial in a study that has ``most_running`` trials running: a search that gives
    out its whole budget at once learns nothing. A trial that has to be trained apart is claimed by a worker that trains
    a ``single`` trial at a time, or else by one that holds none, as its only one. The first ``num_first`` lineages of a
    study are not given to enqueued trials: they have configurations of their own.

    Returns the claims and whether every study is finished.

    Raises:
        ExperimentDeletedError: if every study has been deleted.
    """
    limits = most_running or {}
    while True:
        with engine.begin() as connection:
            budgets = read_budgets(connection, study_ids)
            if not budgets:
                raise ExperimentDeletedError
            chosen = _choose(budgets, limit, num_held, limits)
            if not chosen:
                return [], all(budget.finished for budget in budgets)
            # From here on nobody else changes what these studies have; what was read without the lock is read again.
            lock_studies(connection, chosen)
            for study_id in sorted({budget.study_id for budget in budgets if budget.num_seconds} & set(chosen)):
                search_clock.tick(connection, study_id)
            claims = _claim_from(connection, sorted(set(chosen)), worker, limit, num_held, limits, single, num_first)
            if claims:
                return claims, False
            if read_budgets(connection, study_ids) == budgets:
                # What waits there is not for this worker: it has to be trained apart.
                return [], False


def _choose(budgets: Sequence[StudyBudget], limit: int, num_held: int, limits: Mapping[int, int]) -> list[int]:
    """The studies to claim from, one for each trial: first where one waits, then by the share that was given out."""
    # An experiment is halted as a whole; a study that a launch has just added to it does not know that yet.
    state = {} if any(budget.halt for budget in budgets) else {budget.study_id: budget for budget in budgets}
    chosen: list[int] = []
    while len(chosen) < limit:
        is_first = not num_held and not chosen
        eligible = [
            budget
            for budget in state.values()
            if budget.may_continue or (budget.has_capacity and _may_begin(budget, is_first, limits))
        ]
        if not eligible:
            break
        best = min(eligible, key=lambda b: (not (b.may_continue or b.enqueued), b.progress, b.study_id))
        state[best.study_id] = best.after_claim()
        chosen.append(best.study_id)
    return chosen


def _may_begin(budget: StudyBudget, is_first: bool, limits: Mapping[int, int]) -> bool:
    limit = limits.get(budget.study_id, budget.running + 1)
    if budget.num_epochs is not None and budget.mean_epochs:
        # The limit counts whole trainings; the budget is as many trials as they take on average.
        limit = max(limit, int(budget.num_epochs / budget.mean_epochs) // LEARNING_SHARE)
    return is_first or budget.running < limit


def _claim_from(
    connection: sa.Connection,
    study_ids: list[int],
    worker: str,
    limit: int,
    num_held: int,
    limits: Mapping[int, int],
    single: bool,
    num_first: int,
) -> list[Claim]:
    """Claims from studies that are locked."""
    claims: list[Claim] = []
    state = {budget.study_id: budget for budget in read_budgets(connection, study_ids)}
    while len(claims) < limit:
        if not any(_needs_care(budget) for budget in state.values()):
            chosen = _choose(list(state.values()), limit - len(claims), num_held + len(claims), limits)
            return [*claims, *_begin_all(connection, state, chosen, worker)]
        is_first = not num_held and not claims
        chosen = _choose(list(state.values()), 1, num_held + len(claims), limits)
        if not chosen:
            break
        budget = state[chosen[0]]
        may_begin = budget.has_capacity and _may_begin(budget, is_first, limits)
        claimed: Claim | None = None
        may_take_enqueued = may_begin and budget.next_lineage >= num_first
        if budget.may_continue or (budget.enqueued and may_take_enqueued):
            claimed = _take_waiting(connection, budget, worker, apart=single or is_first, enqueued=may_take_enqueued)
        if claimed is None and may_begin:
            claimed = _begin(connection, budget, worker)
        if claimed is None:
            del state[budget.study_id]
            continue
        now = read_budgets(connection, [budget.study_id])[0]
        if now.clock_seconds_left is not None:
            claimed = replace(claimed, deadline=time.monotonic() + now.clock_seconds_left)
        claims.append(claimed)
        if claimed.apart and not single:
            break
        state[budget.study_id] = now
    return claims


def _needs_care(budget: StudyBudget) -> bool:
    """Whether trials of the study are claimed one by one: some wait, or what is left is not a number of trials."""
    is_in_trials = budget.num_epochs is None and budget.clock_seconds_left is None
    return budget.may_continue or budget.enqueued > 0 or not is_in_trials


def are_deleted(engine: sa.Engine, study_ids: Sequence[int]) -> bool:
    """Whether none of the studies is there any more."""
    with engine.connect() as connection:
        return not read_budgets(connection, study_ids)


WAITING = f"""
SELECT t.trial_id, t.number, h.lineage, h.attempt, h.apart IS NOT NULL, coalesce(h.draw, 0), h.reserved, {NEEDED}
FROM trials t JOIN hpo_studies s USING (study_id) LEFT JOIN hpo_trials h USING (trial_id)
WHERE t.study_id = :s AND t.state = 'WAITING'
  AND (h.trial_id IS NOT NULL OR :enqueued) AND (h.apart IS NULL OR :apart)
  AND (h.trial_id IS NULL OR s.num_epochs IS NULL OR {NEEDED} <= CAST(:left AS float8))
ORDER BY h.apart IS NULL, h.lineage NULLS LAST, t.number LIMIT 1
"""


def _take_waiting(
    connection: sa.Connection, budget: StudyBudget, worker: str, *, apart: bool, enqueued: bool
) -> Claim | None:
    """Claims a retry or, if ``enqueued``, a trial that a person enqueued: that one takes a place in the budget."""
    row = execute(
        connection, WAITING, s=budget.study_id, apart=apart, enqueued=enqueued, left=budget.epochs_left
    ).first()
    if row is None:
        return None
    trial_id, number, lineage, attempt, is_apart, draw, reserved, needed = row
    is_foreign = lineage is None
    if is_foreign:
        lineage, attempt = budget.next_lineage, 0
        reserved = new_lineage(connection, budget, trial_id)
    elif needed:
        execute(connection, "UPDATE hpo_trials SET reserved = NULL WHERE trial_id = :t", t=trial_id)
        reserved = None
    execute(
        connection,
        "UPDATE trials SET state = 'RUNNING', datetime_start = now() AT TIME ZONE 'UTC' WHERE trial_id = :t",
        t=trial_id,
    )
    hold(connection, trial_id, lineage, attempt, worker)
    return Claim(
        budget.study_id,
        trial_id,
        number,
        lineage,
        attempt,
        fresh=False,
        enqueued=is_foreign,
        apart=is_apart,
        draw=draw,
        reserved=reserved,
    )


def _begin(connection: sa.Connection, budget: StudyBudget, worker: str) -> Claim:
    lineage = budget.next_lineage
    trial_id, number = insert_trial(connection, budget.study_id, "RUNNING")
    reserved = new_lineage(connection, budget, trial_id)
    hold(connection, trial_id, lineage, 0, worker)
    return Claim(budget.study_id, trial_id, number, lineage, 0, fresh=True, reserved=reserved)


def _begin_all(
    connection: sa.Connection, state: Mapping[int, StudyBudget], study_ids: Sequence[int], worker: str
) -> list[Claim]:
    """Begins a lineage for each of ``study_ids``, in two statements for each study whatever the number of trials."""
    begun: dict[int, Iterator[Claim]] = {}
    for study_id, count in Counter(study_ids).items():
        rows = begin(connection, state[study_id], count, worker)
        begun[study_id] = iter([Claim(study_id, trial, number, made, 0, fresh=True) for trial, number, made in rows])
    return [next(begun[study_id]) for study_id in study_ids]


def reserve_all(engine: sa.Engine, study_id: int, trial_id: int) -> bool:
    """Reserves a whole training for a running trial; False if the epochs that are left do not suffice."""
    with engine.begin() as connection:
        lock_studies(connection, [study_id])
        budgets = read_budgets(connection, [study_id])
        query = "SELECT reserved FROM hpo_trials WHERE trial_id = :t"
        reserved = execute(connection, query, t=trial_id).scalar()
        if not budgets or reserved is None:
            return True
        if budgets[0].epochs_left < budgets[0].epochs_per_trial - reserved:
            return False
        execute(connection, "UPDATE hpo_trials SET reserved = NULL WHERE trial_id = :t", t=trial_id)
        return True
