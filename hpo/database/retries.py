"""What follows a trial that did not end by itself: another attempt of its lineage, another draw, or the end of it.

Ending the attempt and queueing the next one are one transaction, so a process that dies leaves either both or none.

Progress protects: an attempt that finished an epoch which no earlier attempt had finished sets the count of failures
back, so a trial that moves on is finished however often it is interrupted.
"""

import enum
import json
from collections.abc import Iterable

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database import attributes
from hpo.database.attempts import Attempt, copy_kept, insert_successor, insert_trial, read_attempt
from hpo.database.claims import lock_studies
from hpo.database.trial_writes import Writes, end, execute, finish, write


class Cause(enum.Enum):
    """How an attempt ended, as far as it is known."""

    RAISED = "raised"  # the trainer raised an error in this trial
    DIED = "died"  # the worker's process ended while it trained this trial alone
    SILENT = "silent"  # the worker gave no sign of life: its process, its machine or its network


def give_back(
    connection: sa.Connection,
    trial_id: int,
    reason: str,
    writes: Writes | None = None,
    *,
    error: str | None = None,
    apart: str | None = None,
) -> bool:
    """Queues the trial again without counting a failure. Returns False if it was not running.

    ``error`` is compared with that of the next attempt; ``apart`` has the next attempt trained alone.
    """
    attempt = _lock(connection, trial_id, reason, writes)
    if attempt is None:
        return False
    failures = 0 if attempt.has_progressed else attempt.failures
    return _queue_again(connection, attempt, failures, error or attempt.error, apart=apart or attempt.apart)


