"""Our own tables beside Optuna's, with the columns that later versions added, and which tables Optuna has.

``tests/unit/search/test_optuna_internals.py`` fails if Optuna changes a table, column or type that our SQL names.
"""

import sqlalchemy as sa
from optuna.storages._rdb.models import BaseModel

OWN_TABLES = ("hpo_studies", "hpo_trials", "hpo_imported", "hpo_steering", "hpo_workers")


OWN_SCHEMA = """
CREATE TABLE IF NOT EXISTS hpo_studies (
    study_id integer PRIMARY KEY REFERENCES studies ON DELETE CASCADE,
    num_lineages integer,              -- the budget in trials; null where it is in epochs
    num_epochs integer,                -- the budget in epochs; null where it is in trials
    epochs_per_trial integer NOT NULL, -- most epochs that one trial can take
    next_lineage integer NOT NULL DEFAULT 0,
    epochs_spent integer NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS hpo_trials (
    trial_id integer PRIMARY KEY REFERENCES trials ON DELETE CASCADE,
    study_id integer NOT NULL REFERENCES studies ON DELETE CASCADE,
    lineage integer NOT NULL,
    attempt integer NOT NULL, -- from 0; negative: the row of a draw that the configuration refused, -1 - its draw
    worker text,
    failures integer NOT NULL DEFAULT 0, -- how often the lineage has failed, without progress, before this attempt
    error text,                          -- with what the attempt before this one failed, normalised
    retried boolean NOT NULL DEFAULT false,
    UNIQUE (study_id, lineage, attempt)
);
ALTER TABLE hpo_trials ADD COLUMN IF NOT EXISTS progress integer NOT NULL DEFAULT 0; -- epochs that earlier attempts did
ALTER TABLE hpo_trials ADD COLUMN IF NOT EXISTS draw integer NOT NULL DEFAULT 0; -- draws of the lineage before this one
ALTER TABLE hpo_trials ADD COLUMN IF NOT EXISTS infeasible boolean NOT NULL DEFAULT false; -- costs no budget
ALTER TABLE hpo_trials ADD COLUMN IF NOT EXISTS apart text; -- to be trained alone: the worker that died with it
ALTER TABLE hpo_trials ADD COLUMN IF NOT EXISTS reserved integer; -- epochs that it may have; null: a whole training
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS stop_at float8; -- the value that ends the search; null: none does
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS maximize boolean NOT NULL DEFAULT false;
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS reached boolean NOT NULL DEFAULT false; -- a complete trial has it
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS num_seconds float8; -- the budget in seconds; null: time ends nothing
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS seconds_spent float8 NOT NULL DEFAULT 0; -- up to seen_at
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS seen_at timestamp; -- UTC; when seconds_spent was last counted
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS timed_trials integer NOT NULL DEFAULT 0; -- finished, with their
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS timed_seconds float8 NOT NULL DEFAULT 0; -- wall seconds in all
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS gpus integer; -- of a trial, whose seconds count; null: the clock's
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS halt text; -- a person has it 'paused' or 'stopped'; null: neither
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS stops integer NOT NULL DEFAULT 0; -- how often it was stopped
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS finish_running boolean NOT NULL DEFAULT false; -- before it halts
ALTER TABLE hpo_studies ADD COLUMN IF NOT EXISTS seeds integer NOT NULL DEFAULT 1; -- trainings of a trial, all counted
ALTER TABLE hpo_trials ADD COLUMN IF NOT EXISTS prune text; -- why a person has it pruned; null: nobody has
CREATE TABLE IF NOT EXISTS hpo_steering ( -- what persons have done to an experiment, in order
    steering_id serial PRIMARY KEY,
    study_id integer NOT NULL REFERENCES studies ON DELETE CASCADE, -- the first of the experiment
    at timestamp NOT NULL, -- UTC
    who text NOT NULL,
    action text NOT NULL,
    detail text NOT NULL
);
CREATE TABLE IF NOT EXISTS hpo_workers ( -- what each worker reports of itself with its heartbeat
    worker text PRIMARY KEY,
    study_id integer NOT NULL REFERENCES studies ON DELETE CASCADE, -- the first of its experiment
    started_at timestamp NOT NULL, -- UTC
    seen_at timestamp NOT NULL,
    ended_at timestamp, -- null: it has not said that it ends
    state text NOT NULL, -- trains, waits, paused, or why it ended
    report text NOT NULL -- JSON, see hpo.worker.report
);
CREATE TABLE IF NOT EXISTS hpo_imported (
    imported_id serial PRIMARY KEY,
    study_id integer NOT NULL REFERENCES studies ON DELETE CASCADE,
    content text NOT NULL, -- equal for what is the same trial
    state text NOT NULL,   -- complete or pruned
    value float8,
    params text NOT NULL,  -- JSON: name -> value
    source text NOT NULL,  -- the experiment or file that it is from
    UNIQUE (study_id, content)
);
CREATE INDEX IF NOT EXISTS hpo_active_trials ON trials (study_id) WHERE state IN ('RUNNING', 'WAITING');
"""

NUM_ADDED_COLUMNS = 19
MISSING_COLUMNS = """
SELECT count(*) < :added FROM information_schema.columns
WHERE table_schema = ANY(current_schemas(false)) AND (
  table_name = 'hpo_trials' AND column_name IN ('progress', 'draw', 'infeasible', 'apart', 'reserved', 'prune')
  OR table_name = 'hpo_studies' AND column_name IN (
    'stop_at', 'maximize', 'reached', 'num_seconds', 'seconds_spent', 'seen_at', 'timed_trials', 'timed_seconds',
    'gpus', 'halt', 'stops', 'finish_running', 'seeds'))
"""


def has_own_columns(connection: sa.Connection) -> bool:
    """Whether our tables have every column; False for those that an earlier version made."""
    return not connection.execute(sa.text(MISSING_COLUMNS), {"added": NUM_ADDED_COLUMNS}).scalar_one()


def create_own_tables(engine: sa.Engine) -> None:
    """Makes our tables beside Optuna's, or adds the columns that they lack; may be repeated.

    Deleting a study with any Optuna client deletes our rows of it.
    """
    with engine.begin() as connection:
        # Two processes that make them at once would meet in the catalogue; the number is arbitrary, ours.
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7305198)"))
        connection.execute(sa.text(OWN_SCHEMA))


def optuna_tables() -> dict[str, list[str]]:
    """The columns of each of Optuna's tables; a table stands after those that it refers to."""
    return {table.name: [column.name for column in table.columns] for table in BaseModel.metadata.sorted_tables}
