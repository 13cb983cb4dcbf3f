"""Claims: which worker trains which trial. A claim is one transaction, so a kill at any point loses nothing.

A study's budget is a number of *lineages*, 0 to N - 1, and ``hpo_trials`` holds one row for each attempt at one, with
a unique constraint: the next lineage is made when it is claimed, under the row lock on the study that Optuna itself
takes to number trials. Beginning, ending and retrying a trial write Optuna's own tables directly, because Optuna's
calls are one transaction for each value and two for a retry, and between two transactions a process can die.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from hpo.database import attributes, search_clock
from hpo.database.trial_writes import execute, write_attributes
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


@dataclass(frozen=True)
class StudyBudget:
    """What a study may spend and what it has given out, in lineages, epochs and seconds.

    Attributes:
        running, waiting: trials of ours that run or wait for a worker.
        enqueued: trials that a person has enqueued and that have no place in the budget yet.
        reached: whether a trial has reached the value that ends the search, so that no further one begins.
        num_seconds, seconds_spent: the time in which trials of the study may run, and for how long some have run.
        trial_seconds: mean wall seconds of its finished trials; None before the first has finished.
    """

    study_id: int
    num_lineages: int | None
    num_epochs: int | None
    epochs_per_trial: int
    next_lineage: int
    epochs_spent: int
    running: int
    waiting: int
    enqueued: int = 0
    reached: bool = False
    num_seconds: float | None = None
    seconds_spent: float = field(default=0.0, compare=False)  # goes on while nothing changes
    trial_seconds: float | None = None

    @property
    def units(self) -> dict[str, float]:
        """The budget as ``trials``, ``epochs`` and ``seconds``, those that there are."""
        units = {"trials": self.num_lineages, "epochs": self.num_epochs, "seconds": self.num_seconds}
        return {unit: count for unit, count in units.items() if count is not None}

    @property
    def seconds_left(self) -> float | None:
        """None if time ends nothing."""
        return None if self.num_seconds is None else max(0.0, self.num_seconds - self.seconds_spent)

    @property
    def is_out_of_time(self) -> bool:
        return self.seconds_left == 0.0

    @property
    def may_continue(self) -> bool:
        """Whether a trial waits that may be claimed: when the time is over, it waits for a larger budget."""
        return self.waiting > 0 and not self.is_out_of_time

    @property
    def has_capacity(self) -> bool:
        """Whether one more lineage may begin: neither trials nor epochs can then exceed the budget, nor, as far as is
        known, the time."""
        if self.reached:
            return False
        if (left := self.seconds_left) is not None and (left == 0.0 or left < (self.trial_seconds or 0.0)):
            return False
        active = self.running + self.waiting
        return (self.num_lineages is None or self.next_lineage < self.num_lineages) and (
            self.num_epochs is None or self.epochs_spent + (active + 1) * self.epochs_per_trial <= self.num_epochs
        )

    @property
    def finished(self) -> bool:
        """Whether nothing runs, may be continued or may begin.

        An enqueued trial without a place in the budget does not count, nor one that was given back when the time was
        over.
        """
        return not self.running and not self.may_continue and not self.has_capacity

    @property
    def progress(self) -> float:
        """Share of the budget that has been given out, in [0, 1]."""
        if self.num_epochs is not None:
            reserved = self.epochs_spent + (self.running + self.waiting) * self.epochs_per_trial
            return min(1.0, reserved / max(1, self.num_epochs))
        if self.num_lineages is None and self.num_seconds is not None:
            # Trials that run have a share, so that studies of one experiment get workers alike.
            expected = self.num_seconds / 100 if self.trial_seconds is None else self.trial_seconds
            return min(1.0, (self.seconds_spent + self.running * expected) / self.num_seconds)
        return self.next_lineage / max(1, self.num_lineages or 0)

    def after_claim(self) -> "StudyBudget":
        """The budget once one more trial has been claimed."""
        if self.may_continue:
            return replace(self, waiting=self.waiting - 1, running=self.running + 1)
        return replace(
            self,
            next_lineage=self.next_lineage + 1,
            running=self.running + 1,
            enqueued=max(0, self.enqueued - 1),
        )


BUDGETS = f"""
SELECT s.study_id, s.num_lineages, s.num_epochs, s.epochs_per_trial, s.next_lineage, s.epochs_spent,
  count(h.trial_id) FILTER (WHERE t.state = 'RUNNING'), count(h.trial_id) FILTER (WHERE t.state = 'WAITING'),
  count(t.trial_id) FILTER (WHERE t.state = 'WAITING' AND h.trial_id IS NULL), s.reached, s.num_seconds,
  s.seconds_spent + coalesce(CAST(extract(epoch FROM now() AT TIME ZONE 'UTC' - greatest(s.seen_at, least(
    min(b.heartbeat) FILTER (WHERE t.state = 'RUNNING' AND h.trial_id IS NOT NULL AND {search_clock.IS_ALIVE}),
    now() AT TIME ZONE 'UTC'))) AS float8), 0),
  s.timed_seconds / nullif(s.timed_trials, 0)
