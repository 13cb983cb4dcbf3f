"""Who trains what: each change of a trial's state is one transaction, so a kill at any point loses nothing.

A study's budget is a number of *lineages*, 0 to N - 1, and ``hpo_trials`` holds one row for each attempt at one, with
a unique constraint: what must exist and does not is made when it is claimed, under the row lock on the study that
Optuna itself takes to number trials. Beginning, ending and retrying a trial write Optuna's own tables directly,
because Optuna's calls are one transaction for each value and two for a retry, and between two transactions a process
can die.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from hpo.database import attributes
from hpo.database.trial_writes import execute, write_attributes
from hpo.errors import ExperimentDeletedError


@dataclass(frozen=True)
class Claim:
    """A trial that is RUNNING in the caller's name. ``fresh``: it holds nothing yet; else it is a retry or enqueued."""

    study_id: int
    trial_id: int
    number: int
    lineage: int
    attempt: int
    fresh: bool


@dataclass(frozen=True)
class Standing:
    """Where one study of an experiment stands, in lineages and epochs."""

    study_id: int
    num_lineages: int | None
    num_epochs: int | None
    epochs_per_trial: int
    next_lineage: int
    epochs_spent: int
    running: int
    waiting: int

    @property
    def room(self) -> bool:
        """Whether one more lineage may begin: neither trials nor epochs can then exceed the budget."""
        active = self.running + self.waiting
        return (self.num_lineages is None or self.next_lineage < self.num_lineages) and (
            self.num_epochs is None or self.epochs_spent + (active + 1) * self.epochs_per_trial <= self.num_epochs
        )

    @property
    def finished(self) -> bool:
        return not self.running and not self.waiting and not self.room

    @property
    def progress(self) -> float:
        """Share of the budget that has been given out, in [0, 1]."""
        if self.num_epochs is not None:
            reserved = self.epochs_spent + (self.running + self.waiting) * self.epochs_per_trial
            return min(1.0, reserved / max(1, self.num_epochs))
        return self.next_lineage / max(1, self.num_lineages or 0)


STANDINGS = """
SELECT s.study_id, s.num_lineages, s.num_epochs, s.epochs_per_trial, s.next_lineage, s.epochs_spent,
  (SELECT count(*) FROM trials t JOIN hpo_trials USING (trial_id) WHERE t.study_id = s.study_id AND state = 'RUNNING'),
  (SELECT count(*) FROM trials t WHERE t.study_id = s.study_id AND state = 'WAITING')
FROM hpo_studies s WHERE s.study_id = ANY(:study_ids) ORDER BY s.study_id
"""


def standings(connection: sa.Connection, study_ids: Sequence[int]) -> list[Standing]:
    """Where each of the studies stands, in the order of their ids; deleted ones are missing."""
    return [Standing(*row) for row in execute(connection, STANDINGS, study_ids=list(study_ids))]


def open_study(
    connection: sa.Connection, study_id: int, num_lineages: int | None, num_epochs: int | None, epochs_per_trial: int
) -> None:
    """Writes a study's budget, or a larger one over it; may be repeated."""
    execute(
        connection,
        """
        INSERT INTO hpo_studies (study_id, num_lineages, num_epochs, epochs_per_trial) VALUES (:s, :n, :e, :p)
        ON CONFLICT (study_id) DO UPDATE SET num_lineages = :n, num_epochs = :e, epochs_per_trial = :p
        """,
        s=study_id,
        n=num_lineages,
        e=num_epochs,
        p=epochs_per_trial,
    )


