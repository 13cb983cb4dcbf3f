"""How fast an experiment goes, computed from the database alone: trials a minute, time left, workers alive."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from hpo.compare.load import ALIVE_SECONDS, StudyEntry

RECENT = 40  # ends of trials that the speed is computed from
WINDOW_SECONDS = 3600.0

# Trial ids grow: the latest ends are among the latest ids, and the primary key finds those.
ENDS = """
SELECT extract(epoch FROM (now() AT TIME ZONE 'UTC') - datetime_complete) FROM (
  SELECT t.trial_id, t.state, t.datetime_complete FROM trials t JOIN hpo_trials h USING (trial_id)
  WHERE t.study_id = ANY(:study_ids) ORDER BY t.trial_id DESC LIMIT :most) AS latest
WHERE state IN ('COMPLETE', 'PRUNED', 'FAIL') AND datetime_complete IS NOT NULL ORDER BY 1 LIMIT :recent
"""
ALIVE = """
SELECT count(DISTINCT h.worker)
FROM trials t JOIN hpo_trials h USING (trial_id) JOIN trial_heartbeats b USING (trial_id)
WHERE t.study_id = ANY(:study_ids) AND t.state = 'RUNNING'
  AND (now() AT TIME ZONE 'UTC') - b.heartbeat < make_interval(secs => :seconds)
"""


@dataclass(frozen=True)
class Progress:
    """``per_minute`` and ``seconds_left`` are None before two trials have ended."""

    running: int
    workers: int
    per_minute: float | None
    seconds_left: float | None


def progress(engine: sa.Engine, entries: Sequence[StudyEntry]) -> Progress:
    """The speed of the last trials, and how long what is left of the budget takes at that speed."""
    ids = [entry.study_id for entry in entries]
    running = sum(entry.counts.states["running"] for entry in entries)
    with engine.connect() as connection:
        parameters = {"study_ids": ids, "most": RECENT + 2 * running, "recent": RECENT}
        ages = [float(age) for age in connection.execute(sa.text(ENDS), parameters).scalars()]
        alive = connection.execute(sa.text(ALIVE), {"study_ids": ids, "seconds": ALIVE_SECONDS}).scalar_one()
    speed = per_second(ages)
    return Progress(running, int(alive), None if speed is None else 60 * speed, _seconds_left(entries, speed))


def per_second(ages: Sequence[float]) -> float | None:
    """Trials a second of the last ends, which were ``ages`` seconds ago, the latest first; None for fewer than two.

    Time before a long gap, in which the experiment was stopped, does not count; time since the last end does, so that
    the speed falls while nothing ends.
    """
    recent = [age for age in ages if age < WINDOW_SECONDS]
    gaps = [after - before for before, after in itertools.pairwise(recent)]
    if not gaps:
        return None
    longest = max(60.0, 20 * statistics.median(gaps))
    for position, gap in enumerate(gaps):
        if gap > longest:
            recent = recent[: position + 1]
            break
    if len(recent) < 2:
        return None
    return (len(recent) - 1) / max(recent[-1], 1e-3)


def _seconds_left(entries: Sequence[StudyEntry], speed: float | None) -> float | None:
    """At most what is left of a budget in time; studies of such a budget run one after another at worst."""
    clocks = [entry.seconds_left for entry in entries if not entry.finished]
    most = None if any(clock is None for clock in clocks) else sum(clock for clock in clocks if clock is not None)
    trials = sum(_trials_left(entry) for entry in entries if not entry.finished)
    if speed is None or not math.isfinite(trials):
        return most
    return trials / speed if most is None else min(most, trials / speed)


def _trials_left(entry: StudyEntry) -> float:
    if "trials" in entry.budget:
        return max(0.0, entry.budget["trials"] - entry.counts.ended)
    if "epochs" in entry.budget and entry.counts.ended:
        return max(0.0, entry.budget["epochs"] - entry.epochs) / max(1.0, entry.epochs / entry.counts.ended)
    return math.inf