FROM hpo_studies s LEFT JOIN trials t ON t.study_id = s.study_id AND t.state IN ('RUNNING', 'WAITING')
LEFT JOIN hpo_trials h ON h.trial_id = t.trial_id
LEFT JOIN trial_heartbeats b ON b.trial_id = t.trial_id AND s.num_seconds IS NOT NULL
WHERE s.study_id = ANY(:study_ids) GROUP BY s.study_id ORDER BY s.study_id
"""


def read_budgets(connection: sa.Connection, study_ids: Sequence[int]) -> list[StudyBudget]:
    """The budget of each of the studies, in the order of their ids; deleted ones are missing."""
    return [StudyBudget(*row) for row in execute(connection, BUDGETS, study_ids=list(study_ids))]


REACHED = """
UPDATE hpo_studies s SET reached = EXISTS (
  SELECT 1 FROM trials t JOIN hpo_trials h USING (trial_id) JOIN trial_values v USING (trial_id)
  WHERE t.study_id = s.study_id AND t.state = 'COMPLETE' AND v.objective = 0 AND v.value_type = 'FINITE'
    AND CASE WHEN s.maximize THEN v.value >= s.stop_at ELSE v.value <= s.stop_at END)
WHERE s.study_id = :s
"""


def set_budget(
    connection: sa.Connection,
    study_id: int,
    num_lineages: int | None,
    num_epochs: int | None,
    epochs_per_trial: int,
    *,
    num_seconds: float | None = None,
    stop_at: float | None = None,
    maximize: bool = False,
) -> None:
    """Writes a study's budget, or a larger one over it; may be repeated.

    ``stop_at``: the value that ends the search as soon as a complete trial has it, at least or at most.
    """
    execute(
        connection,
        """
        INSERT INTO hpo_studies (
            study_id, num_lineages, num_epochs, epochs_per_trial, num_seconds, stop_at, maximize)
        VALUES (:s, :n, :e, :p, :seconds, :stop_at, :maximize)
        ON CONFLICT (study_id) DO UPDATE SET num_lineages = :n, num_epochs = :e, epochs_per_trial = :p,
            num_seconds = :seconds, stop_at = :stop_at, maximize = :maximize
        """,
        s=study_id,
        n=num_lineages,
        e=num_epochs,
        p=epochs_per_trial,
        seconds=num_seconds,
        stop_at=stop_at,
        maximize=maximize,
    )
    execute(connection, REACHED, s=study_id)


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
    state = {budget.study_id: budget for budget in budgets}
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
    return is_first or budget.running < limits.get(budget.study_id, budget.running + 1)


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
        if budget.seconds_left is not None:
            claimed = replace(claimed, deadline=time.monotonic() + budget.seconds_left)
        claims.append(claimed)
        if claimed.apart and not single:
            break
        state[budget.study_id] = read_budgets(connection, [budget.study_id])[0]
    return claims


def are_deleted(engine: sa.Engine, study_ids: Sequence[int]) -> bool:
    """Whether none of the studies is there any more."""
    with engine.connect() as connection:
        return not read_budgets(connection, study_ids)


WAITING = """
SELECT t.trial_id, t.number, h.lineage, h.attempt, h.apart IS NOT NULL, coalesce(h.draw, 0)
FROM trials t LEFT JOIN hpo_trials h USING (trial_id)
WHERE t.study_id = :s AND t.state = 'WAITING'
  AND (h.trial_id IS NOT NULL OR :enqueued) AND (h.apart IS NULL OR :apart)
