"""Trials of workers that are gone: silent for the grace period, or known to be dead. All of one worker's are queued
again in one transaction."""

import sqlalchemy as sa

from hpo.database import attributes, retries
from hpo.database.claims import lock_studies
from hpo.database.retries import Cause
from hpo.database.trial_writes import execute

RUNNING_OF = """
SELECT t.trial_id, t.study_id, EXISTS (
  SELECT 1 FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND a.key = :key)
FROM trials t JOIN hpo_trials h USING (trial_id) JOIN trial_heartbeats b USING (trial_id)
WHERE h.worker = :worker AND t.state = 'RUNNING' AND (CAST(:grace AS float8) IS NULL OR
  (now() AT TIME ZONE 'UTC') - greatest(b.heartbeat, pg_postmaster_start_time() AT TIME ZONE 'UTC')
    > make_interval(secs => CAST(:grace AS float8)))
ORDER BY t.trial_id
"""
SILENT_WORKERS = """
SELECT DISTINCT h.worker FROM trials t
JOIN trial_heartbeats b USING (trial_id) JOIN hpo_trials h USING (trial_id)
WHERE t.study_id = ANY(:study_ids) AND t.state = 'RUNNING' AND h.worker IS NOT NULL
  AND (now() AT TIME ZONE 'UTC') - greatest(b.heartbeat, pg_postmaster_start_time() AT TIME ZONE 'UTC')
      > make_interval(secs => :grace)
"""


def sweep(engine: sa.Engine, study_ids: list[int], grace_seconds: float, max_retries: int) -> int:
    """Queues again the trials whose worker has sent no heartbeat for ``grace_seconds``, by the database's clock.

    While the database was away, no worker could send one: its start counts as a heartbeat of all. Returns how many.
    """
    with engine.connect() as connection:
        workers = list(execute(connection, SILENT_WORKERS, study_ids=study_ids, grace=grace_seconds).scalars())
    num_swept = 0
    for worker in workers:
        reason = f"its worker {worker} gave no sign of life for {grace_seconds:g} s"
        num_swept += _requeue(engine, worker, reason, max_retries, Cause.SILENT, grace_seconds)
    return num_swept


def fail_worker(engine: sa.Engine, worker: str, reason: str, max_retries: int) -> int:
    """Queues again at once the trials of a worker that is known to be dead. Returns how many it held.

    If it trained one trial, that trial's lineage has failed; if it trained several, none is charged, and each is then
    trained alone.
    """
    return _requeue(engine, worker, reason, max_retries, Cause.DIED, None)


def give_back_all(engine: sa.Engine, worker: str, reason: str) -> int:
    """Queues again, without counting a failure, the trials of a worker that was asked to end. Returns how many."""
    parameters = {"worker": worker, "grace": None, "key": attributes.START_EPOCH}
    with engine.begin() as connection:
        lock_studies(connection, {row[1] for row in execute(connection, RUNNING_OF, **parameters).all()})
        # Read again under the lock.
        held = execute(connection, RUNNING_OF, **parameters).all()
        return sum(retries.give_back(connection, trial_id, reason) for trial_id, _, _ in held)


def _requeue(
    engine: sa.Engine, worker: str, reason: str, max_retries: int, cause: Cause, grace_seconds: float | None
) -> int:
    """One transaction for all trials of a worker, so that everybody sees how many it trained when it died."""
    parameters = {"worker": worker, "grace": grace_seconds, "key": attributes.START_EPOCH}
    with engine.begin() as connection:
        held = execute(connection, RUNNING_OF, **parameters).all()
        lock_studies(connection, {row[1] for row in held})
        # Read again under the lock: the worker may have come back, or another one has swept it.
        held = execute(connection, RUNNING_OF, **parameters).all()
        num_training = sum(has_begun for _, _, has_begun in held)
        num_requeued = 0
        for trial_id, _, has_begun in held:
            if has_begun and num_training == 1:
                num_requeued += retries.retry_or_fail(
                    connection, trial_id, reason, max_retries, error=None, cause=cause, epochs=0
                )
            else:
                # Claimed ahead and not begun, or one of several: it is not known to have had a part in the death.
                apart = worker if has_begun else None
                num_requeued += retries.give_back(connection, trial_id, reason, apart=apart)
    return num_requeued