def retry_or_fail(
    connection: sa.Connection,
    trial_id: int,
    reason: str,
    max_retries: int,
    *,
    error: str | None = None,
    cause: Cause = Cause.RAISED,
    epochs: int = 0,
    writes: Writes | None = None,
    is_charged: bool = True,
) -> bool:
    """Queues the trial again, unless its lineage failed more than ``max_retries`` times or twice with one ``error``.

    A lineage whose process died while it was trained alone is tried again a third as often, but at least once. A
    failure that is not ``is_charged`` ends the lineage only if it is repeated.
    Returns False if the trial was not running.
    """
    attempt = _lock(connection, trial_id, reason, writes)
    if attempt is None:
        return False
    # The first attempt has no earlier one that it could have moved on from: what its trainer raises counts.
    has_progressed = attempt.has_progressed and (attempt.attempt > 0 or cause is not Cause.RAISED)
    failures = 0 if has_progressed else attempt.failures + is_charged
    limit = min(max_retries, max(1, max_retries // 3)) if cause is Cause.DIED else max_retries
    is_repeated = error is not None and error == attempt.error and not has_progressed
    if failures > limit or is_repeated:
        if cause is Cause.DIED and attempt.apart is not None:
            # It is the one that ended the worker: the others that were there need not be trained alone any more.
            execute(connection, "UPDATE hpo_trials SET apart = NULL WHERE apart = :a", a=attempt.apart)
        is_crash = cause is Cause.DIED or not is_charged
        last = Writes(user_attrs={attributes.CRASHED: True}) if is_crash else Writes()
        return finish(connection, trial_id, TrialState.FAIL, None, max(epochs, attempt.reached), last)
    return _queue_again(connection, attempt, failures, error or attempt.error, apart=attempt.apart)


def last_error(connection: sa.Connection, trial_id: int) -> str | None:
    """The error with which the attempt before this one ended, normalised."""
    error: str | None = execute(connection, "SELECT error FROM hpo_trials WHERE trial_id = :t", t=trial_id).scalar()
    return error


def fail_for_good(connection: sa.Connection, trial_id: int, reason: str, writes: Writes | None = None) -> bool:
    """Fails the trial and its lineage. Returns False if it was not running."""
    attempt = _lock(connection, trial_id, reason, writes)
    return attempt is not None and finish(connection, trial_id, TrialState.FAIL, None, attempt.reached, Writes())


def finish_infeasible(connection: sa.Connection, trial_id: int, reason: str, writes: Writes | None = None) -> bool:
    """Ends the trial and its lineage as infeasible: a cell of a grid. Returns False if it was not running."""
    attempt = _lock(connection, trial_id, reason, writes)
    if attempt is None:
        return False
    execute(connection, "UPDATE hpo_trials SET infeasible = true WHERE trial_id = :t", t=trial_id)
    return finish(connection, trial_id, TrialState.PRUNED, None, attempt.reached, Writes())


def replace(
    connection: sa.Connection,
    trial_id: int,
    state: TrialState,
    reason: str,
    writes: Writes | None = None,
    *,
    draw: int,
) -> bool:
    """Ends the trial and queues its lineage with another configuration: its draw number ``draw``.

    PRUNED it counts as infeasible. It costs no budget but the epochs that it trained. Returns False if it was not
    running.
    """
    attempt = _lock(connection, trial_id, reason, writes)
    if attempt is None or not end(connection, trial_id, state):
        return False
    execute(
        connection,
        "UPDATE hpo_trials SET retried = true, infeasible = :i WHERE trial_id = :t",
        i=state is TrialState.PRUNED,
        t=trial_id,
    )
    execute(
        connection,
        "UPDATE hpo_studies SET epochs_spent = epochs_spent + :e WHERE study_id = :s",
        e=attempt.reached,
        s=attempt.study_id,
    )
    insert_successor(connection, attempt, failures=0, error=None, apart=None, progress=0, draw=draw)
    return True


def record_refused_draw(
    connection: sa.Connection, study_id: int, lineage: int, draw: int, reason: str, writes: Writes
) -> int | None:
    """Records a configuration that was drawn and refused before it was trained, as an Optuna trial that is PRUNED.

    Returns its trial id; None if this draw of the lineage is on record already.
    """
    lock_studies(connection, [study_id])
    query = "SELECT 1 FROM hpo_trials WHERE study_id = :s AND lineage = :l AND attempt = :a"
    if execute(connection, query, s=study_id, l=lineage, a=-1 - draw).first() is not None:
        return None
    trial_id, _ = insert_trial(connection, study_id, "RUNNING")
    execute(
        connection,
        "INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt, draw, retried, infeasible) "
        "VALUES (:t, :s, :l, :a, :d, true, true)",
        t=trial_id,
        s=study_id,
        l=lineage,
        a=-1 - draw,
        d=draw,
    )
    write(connection, {trial_id: with_reason(writes, reason)})
    end(connection, trial_id, TrialState.PRUNED)
    return trial_id


def count_infeasible(connection: sa.Connection, study_ids: list[int]) -> dict[int, int]:
    """How many configurations of each study were refused; studies without one are missing."""
    query = "SELECT study_id, count(*) FROM hpo_trials WHERE study_id = ANY(:ids) AND infeasible GROUP BY study_id"
    return dict(tuple(row) for row in execute(connection, query, ids=study_ids))


def with_reason(writes: Writes | None, reason: str) -> Writes:
    """A copy of the writes with the reason for which the trial ended."""
    kept = writes or Writes()
    return Writes(kept.params, {**kept.user_attrs, attributes.REASON: reason}, kept.system_attrs, kept.reports)


def _lock(connection: sa.Connection, trial_id: int, reason: str, writes: Writes | None) -> Attempt | None:
    """Locks the trial's study and writes what is pending; None if the trial does not run."""
    study_id = execute(connection, "SELECT study_id FROM hpo_trials WHERE trial_id = :t", t=trial_id).scalar()
    if study_id is None:
        return None
    lock_studies(connection, [study_id])
    if write(connection, {trial_id: with_reason(writes, reason)}):
        return None
    return read_attempt(connection, trial_id)


def _queue_again(
    connection: sa.Connection, attempt: Attempt, failures: int, error: str | None, *, apart: str | None
) -> bool:
    if not end(connection, attempt.trial_id, TrialState.FAIL):
        return False
    execute(connection, "UPDATE hpo_trials SET retried = true WHERE trial_id = :t", t=attempt.trial_id)
    progress = max(attempt.progress, attempt.reached)
    successor = insert_successor(connection, attempt, failures, error, apart, progress, attempt.draw)
    copy_kept(connection, attempt.trial_id, successor)
    return True


FAILED_LINEAGES = """
SELECT h.trial_id FROM hpo_trials h JOIN trials t USING (trial_id)
WHERE h.study_id = ANY(:study_ids) AND t.state = 'FAIL' AND NOT h.retried ORDER BY h.trial_id
"""


def retry_failed(engine: sa.Engine, study_ids: list[int]) -> int:
    """Queues every failed lineage of the studies again, from its last checkpoint, with its failures forgotten.

    Enqueued trials whose values were refused stay as they are: the same values would be refused again. Returns how
    many were queued.
    """
    with engine.begin() as connection:
        lock_studies(connection, study_ids)
        return queue_failed(connection, study_ids)


def queue_failed(connection: sa.Connection, study_ids: list[int], only: int | None = None) -> int:
    """As :func:`retry_failed`, under the studies' locks; ``only``: the id of the one trial that is meant."""
    num_queued = 0
    for trial_id in list(execute(connection, FAILED_LINEAGES, study_ids=study_ids).scalars()):
        if only not in (None, trial_id):
            continue
        if execute(connection, REFUSED, t=trial_id, key=attributes.REFUSED).first() is not None:
            continue
        attempt = read_attempt(connection, trial_id)
        execute(connection, "UPDATE hpo_trials SET retried = true WHERE trial_id = :t", t=trial_id)
        # The epochs of a lineage are counted when it ends, which it now does once more.
        execute(
            connection,
            "UPDATE hpo_studies SET epochs_spent = greatest(0, epochs_spent - :e) WHERE study_id = :s",
            e=attempt.reached,
            s=attempt.study_id,
        )
        progress = max(attempt.progress, attempt.reached)
        successor = insert_successor(connection, attempt, 0, None, None, progress, attempt.draw)
        copy_kept(connection, trial_id, successor)
        num_queued += 1
    return num_queued


REFUSED = "SELECT 1 FROM trial_user_attributes WHERE trial_id = :t AND key = :key"

RESULTS_AND_FAILURES = """
SELECT (SELECT count(*) FROM hpo_trials h JOIN trials t USING (trial_id)
        WHERE h.study_id = ANY(:ids) AND t.state IN ('COMPLETE', 'PRUNED') AND NOT h.retried
          AND NOT h.infeasible),
  ARRAY(SELECT a.value_json FROM hpo_trials h JOIN trials t USING (trial_id)
        JOIN trial_user_attributes a ON a.trial_id = h.trial_id AND a.key = :key
        WHERE h.study_id = ANY(:ids) AND h.attempt >= 0
          AND (t.state = 'FAIL' AND NOT h.retried OR t.state = 'PRUNED' AND h.infeasible)
          AND NOT EXISTS (SELECT 1 FROM trial_user_attributes r WHERE r.trial_id = h.trial_id AND r.key = :refused)
        ORDER BY h.trial_id LIMIT 100)
"""


def results_and_failures(engine: sa.Engine, study_ids: Iterable[int]) -> tuple[int, list[str]]:
    """How many lineages have a result, and the reasons for which others have failed for good."""
    with engine.connect() as connection:
        parameters = {"ids": list(study_ids), "key": attributes.REASON, "refused": attributes.REFUSED}
        num_results, reasons = execute(connection, RESULTS_AND_FAILURES, **parameters).one()
    return num_results, [str(json.loads(reason)) for reason in reasons]