ORDER BY h.apart IS NULL, h.lineage NULLS LAST, t.number LIMIT 1
"""


def _take_waiting(
    connection: sa.Connection, budget: StudyBudget, worker: str, *, apart: bool, enqueued: bool
) -> Claim | None:
    """Claims a retry or, if ``enqueued``, a trial that a person enqueued: that one takes a place in the budget."""
    row = execute(connection, WAITING, s=budget.study_id, apart=apart, enqueued=enqueued).first()
    if row is None:
        return None
    trial_id, number, lineage, attempt, is_apart, draw = row
    is_foreign = lineage is None
    if is_foreign:
        lineage, attempt = budget.next_lineage, 0
        _new_lineage(connection, budget.study_id, trial_id, lineage)
    execute(
        connection,
        "UPDATE trials SET state = 'RUNNING', datetime_start = now() AT TIME ZONE 'UTC' WHERE trial_id = :t",
        t=trial_id,
    )
    _hold(connection, trial_id, lineage, attempt, worker)
    return Claim(
        budget.study_id, trial_id, number, lineage, attempt, fresh=False, enqueued=is_foreign, apart=is_apart, draw=draw
    )


def _begin(connection: sa.Connection, budget: StudyBudget, worker: str) -> Claim:
    lineage = budget.next_lineage
    trial_id, number = insert_trial(connection, budget.study_id, "RUNNING")
    _new_lineage(connection, budget.study_id, trial_id, lineage)
    _hold(connection, trial_id, lineage, 0, worker)
    return Claim(budget.study_id, trial_id, number, lineage, 0, fresh=True)


def insert_trial(connection: sa.Connection, study_id: int, state: str) -> tuple[int, int]:
    """Adds a trial and returns its id and number; the caller holds the study's lock, which keeps the number unique."""
    row = execute(
        connection,
        """
        INSERT INTO trials (study_id, number, state, datetime_start) VALUES (
            :s, (SELECT count(*) FROM trials WHERE study_id = :s), CAST(:state AS trialstate),
            CASE WHEN :state = 'RUNNING' THEN now() AT TIME ZONE 'UTC' END)
        RETURNING trial_id, number
        """,
        s=study_id,
        state=state,
    ).one()
    return row[0], row[1]


def _new_lineage(connection: sa.Connection, study_id: int, trial_id: int, lineage: int) -> None:
    execute(
        connection,
        "INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt) VALUES (:t, :s, :lineage, 0)",
        t=trial_id,
        s=study_id,
        lineage=lineage,
    )
    execute(connection, "UPDATE hpo_studies SET next_lineage = :n WHERE study_id = :s", n=lineage + 1, s=study_id)


def _hold(connection: sa.Connection, trial_id: int, lineage: int, attempt: int, worker: str) -> None:
    execute(connection, "UPDATE hpo_trials SET worker = :w WHERE trial_id = :t", w=worker, t=trial_id)
    execute(
        connection,
        """
        INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (:t, now() AT TIME ZONE 'UTC')
        ON CONFLICT (trial_id) DO UPDATE SET heartbeat = now() AT TIME ZONE 'UTC'
        """,
        t=trial_id,
    )
    owned = {attributes.LINEAGE: lineage, attributes.ATTEMPT: attempt, attributes.WORKER: worker}
    write_attributes(connection, "trial_user_attributes", {trial_id: owned})
