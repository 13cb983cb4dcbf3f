"""What the ended trials of each study add up to, read once: a page that is polled reads only trials that came since.

A trial that has ended never changes, and trial ids grow. Up to the id before the first trial that runs or waits, a
study is *settled*: what was read of it is kept, and the next reading begins there.
"""

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from hpo.database import attributes
from hpo.experiment import results

# In this order: what ends after the first query is read again the next time.
SETTLED = """
SELECT s.study_id, coalesce(
  (SELECT min(trial_id) - 1 FROM trials t WHERE t.study_id = s.study_id AND t.state IN ('RUNNING', 'WAITING')),
  (SELECT max(trial_id) FROM trials t WHERE t.study_id = s.study_id), 0)
FROM unnest(CAST(:study_ids AS int[])) AS s (study_id)
"""
SPENT = """
SELECT t.study_id, t.trial_id <= wanted.settled,
  sum(CASE WHEN a.value_json ~ '^[0-9]+([.][0-9]+)?(e[-+]?[0-9]+)?$' THEN CAST(a.value_json AS float8) END),
  extract(epoch FROM min(t.datetime_start)), extract(epoch FROM max(t.datetime_complete))
FROM unnest(CAST(:study_ids AS int[]), CAST(:after AS int[]), CAST(:settled AS int[]))
  AS wanted (study_id, after, settled)
JOIN trials t ON t.study_id = wanted.study_id AND t.trial_id > wanted.after
JOIN hpo_trials h USING (trial_id)
LEFT JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = :seconds
GROUP BY 1, 2
"""


@dataclass(frozen=True)
class EndedTrials:
    """One study's ended trials in sum.

    Attributes:
        outcomes: the candidates for its best configuration.
        seconds: worker-seconds of all attempts.
        began, ended: POSIX timestamps of the first start and the last end; None if there is none.
        settled: up to this trial id, every trial has ended.
    """

    maximize: bool
    outcomes: tuple[results.Outcome, ...] = ()
    seconds: float = 0.0
    began: float | None = None
    ended: float | None = None
    settled: int = 0

    @functools.cached_property
    def best(self) -> results.Result | None:
        """Its best configuration."""
        return results.best(self.outcomes, self.maximize)

    def plus(self, other: "EndedTrials") -> "EndedTrials":
        """Both together; ``settled`` is that of ``other``, which comes later."""
        return EndedTrials(
            self.maximize,
            self.outcomes + other.outcomes,
            self.seconds + other.seconds,
            _least(self.began, other.began),
            None if (last := _least(_minus(self.ended), _minus(other.ended))) is None else -last,
            other.settled,
        )


@dataclass(frozen=True)
class _Kept:
    key: tuple[int, ...]
    settled: EndedTrials
    all: EndedTrials


class EndedReader:
    """Keeps the sums of each study; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, _Kept] = {}

    def read(
        self, connection: sa.Connection, keys: Mapping[int, tuple[int, ...]], maximize: Mapping[int, bool]
    ) -> dict[int, EndedTrials]:
        """The sums of each study of ``keys``, read again if its key has changed."""
        with self._lock:
            stale = [study_id for study_id, key in keys.items() if not self._is_fresh(study_id, key)]
            if stale:
                self._read(connection, stale, keys, maximize)
            return {study_id: self._kept[study_id].all for study_id in keys}

    def _is_fresh(self, study_id: int, key: tuple[int, ...]) -> bool:
        return study_id in self._kept and self._kept[study_id].key == key

    def _read(
        self,
        connection: sa.Connection,
        stale: Sequence[int],
        keys: Mapping[int, tuple[int, ...]],
        maximize: Mapping[int, bool],
    ) -> None:
        rows = connection.execute(sa.text(SETTLED), {"study_ids": stale})
        settled = {study_id: int(limit) for study_id, limit in rows}
        before = {s: self._kept[s].settled if s in self._kept else EndedTrials(maximize[s]) for s in stale}
        after = {study_id: ended.settled for study_id, ended in before.items()}
        parts = {(s, part): EndedTrials(maximize[s], settled=settled[s]) for s in stale for part in (True, False)}
        parameters = {
            "study_ids": stale,
            "after": [after[s] for s in stale],
            "settled": [settled[s] for s in stale],
            "seconds": attributes.SECONDS,
        }
        for study_id, is_settled, seconds, began, ended in connection.execute(sa.text(SPENT), parameters):
            first, last = (None if moment is None else float(moment) for moment in (began, ended))
            parts[study_id, is_settled] = EndedTrials(
                maximize[study_id], (), seconds or 0.0, first, last, settled[study_id]
            )
        found: dict[tuple[int, bool], list[results.Outcome]] = {}
        for outcome in results.outcomes(connection, stale, after):
            of = outcome.study_id
            found.setdefault((of, outcome.trial_id <= settled[of]), []).append(outcome)
        for study_id in stale:
            old, new = (
                replace(parts[study_id, part], outcomes=tuple(found.get((study_id, part), ())))
                for part in (True, False)
            )
            kept = before[study_id].plus(old)
            self._kept[study_id] = _Kept(keys[study_id], kept, kept.plus(new))


def _least(first: float | None, second: float | None) -> float | None:
    return min((value for value in (first, second) if value is not None), default=None)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
