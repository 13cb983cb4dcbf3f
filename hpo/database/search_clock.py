"""The clock of a search whose budget is a time: it runs, by the database's clock, while a trial of the search runs.

``hpo_studies.seconds_spent`` is what has been counted up to ``seen_at``. It is counted again whenever a trial is
claimed, ends, or sends a heartbeat; what has passed since then is added when the budget is read. A pause between two
launches does not count, because no trial runs in it. Trials of a launch that was killed count until their last
heartbeat is ``ALIVE_SECONDS`` old, or another launch finds out.

If the study counts the time of GPUs (``hpo_studies.gpus``), the same clock runs as many times as fast as GPUs train its
trials: a worker's GPUs count once, however many trials it trains at once, and in parts if it also trains trials of
other studies.
"""

from collections.abc import Collection

import sqlalchemy as sa

from hpo.database import attributes

ALIVE_SECONDS = 30.0
"""A trial whose heartbeat is older does not keep the clock running, unless it is its worker that asks."""

IS_ALIVE = f"b.heartbeat > now() AT TIME ZONE 'UTC' - make_interval(secs => {ALIVE_SECONDS})"

RATE = """
CASE WHEN s.gpus IS NULL THEN 1.0 ELSE s.gpus * (
  SELECT coalesce(sum(of_study / of_all), 0) FROM (
    SELECT CAST(count(*) FILTER (WHERE all_h.study_id = s.study_id) AS float8) AS of_study, count(*) AS of_all
    FROM hpo_trials all_h JOIN trials all_t USING (trial_id)
    WHERE all_t.state = 'RUNNING' AND all_h.worker IN (
      SELECT own_h.worker FROM hpo_trials own_h JOIN trials own_t USING (trial_id)
      WHERE own_h.study_id = s.study_id AND own_t.state = 'RUNNING')
    GROUP BY all_h.worker) AS workers) END
"""
"""How many seconds of the budget of the study ``s`` pass in a second while trials of it run."""

TICK = f"""
UPDATE hpo_studies s SET
  seconds_spent = s.seconds_spent + CASE WHEN alive.since IS NULL THEN 0 ELSE greatest(
    0, CAST(extract(epoch FROM now() AT TIME ZONE 'UTC' - greatest(s.seen_at, alive.since)) AS float8)) * {RATE} END,
  seen_at = greatest(s.seen_at, now() AT TIME ZONE 'UTC')
FROM (
  SELECT min(b.heartbeat) AS since
  FROM trials t JOIN hpo_trials USING (trial_id) JOIN trial_heartbeats b USING (trial_id)
  WHERE t.study_id = :s AND t.state = 'RUNNING' AND ({IS_ALIVE} OR t.trial_id = ANY(CAST(:held AS int[])))
) AS alive
WHERE s.study_id = :s AND s.num_seconds IS NOT NULL
"""


def tick(connection: sa.Connection, study_id: int, held: Collection[int] = ()) -> None:
    """Counts the time until now; does nothing for a study without a budget in time.

    ``held``: trials that the caller trains, whose heartbeat may be old because the database was away.
    """
    connection.execute(sa.text(TICK), {"s": study_id, "held": list(held)})


def tick_of_trial(connection: sa.Connection, trial_id: int) -> None:
    """Counts the time of a trial's study until now, before the trial ends."""
    query = """
        SELECT s.study_id FROM hpo_trials h JOIN hpo_studies s USING (study_id)
        WHERE h.trial_id = :t AND s.num_seconds IS NOT NULL
    """
    study_id = connection.execute(sa.text(query), {"t": trial_id}).scalar()
    if study_id is not None:
        tick(connection, study_id)


NOTE_TIME = """
UPDATE hpo_studies s SET timed_trials = s.timed_trials + 1,
  timed_seconds = s.timed_seconds + lineage.seconds * coalesce(s.gpus, 1)
FROM (
  SELECT sum(CASE WHEN a.value_json ~ '^[0-9]+([.][0-9]+)?(e[-+]?[0-9]+)?$' THEN CAST(a.value_json AS float8) END)
    AS seconds, min(h.study_id) AS study_id
  FROM hpo_trials this JOIN hpo_trials h ON h.study_id = this.study_id AND h.lineage = this.lineage
  JOIN hpo_studies clock ON clock.study_id = h.study_id
  JOIN trial_user_attributes a ON a.trial_id = h.trial_id
    AND a.key = CASE WHEN clock.gpus IS NULL THEN :wall ELSE :share END
  WHERE this.trial_id = :t
) AS lineage
WHERE s.study_id = lineage.study_id AND s.num_seconds IS NOT NULL AND lineage.seconds IS NOT NULL
"""


def note_time(connection: sa.Connection, trial_id: int) -> None:
    """Adds what a trial that has finished took of the time, over its attempts, to the mean of its study.

    That is its wall seconds, or, if GPUs count, its share of its workers' seconds for each of its GPUs.
    """
    connection.execute(
        sa.text(NOTE_TIME), {"t": trial_id, "wall": attributes.WALL_SECONDS, "share": attributes.SECONDS}
    )
