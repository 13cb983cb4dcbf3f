"""Opens the database: the one whose address is given, or the embedded one.

:class:`Storage` is Optuna's own RDBStorage with two differences: an address that is masked wherever it is shown, and
trials read in one aggregated query. Optuna reads 10,000 trials of 7 parameters and 8 reports through its mapper in
7 s; this takes under one, for whoever uses it: workers, the dashboard, ``hpo.load``.
"""

import contextlib
import datetime
import functools
import json
import os
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import StorageError, UsageError
from hpo.database.embedded import embedded_address
from hpo.settings import home_folder

# Two connections serve a worker: one for claims, reports and results, one for heartbeats.
ENGINE_OPTIONS: dict[str, Any] = {"pool_pre_ping": True, "pool_size": 2, "max_overflow": 1}
CONNECT_OPTIONS: dict[str, Any] = {
    "options": "-c timezone=UTC",
    "application_name": "hpo",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
OWN_TABLES = ("hpo_studies", "hpo_trials")


def masked(address: str) -> str:
    """The address with its password hidden: the only form in which an address is ever shown."""
    try:
        url = sa.engine.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        return "(an address that cannot be read)"
    if "password" in url.query:
        url = url.update_query_dict({"password": "***"})
    return url.render_as_string(hide_password=True)


def resolve_address(address: str | None = None, home: str | Path | None = None) -> str:
    """The address to open: the given one, else ``HPO_STORAGE``, else the embedded server's, which is started.

    Raises:
        UsageError: for an address that is not Postgres's.
        StorageError: where the embedded server does not start.
    """
    address = address or os.environ.get("HPO_STORAGE") or None
    if address is None:
        address = embedded_address(home_folder(home))
    expected = "expected postgresql://user:password@host:5432/database, or none at all for the embedded server"
    try:
        url = sa.engine.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError(f"the storage address cannot be read; {expected}") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise UsageError(f"the storage {masked(address)} is not Postgres; {expected}")
    return url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def open_storage(address: str | None = None, *, home: str | Path | None = None) -> "Storage":
    """Opens the storage that ``address`` names (see :func:`resolve_address`); makes the tables where there are none.

    Raises:
        StorageError: one line on a server that cannot be reached or refuses us, a database that is not ours or that
            another version of Optuna made.
    """
    return Storage(resolve_address(address, home))


class Storage(RDBStorage):
    """Optuna's storage on Postgres, reading trials fast. ``optuna.storages.get_storage`` puts its cache before it."""

    def __init__(self, address: str) -> None:
        self.address = masked(address)
        engine_options = {**ENGINE_OPTIONS, "connect_args": CONNECT_OPTIONS}
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            # Processes that make Optuna's tables at once would meet in the catalogue: one makes them, the others wait.
            with _checked(address, self.address) as ours:
                super().__init__(
                    address.replace("{", "{{").replace("}", "}}"), engine_options, skip_table_creation=ours
                )
                if not ours:
                    create_own_tables(self.engine)
        except (sa.exc.OperationalError, optuna.exceptions.StorageInternalError) as error:
            raise explained(error, self.address) from None
        except sa.exc.ProgrammingError as error:
            raise explained(error, self.address) from None
        except RuntimeError as error:
            if "schema" not in str(error):
                raise
            raise StorageError(f"the database {self.address} was made by another version of Optuna: {error}") from None
        finally:
            optuna.logging.set_verbosity(verbosity)
        self._listen()

    def __repr__(self) -> str:
        return f"Storage({self.address!r})"

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._listen()

    def _listen(self) -> None:
        sa.event.listen(self.engine, "handle_error", self._refused)

    def _refused(self, context: sa.engine.ExceptionContext) -> None:
        """Raises StorageError, one line, where this user may read and not write, or nobody may."""
        told = {"42501": "this user may not do that", "25006": "it takes no writes"}
        if (what := told.get(getattr(context.original_exception, "pgcode", None) or "")) is not None:
            detail = str(context.original_exception).strip().partition("\n")[0]
            raise StorageError(f"Postgres at {self.address}: {what} ({detail})")

    @property
    def secret_address(self) -> str:
        """The address with its password: for a child process's environment, never for a person to see."""
        return self.engine.url.render_as_string(hide_password=False)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        conditions = ["t.study_id = :study_id"]
        parameters: dict[str, Any] = {"study_id": study_id}
        if trial_id_greater_than > -1:
            conditions.append("(t.trial_id > :after OR t.trial_id = ANY(:included))")
            parameters |= {"after": trial_id_greater_than, "included": list(included_trial_ids)}
        if states is not None:
            assert isinstance(states, Iterable)
            conditions.append("t.state::text = ANY(:states)")
            parameters["states"] = [state.name for state in states]
        try:
            with self.engine.connect() as connection:
                rows = connection.execute(sa.text(READ_TRIALS.format(" AND ".join(conditions))), parameters).all()
        except sa.exc.SQLAlchemyError as error:
            # What Optuna's own storage raises for a database that does not answer.
            raise optuna.exceptions.StorageInternalError("The database does not answer.") from error
        if not rows:
            raise KeyError("Record does not exist.")
        return [frozen_trial(row) for row in rows if row[0] is not None]


# One row a trial, or one of nulls for a study in which there is none to read; no row where there is no such study.
# The child tables are read through their unique indexes on trial_id, so the cost is that of the trials that are
# wanted, and 10,000 of them come in one round trip.
READ_TRIALS = """
SELECT t.trial_id, t.number, t.state::text, t.datetime_start, t.datetime_complete,
  (SELECT json_agg(json_build_array(value, value_type::text) ORDER BY objective)::text
     FROM trial_values WHERE trial_id = t.trial_id),
  (SELECT json_agg(json_build_array(param_name, param_value, distribution_json) ORDER BY param_id)::text
     FROM trial_params WHERE trial_id = t.trial_id),
  (SELECT json_object_agg(key, value_json)::text FROM trial_user_attributes WHERE trial_id = t.trial_id),
  (SELECT json_object_agg(key, value_json)::text FROM trial_system_attributes WHERE trial_id = t.trial_id),
  (SELECT json_agg(json_build_array(step, intermediate_value, intermediate_value_type::text) ORDER BY step)::text
     FROM trial_intermediate_values WHERE trial_id = t.trial_id)
FROM studies s LEFT JOIN trials t ON {} WHERE s.study_id = :study_id ORDER BY t.trial_id
"""

_SPECIAL = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}
_distribution = functools.lru_cache(maxsize=4096)(json_to_distribution)


