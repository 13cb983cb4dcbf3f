"""The workers of an experiment as they report themselves: who is alive, where, and what each of them trains."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hpo.database.trial_writes import execute

KEPT_DAYS = 7
"""For how long a worker that is gone stays in the table."""
MOST_GONE = 20
"""Workers that are gone, of those that are listed."""

WRITE = """
INSERT INTO hpo_workers (worker, study_id, started_at, seen_at, state, report)
SELECT :worker, min(study_id), now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC', :state, :report
FROM hpo_studies WHERE study_id = ANY(:ids) HAVING min(study_id) IS NOT NULL
ON CONFLICT (worker) DO UPDATE SET seen_at = excluded.seen_at, ended_at = NULL, state = excluded.state,
  report = excluded.report
"""
FORGET = """
DELETE FROM hpo_workers WHERE study_id = ANY(:ids)
AND seen_at < now() AT TIME ZONE 'UTC' - make_interval(days => :days)
"""
READ = """
SELECT worker, CAST(extract(epoch FROM started_at) AS float8), CAST(extract(epoch FROM seen_at) AS float8),
  CAST(extract(epoch FROM now() AT TIME ZONE 'UTC' - seen_at) AS float8), ended_at IS NOT NULL, state, report
FROM hpo_workers WHERE study_id = ANY(:ids) ORDER BY started_at, worker
"""
TRAINS = """
SELECT h.worker, t.study_id, t.trial_id, t.number,
  coalesce((SELECT max(step) FROM trial_intermediate_values v WHERE v.trial_id = t.trial_id), 0),
  CAST(extract(epoch FROM now() AT TIME ZONE 'UTC' - t.datetime_start) AS float8)
FROM trials t JOIN hpo_trials h USING (trial_id)
WHERE t.study_id = ANY(:ids) AND t.state = 'RUNNING' AND h.worker IS NOT NULL ORDER BY t.study_id, t.number
"""


@dataclass(frozen=True)
class RunningOn:
    """A trial that a worker trains; ``epoch``: the last one that it has reported, ``seconds``: since it began."""

    study_id: int
    trial_id: int
    number: int
    epoch: int
    seconds: float


@dataclass(frozen=True)
class WorkerRow:
    """A worker as it last reported itself.

    Attributes:
        started, seen: POSIX timestamps by the database's clock; ``silent_seconds`` since it was last seen.
        state: ``trains``, ``waits``, ``paused``, or why it ended.
        report: host, pid, device, slots, use and the end of its log, see :mod:`hpo.worker.report`; {} if it is of an
            older version, which reports nothing.
        alive: it has not said that it ends, and has been seen within its grace period.
        trials: what it trains.
    """

    worker: str
    started: float | None
    seen: float | None
    silent_seconds: float
    state: str
    report: dict[str, Any]
    alive: bool
    trials: tuple[RunningOn, ...]


def write_report(connection: sa.Connection, study_ids: Sequence[int], worker: str, state: str, report: str) -> None:
    """Writes the worker's row; forgets workers that have been gone for long."""
    ids = list(study_ids)
    execute(connection, WRITE, ids=ids, worker=worker, state=state, report=report)
    execute(connection, FORGET, ids=ids, days=KEPT_DAYS)


def write_end(connection: sa.Connection, worker: str, why: str) -> None:
    """Notes that a worker has ended by itself."""
    query = "UPDATE hpo_workers SET ended_at = now() AT TIME ZONE 'UTC', state = :why WHERE worker = :worker"
    execute(connection, query, worker=worker, why=why)


def read_workers(connection: sa.Connection, study_ids: Sequence[int]) -> list[WorkerRow]:
    """The workers of the experiment with these studies, the living first, each group in the order of their start."""
    ids = list(study_ids)
    trials: dict[str, list[RunningOn]] = {}
    for worker, *trial in execute(connection, TRAINS, ids=ids):
        trials.setdefault(worker, []).append(RunningOn(*trial))
    found = []
    for worker, started, seen, silent, has_ended, state, text in execute(connection, READ, ids=ids):
        report = json.loads(text)
        alive = not has_ended and silent <= float(report.get("grace_seconds") or 30.0)
        shown = state if alive or has_ended else "gave no sign of life"
        found.append(WorkerRow(worker, started, seen, silent, shown, report, alive, tuple(trials.pop(worker, ()))))
    for worker, held in trials.items():
        # A worker of an older version, or one that has just begun.
        host, _, rest = worker.partition(":")
        report = {"host": host, "pid": int(pid) if (pid := rest.partition(":")[0]).isdigit() else None}
        found.append(WorkerRow(worker, None, None, 0.0, "trains", report, True, tuple(held)))
    alive_rows = [row for row in found if row.alive]
    return [*alive_rows, *[row for row in found if not row.alive][-MOST_GONE:]]


def num_alive(connection: sa.Connection, study_ids: Sequence[int]) -> int:
    """How many workers of the experiment are alive."""
    return sum(row.alive for row in read_workers(connection, study_ids))