def claim(
    engine: sa.Engine,
    study_ids: Sequence[int],
    worker: str,
    limit: int = 1,
    *,
    held: int = 0,
    most_running: Mapping[int, int] | None = None,
) -> tuple[list[Claim], bool]:
    """Claims up to ``limit`` trials for ``worker``, of the studies that have got least of their budgets so far.

    A worker that holds none (``held``) gets one wherever there is one. Beyond that first one it begins no trial in a
    study that has ``most_running`` trials running: a search that gives out its whole budget at once learns nothing.

    Returns the claims and whether every study is finished. Retries and what a person enqueued come first.

    Raises:
        ExperimentDeletedError: where every study has been deleted.
    """
    claims: list[Claim] = []

    def may_begin(standing: Standing) -> bool:
        return not (held or claims) or standing.running < (most_running or {}).get(
            standing.study_id, standing.running + 1
        )

    with engine.begin() as connection:
        known = {standing.study_id: standing for standing in standings(connection, study_ids)}
        if not known:
            raise ExperimentDeletedError
        while len(claims) < limit:
            open_ones = [s for s in known.values() if s.waiting or (s.room and may_begin(s))]
            if not open_ones:
                break
            study_id = min(open_ones, key=lambda s: (not s.waiting, s.progress, s.study_id)).study_id
            # From here on nobody else changes what the study has: what was read without the lock is read again.
            execute(connection, "SELECT 1 FROM studies WHERE study_id = :s FOR UPDATE", s=study_id)
            now = standings(connection, [study_id])
            if not now:
                del known[study_id]
                continue
            taken = (_take_waiting(connection, now[0], worker) if now[0].waiting else None) or (
                _begin(connection, now[0], worker) if now[0].room and may_begin(now[0]) else None
            )
            if taken is None:
                del known[study_id]
                continue
            claims.append(taken)
            known[study_id] = standings(connection, [study_id])[0]
        left = standings(connection, study_ids)
        if not left:
            raise ExperimentDeletedError
    return claims, not claims and all(standing.finished for standing in left)


def are_deleted(engine: sa.Engine, study_ids: Sequence[int]) -> bool:
    """Whether none of the studies is there any more."""
    with engine.connect() as connection:
        return not standings(connection, study_ids)


def _take_waiting(connection: sa.Connection, standing: Standing, worker: str) -> Claim | None:
    rows = execute(
        connection,
        """
        SELECT t.trial_id, t.number, h.lineage, h.attempt FROM trials t LEFT JOIN hpo_trials h USING (trial_id)
        WHERE t.study_id = :s AND t.state = 'WAITING' ORDER BY h.lineage NULLS LAST, t.number LIMIT 1
        """,
        s=standing.study_id,
    ).all()
    if not rows:
        return None
    trial_id, number, lineage, attempt = rows[0]
    if lineage is None:
        # Enqueued by a person with plain Optuna: it takes a place in the budget, as the trial it is.
        if standing.num_lineages is not None and standing.next_lineage >= standing.num_lineages:
            return None
        lineage, attempt = standing.next_lineage, 0
        _new_lineage(connection, standing.study_id, trial_id, lineage)
    execute(
        connection,
        "UPDATE trials SET state = 'RUNNING', datetime_start = now() AT TIME ZONE 'UTC' WHERE trial_id = :t",
        t=trial_id,
    )
    _hold(connection, trial_id, lineage, attempt, worker)
    return Claim(standing.study_id, trial_id, number, lineage, attempt, fresh=False)


def _begin(connection: sa.Connection, standing: Standing, worker: str) -> Claim:
    lineage = standing.next_lineage
    trial_id, number = insert_trial(connection, standing.study_id, "RUNNING")
    _new_lineage(connection, standing.study_id, trial_id, lineage)
    _hold(connection, trial_id, lineage, 0, worker)
    return Claim(standing.study_id, trial_id, number, lineage, 0, fresh=True)


def insert_trial(connection: sa.Connection, study_id: int, state: str) -> tuple[int, int]:
    """Adds a trial; the caller holds the study's row, as Optuna does, so that its number is its own."""
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
    held = {attributes.LINEAGE: lineage, attributes.ATTEMPT: attempt, attributes.WORKER: worker}
    write_attributes(connection, "trial_user_attributes", {trial_id: held})