@functools.lru_cache(maxsize=65536)
def _external(distribution_json: str, value: float) -> Any:
    return _distribution(distribution_json).to_external_repr(value)


def frozen_trial(row: Any) -> FrozenTrial:
    trial_id, number, state, start, complete, values, params, user_attrs, system_attrs, reports = row
    parameters: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for name, value, distribution_json in json.loads(params) if params else ():
        distributions[name] = _distribution(distribution_json)
        parameters[name] = _external(distribution_json, value)
    return FrozenTrial(
        number=number,
        state=TrialState[state],
        value=None,
        values=[_SPECIAL.get(kind, value) for value, kind in json.loads(values)] if values else None,
        datetime_start=_local(start),
        datetime_complete=_local(complete),
        params=parameters,
        distributions=distributions,
        user_attrs=_decoded(user_attrs),
        system_attrs=_decoded(system_attrs),
        intermediate_values={s: _SPECIAL.get(kind, v) for s, v, kind in json.loads(reports)} if reports else {},
        trial_id=trial_id,
    )


def _decoded(attributes: str | None) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in json.loads(attributes).items()} if attributes else {}


def _local(utc: datetime.datetime | None) -> datetime.datetime | None:
    """Optuna stores naive UTC and shows naive local time."""
    return None if utc is None else utc.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)


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
    attempt integer NOT NULL,
    worker text,
    failures integer NOT NULL DEFAULT 0, -- how often the lineage has failed before this attempt
    error text,                          -- with what the attempt before this one failed
    retried boolean NOT NULL DEFAULT false,
    UNIQUE (study_id, lineage, attempt)
);
CREATE INDEX IF NOT EXISTS hpo_active_trials ON trials (study_id) WHERE state IN ('RUNNING', 'WAITING');
"""


def create_own_tables(engine: sa.Engine) -> None:
    """Makes our tables beside Optuna's; deleting a study with any Optuna client deletes our rows of it."""
    with engine.begin() as connection:
        # Two processes that make them at once would meet in the catalogue; the number is arbitrary, ours.
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7305198)"))
        connection.execute(sa.text(OWN_SCHEMA))


