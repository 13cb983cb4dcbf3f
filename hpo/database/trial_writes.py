"""What is written of trials that run, and how they end: Optuna's own tables, many values in one statement.

A trial's row says whether it is still ours: nothing is written of one that is no longer RUNNING.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database import search_clock


@dataclass
class Writes:
    """What is to be written of one running trial."""

    params: dict[str, tuple[float, str]] = field(default_factory=dict)  # name -> internal value, distribution as JSON
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)  # step -> value

    def __bool__(self) -> bool:
        return bool(self.params or self.user_attrs or self.system_attrs or self.reports)


def execute(connection: sa.Connection, sql: str, **parameters: Any) -> Any:
    """Runs one statement with named parameters."""
    return connection.execute(sa.text(sql), parameters)


def write(connection: sa.Connection, writes: Mapping[int, Writes]) -> set[int]:
    """Writes what running trials have gathered; may be repeated. Returns the trials that are no longer running.

    Nothing is written of those: they were given to somebody else, finished or deleted.
    """
    rows = execute(
        connection,
        "SELECT trial_id FROM trials WHERE trial_id = ANY(:ids) AND state = 'RUNNING' "
        "ORDER BY trial_id FOR NO KEY UPDATE",
        ids=list(writes),
    )
    alive = {row[0] for row in rows}
    kept = {trial_id: item for trial_id, item in writes.items() if trial_id in alive}
    if params := [(t, name, *param) for t, item in kept.items() for name, param in item.params.items()]:
        ids, names, values, distributions = map(list, zip(*params, strict=True))
        execute(
            connection,
            """
            INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
            SELECT * FROM unnest(CAST(:a AS int[]), CAST(:b AS text[]), CAST(:c AS float8[]), CAST(:d AS text[]))
            ON CONFLICT (trial_id, param_name) DO NOTHING
            """,
            a=ids,
            b=names,
            c=values,
            d=distributions,
        )
    if reports := [(t, step, *_stored(value)) for t, item in kept.items() for step, value in item.reports.items()]:
        ids, steps, values, kinds = map(list, zip(*reports, strict=True))
        execute(
            connection,
            """
            INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
            SELECT a, b, c, CAST(d AS trialintermediatevaluetype) FROM unnest(
                CAST(:a AS int[]), CAST(:b AS int[]), CAST(:c AS float8[]), CAST(:d AS text[])) AS rows (a, b, c, d)
            ON CONFLICT (trial_id, step) DO UPDATE SET intermediate_value = excluded.intermediate_value,
                intermediate_value_type = excluded.intermediate_value_type
            """,
            a=ids,
            b=steps,
            c=values,
            d=kinds,
        )
    write_attributes(connection, "trial_user_attributes", {t: item.user_attrs for t, item in kept.items()})
    write_attributes(connection, "trial_system_attributes", {t: item.system_attrs for t, item in kept.items()})
    return set(writes) - alive


def write_attributes(connection: sa.Connection, table: str, values: Mapping[int, Mapping[str, Any]]) -> None:
    rows = [(t, key, json.dumps(value)) for t, attrs in values.items() for key, value in attrs.items()]
    if not rows:
        return
    ids, keys, texts = map(list, zip(*rows, strict=True))
    execute(
        connection,
        f"""
        INSERT INTO {table} (trial_id, key, value_json)
        SELECT * FROM unnest(CAST(:a AS int[]), CAST(:b AS text[]), CAST(:c AS text[]))
        ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
        """,
        a=ids,
        b=keys,
        c=texts,
    )


def _stored(value: float) -> tuple[float | None, str]:
    """A value as Optuna stores it: what is not finite is a word beside a null."""
    if value != value:
        return None, "NAN"
    if value in (float("inf"), float("-inf")):
        return None, "INF_POS" if value > 0 else "INF_NEG"
    return value, "FINITE"


KEEPS_CONSTRAINTS = """NOT EXISTS (SELECT 1 FROM trial_system_attributes c WHERE c.trial_id = {}
  AND c.key LIKE 'constraints:%' AND c.value_json ~ '^[0-9.]*[1-9]')"""
"""Whether a trial violates no constraint, of which a positive number is the violation."""


def finish(
    connection: sa.Connection,
    trial_id: int,
    state: TrialState,
    value: float | None,
    epochs: int,
    writes: Writes,
    second: float | None = None,
) -> bool:
    """Ends a trial for good, with all that is still to be written of it. Returns False where it was not running.

    ``second`` is the value of the second objective. ``epochs`` is what the lineage has trained; it is added to what the
    study has spent.
    """
    if write(connection, {trial_id: writes}):
        return False
    if not end(connection, trial_id, state):
        return False
    for objective, number in enumerate([] if value is None else [value] if second is None else [value, second]):
        stored, kind = _stored(number)
        execute(
            connection,
            "INSERT INTO trial_values (trial_id, objective, value, value_type) "
            "VALUES (:t, :o, :v, CAST(:k AS trialvaluetype))",
            t=trial_id,
            o=objective,
            v=stored,
            k=kind,
        )
    is_timed = execute(
        connection,
        f"""
        UPDATE hpo_studies SET epochs_spent = epochs_spent + :e, reached = reached OR coalesce(
            CASE WHEN maximize THEN CAST(:v AS float8) >= stop_at ELSE CAST(:v AS float8) <= stop_at END
            AND {KEEPS_CONSTRAINTS.format(":t")}, false)
        WHERE study_id = (SELECT study_id FROM hpo_trials WHERE trial_id = :t) RETURNING num_seconds IS NOT NULL
        """,
        e=epochs,
        v=value if state is TrialState.COMPLETE else None,
        t=trial_id,
    ).scalar()
    if is_timed and state is not TrialState.FAIL:
        search_clock.note_time(connection, trial_id)
    return True


def ended_as(connection: sa.Connection, trial_id: int, state: TrialState, worker: str) -> bool:
    """Whether this worker has ended the trial so already: an answer can get lost after the work was done."""
    query = (
        "SELECT 1 FROM trials JOIN hpo_trials USING (trial_id) "
        "WHERE trial_id = :t AND state = CAST(:state AS trialstate) AND worker = :w AND NOT retried"
    )
    return bool(execute(connection, query, t=trial_id, state=state.name, w=worker).all())


def end(connection: sa.Connection, trial_id: int, state: TrialState) -> bool:
    search_clock.tick_of_trial(connection, trial_id)
    ended = execute(
        connection,
        "UPDATE trials SET state = CAST(:state AS trialstate), datetime_complete = now() AT TIME ZONE 'UTC' "
        "WHERE trial_id = :t AND state = 'RUNNING'",
        state=state.name,
        t=trial_id,
    )
    return bool(ended.rowcount == 1)


def beat(connection: sa.Connection, trial_ids: Iterable[int]) -> set[int]:
    """Beats for the trials and returns those that are no longer running."""
    ids = list(trial_ids)
    rows = execute(
        connection,
        """
        UPDATE trial_heartbeats b SET heartbeat = now() AT TIME ZONE 'UTC' FROM trials t
        WHERE t.trial_id = b.trial_id AND t.state = 'RUNNING' AND b.trial_id = ANY(:ids) RETURNING b.trial_id
        """,
        ids=ids,
    )
    return set(ids) - {row[0] for row in rows}
