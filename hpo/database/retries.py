"""What follows a trial that did not end by itself: another attempt of its lineage, or the end of it.

Failing the attempt and queueing the next one are one transaction, so nobody can die between the two.
"""

from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database import attributes
from hpo.database.claims import insert_trial
from hpo.database.trial_writes import Writes, end, execute, finish, write, write_attributes


def give_back(connection: sa.Connection, trial_id: int, reason: str, writes: Writes | None = None) -> bool:
    """Queues the trial again, through no fault of its own. Returns False where it was not running."""
    return _fail(connection, trial_id, reason, writes or Writes(), blame=False, error=None, max_retries=0)


def retry_or_fail(
    connection: sa.Connection,
    trial_id: int,
    reason: str,
    max_retries: int,
    *,
    error: str | None = None,
    epochs: int = 0,
    writes: Writes | None = None,
) -> bool:
    """Queues the trial again, unless its lineage failed ``max_retries`` times or twice with the same ``error``.

    Returns False where the trial was not running.
    """
    return _fail(connection, trial_id, reason, writes or Writes(), True, error, max_retries, epochs)


def _fail(
    connection: sa.Connection,
    trial_id: int,
    reason: str,
    writes: Writes,
    blame: bool,
    error: str | None,
    max_retries: int,
    epochs: int = 0,
) -> bool:
    row = execute(
        connection,
        "SELECT study_id, lineage, attempt, failures, error FROM hpo_trials WHERE trial_id = :t",
        t=trial_id,
    ).first()
    if row is None:
        return False
    study_id, lineage, attempt, failures, last_error = row
    # Before the trial's own row, in the order in which claims lock.
    execute(connection, "SELECT 1 FROM studies WHERE study_id = :s FOR UPDATE", s=study_id)
    failures += blame
    writes.user_attrs[attributes.REASON] = reason
    if blame and (failures > max_retries or (error is not None and error == last_error)):
        return finish(connection, trial_id, TrialState.FAIL, None, epochs, writes)
    if write(connection, {trial_id: writes}) or not end(connection, trial_id, TrialState.FAIL):
        return False
    execute(connection, "UPDATE hpo_trials SET retried = true WHERE trial_id = :t", t=trial_id)
    successor, _ = insert_trial(connection, study_id, "WAITING")
    execute(
        connection,
        "INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt, failures, error) "
        "VALUES (:t, :s, :lineage, :attempt, :failures, :error)",
        t=successor,
        s=study_id,
        lineage=lineage,
        attempt=attempt + 1,
        failures=failures,
        error=error,
    )
    _copy(connection, trial_id, successor)
    write_attributes(
        connection,
        "trial_user_attributes",
        {successor: {attributes.LINEAGE: lineage, attributes.ATTEMPT: attempt + 1}},
    )
    return True


def _copy(connection: sa.Connection, trial_id: int, successor: int) -> None:
    """What a lineage keeps: its parameters, configuration and seed, and what the sampler and pruner noted about it.

    The rungs that ASHA noted come along, so a lineage is judged at each rung once; artifacts stay where they are.
    """
    for sql in (
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
        "SELECT :new, param_name, param_value, distribution_json FROM trial_params WHERE trial_id = :old "
        "ORDER BY param_id",
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) SELECT :new, key, value_json "
        "FROM trial_user_attributes WHERE trial_id = :old AND key = ANY(:kept)",
        "INSERT INTO trial_system_attributes (trial_id, key, value_json) SELECT :new, key, value_json "
        "FROM trial_system_attributes WHERE trial_id = :old AND key NOT LIKE 'artifacts:%'",
    ):
        kept: list[Any] = [attributes.GIVEN, attributes.CONFIG, attributes.SEED, attributes.AUDITED]
        parameters: dict[str, Any] = {"new": successor, "old": trial_id}
        execute(connection, sql, **parameters, **({"kept": kept} if ":kept" in sql else {}))


STALE = """
SELECT t.trial_id, t.study_id, h.worker FROM trials t
JOIN trial_heartbeats b USING (trial_id) JOIN hpo_trials h USING (trial_id)
WHERE t.study_id = ANY(:study_ids) AND t.state = 'RUNNING'
  AND (now() AT TIME ZONE 'UTC') - greatest(b.heartbeat, pg_postmaster_start_time() AT TIME ZONE 'UTC')
      > make_interval(secs => :grace)
"""


def sweep(engine: sa.Engine, study_ids: list[int], grace_seconds: float, max_retries: int) -> int:
    """Retries the trials whose worker has not beaten for ``grace_seconds``, by the database's clock. Returns how many.

    While the database was away nobody could beat: its start counts as a beat of everyone.
    """
    with engine.connect() as connection:
        stale = execute(connection, STALE, study_ids=study_ids, grace=grace_seconds).all()
    swept = 0
    for trial_id, study_id, worker in stale:
        with engine.begin() as connection:
            # Looked at again under the lock: the worker may have come back, or somebody else swept it.
            execute(connection, "SELECT 1 FROM studies WHERE study_id = :s FOR UPDATE", s=study_id)
            again = execute(
                connection, STALE + " AND t.trial_id = :t", study_ids=study_ids, grace=grace_seconds, t=trial_id
            )
            reason = f"its worker {worker} gave no sign of life for {grace_seconds:g} s"
            swept += bool(again.all()) and _worker_died(connection, trial_id, reason, max_retries)
    return swept


def fail_worker(engine: sa.Engine, worker: str, reason: str, max_retries: int) -> int:
    """Retries at once the trials of a worker that is known to be dead. Returns how many."""
    with engine.connect() as connection:
        query = "SELECT trial_id FROM hpo_trials JOIN trials USING (trial_id) WHERE worker = :w AND state = 'RUNNING'"
        trial_ids = [row[0] for row in execute(connection, query, w=worker)]
    for trial_id in trial_ids:
        with engine.begin() as connection:
            _worker_died(connection, trial_id, reason, max_retries)
    return len(trial_ids)


def _worker_died(connection: sa.Connection, trial_id: int, reason: str, max_retries: int) -> bool:
    """Retries a trial of a dead worker and counts it as a failure of the trial, which may have been the cause.

    Not so a retry that was only claimed ahead and had not begun: else one trial that kills each of its workers takes
    the next in the queue along, time after time.
    """
    started = execute(
        connection,
        "SELECT attempt = 0 OR EXISTS (SELECT 1 FROM trial_user_attributes a WHERE a.trial_id = :t AND key = :key) "
        "FROM hpo_trials h WHERE h.trial_id = :t",
        t=trial_id,
        key=attributes.START_EPOCH,
    ).scalar()
    if started:
        return retry_or_fail(connection, trial_id, reason, max_retries)
    return give_back(connection, trial_id, reason)