@contextlib.contextmanager
def _checked(address: str, shown: str) -> Iterator[bool]:
    """Whether the database holds our tables already; where not, others that open it wait until the block ends."""
    engine = sa.create_engine(address, poolclass=sa.NullPool, connect_args=CONNECT_OPTIONS)
    while True:
        # The lock goes with the transaction, and nobody waits inside one: behind a pooler a session's lock would stay
        # behind, and those who wait would hold the connections that the one who makes the tables needs.
        with engine.begin() as connection:
            ours = _is_ours(connection, shown)
            if not ours and connection.execute(sa.text("SELECT pg_try_advisory_xact_lock(7305197)")).scalar_one():
                yield _is_ours(connection, shown)
                return
        if ours:
            yield True
            return
        time.sleep(0.05)


def _is_ours(connection: sa.Connection, shown: str) -> bool:
    """Whether the database holds our tables already; False for an empty one or Optuna's alone."""
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = ANY(current_schemas(false))"
    tables = {name for (name,) in connection.execute(sa.text(query))}
    if tables and "version_info" not in tables:
        known = set(models.BaseModel.metadata.tables) | {"alembic_version", *OWN_TABLES}
        others = sorted(tables - known)
        if others:
            raise StorageError(
                f"the database {shown} holds tables of something else ({', '.join(others[:3])}"
                f"{', …' if len(others) > 3 else ''}) and none of Optuna's: give an empty database, or one of Optuna's"
            )
    return tables.issuperset(OWN_TABLES)


def explained(error: Exception, shown: str) -> StorageError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, sa.exc.DBAPIError):
        cause = cause.__cause__ or cause.__context__
    lines = [line.strip() for line in str(cause.orig if cause is not None else error).splitlines() if line.strip()]
    fatal = [line.rpartition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    detail = (fatal or lines or [type(error).__name__])[-1]
    table = {
        "password authentication failed": "the password or user is wrong",
        "no password supplied": "it wants a password",
        "does not exist": "the database or user does not exist",
        "permission denied": "this user may not do that; it needs to create tables in the schema",
        "too many clients": "it has no connection left; see the README on pooling",
        "remaining connection slots": "it has no connection left; see the README on pooling",
        "Connection refused": "nothing listens there",
        "No such file or directory": "nothing listens there",
        "host name": "no such host",
        "timeout expired": "it does not answer",
        "pg_hba.conf": "it does not let this user in from here",
        "starting up": "it is starting",
        "not yet accepting connections": "it is starting",
        "recovery mode": "it is starting again after a crash",
        "shutting down": "it is being stopped",
        "server closed the connection": "it was stopped",
        "terminating connection": "it was stopped",
    }
    text = " ".join(lines)
    sign = next((sign for sign in table if sign in text), None)
    # A trouble that we do not know may pass: a worker that gives up for it loses more than one that waits.
    lasting = ("password authentication", "no password", "does not exist", "permission", "host name", "pg_hba.conf")
    return StorageError(
        f"Postgres at {shown}: {'it cannot be used' if sign is None else table[sign]} ({detail})",
        passing=isinstance(cause, sa.exc.OperationalError) and not (sign or "").startswith(lasting),
    )
