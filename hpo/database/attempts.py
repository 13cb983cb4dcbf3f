"""The rows of attempts: a trial's place in Optuna's tables and in ``hpo_trials``, and what its successor takes over.

All of these write under the lock on the study, which the caller holds. Who gets a trial is decided in
:mod:`hpo.database.claims`, what follows its end in :mod:`hpo.database.retries`.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from hpo.database import attributes
from hpo.database.study_budget import StudyBudget
from hpo.database.trial_writes import execute, write_attributes


@dataclass(frozen=True)
class Attempt:
    """An attempt under its study's lock; see the columns of ``hpo_trials``. ``reached``: epochs it has finished."""

    trial_id: int
    study_id: int
    lineage: int
    attempt: int
    failures: int
    error: str | None
    progress: int
    draw: int
    apart: str | None
    reserved: int | None
    reached: int

    @property
    def has_progressed(self) -> bool:
        return self.reached > self.progress


REACHED = """
SELECT greatest(
  coalesce((SELECT max(step) FROM trial_intermediate_values WHERE trial_id = :t), 0)
    * (SELECT seeds FROM hpo_studies WHERE study_id = :s),
  coalesce((SELECT max(CAST(value_json AS integer)) FROM trial_user_attributes
            WHERE trial_id = :t AND key = ANY(:k)), 0))
"""


def read_attempt(connection: sa.Connection, trial_id: int) -> Attempt:
    """The attempt of one of our trials, and the epochs that it has reported or started from."""
    columns = "study_id, lineage, attempt, failures, error, progress, draw, apart, reserved"
    row = execute(connection, f"SELECT {columns} FROM hpo_trials WHERE trial_id = :t", t=trial_id).one()
    keys = [attributes.START_EPOCH, attributes.EPOCHS]
    reached = execute(connection, REACHED, t=trial_id, s=row.study_id, k=keys).scalar_one()
    values = [trial_id, *row, reached]
    return Attempt(*values)


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


def new_lineage(connection: sa.Connection, budget: StudyBudget, trial_id: int) -> int | None:
    """Makes the trial the first attempt of the next lineage; returns the epochs that it has reserved, None for all."""
    is_whole = budget.num_epochs is None or budget.epochs_to_reserve == budget.epochs_per_trial
    reserved = None if is_whole else budget.epochs_to_reserve
    execute(
        connection,
        "INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt, reserved) VALUES (:t, :s, :lineage, 0, :r)",
        t=trial_id,
        s=budget.study_id,
        lineage=budget.next_lineage,
        r=reserved,
    )
    query = "UPDATE hpo_studies SET next_lineage = :n WHERE study_id = :s"
    execute(connection, query, n=budget.next_lineage + 1, s=budget.study_id)
    return reserved


BEGIN = """
WITH made AS (
  INSERT INTO trials (study_id, number, state, datetime_start)
  SELECT :s, (SELECT count(*) FROM trials WHERE study_id = :s) + i, 'RUNNING', now() AT TIME ZONE 'UTC'
  FROM generate_series(0, :count - 1) AS i RETURNING trial_id, number
), numbered AS (
  SELECT trial_id, number, :lineage - 1 + row_number() OVER (ORDER BY number) AS lineage FROM made
), held AS (
  INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt, worker)
  SELECT trial_id, :s, lineage, 0, :w FROM numbered
), beats AS (
  INSERT INTO trial_heartbeats (trial_id, heartbeat) SELECT trial_id, now() AT TIME ZONE 'UTC' FROM numbered
), spent AS (
  UPDATE hpo_studies SET next_lineage = :lineage + :count WHERE study_id = :s
)
SELECT trial_id, number, lineage FROM numbered ORDER BY number
"""


def begin(connection: sa.Connection, budget: StudyBudget, count: int, worker: str) -> list[tuple[int, int, int]]:
    """Begins ``count`` lineages for ``worker`` in two statements; returns the trial id, number and lineage of each."""
    lineage = budget.next_lineage
    rows = execute(connection, BEGIN, s=budget.study_id, count=count, lineage=lineage, w=worker).all()
    owned = {row[0]: _owned(row[2], 0, worker) for row in rows}
    write_attributes(connection, "trial_user_attributes", owned)
    return [tuple(row) for row in rows]


def hold(connection: sa.Connection, trial_id: int, lineage: int, attempt: int, worker: str) -> None:
    """Notes that ``worker`` has the trial and lives."""
    execute(connection, "UPDATE hpo_trials SET worker = :w WHERE trial_id = :t", w=worker, t=trial_id)
    execute(
        connection,
        """
        INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (:t, now() AT TIME ZONE 'UTC')
        ON CONFLICT (trial_id) DO UPDATE SET heartbeat = now() AT TIME ZONE 'UTC'
        """,
        t=trial_id,
    )
    write_attributes(connection, "trial_user_attributes", {trial_id: _owned(lineage, attempt, worker)})


def _owned(lineage: int, attempt: int, worker: str) -> dict[str, object]:
    return {attributes.LINEAGE: lineage, attributes.ATTEMPT: attempt, attributes.WORKER: worker}


def insert_successor(
    connection: sa.Connection,
    attempt: Attempt,
    failures: int,
    error: str | None,
    apart: str | None,
    progress: int,
    draw: int,
) -> int:
    """Queues the next attempt of the lineage and returns its trial id."""
    successor, _ = insert_trial(connection, attempt.study_id, "WAITING")
    execute(
        connection,
        "INSERT INTO hpo_trials "
        "(trial_id, study_id, lineage, attempt, failures, error, apart, progress, draw, reserved, prune) "
        "VALUES (:t, :s, :lineage, :attempt, :failures, :error, :apart, :progress, :draw, :reserved, "
        "(SELECT prune FROM hpo_trials WHERE trial_id = :before AND draw = :draw))",
        t=successor,
        s=attempt.study_id,
        lineage=attempt.lineage,
        attempt=attempt.attempt + 1,
        failures=failures,
        error=error,
        apart=apart,
        progress=progress,
        draw=draw,
        reserved=attempt.reserved,
        before=attempt.trial_id,
    )
    numbers = {attributes.LINEAGE: attempt.lineage, attributes.ATTEMPT: attempt.attempt + 1}
    write_attributes(connection, "trial_user_attributes", {successor: numbers})
    return successor


KEPT = [getattr(attributes, name) for name in ("CONFIG", "GIVEN", "SEED", "AUDITED", "DRAW", "START")]
"""User attributes that the attempts of a lineage share."""


def copy_kept(connection: sa.Connection, trial_id: int, successor: int) -> None:
    """Copies what a lineage keeps: parameters, configuration, seed, and what sampler and pruner noted about it.

    The rungs that ASHA noted are copied, so a lineage is judged once at each rung; artifacts stay with their attempt.
    """
    execute(
        connection,
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
        "SELECT :new, param_name, param_value, distribution_json FROM trial_params WHERE trial_id = :old "
        "ORDER BY param_id",
        new=successor,
        old=trial_id,
    )
    execute(
        connection,
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) SELECT :new, key, value_json "
        "FROM trial_user_attributes WHERE trial_id = :old AND key = ANY(:kept)",
        new=successor,
        old=trial_id,
        kept=KEPT,
    )
    execute(
        connection,
        "INSERT INTO trial_system_attributes (trial_id, key, value_json) SELECT :new, key, value_json "
        "FROM trial_system_attributes WHERE trial_id = :old AND key NOT LIKE 'artifacts:%'",
        new=successor,
        old=trial_id,
    )
