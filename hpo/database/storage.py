"""Opens the database: the one whose address is given, or the embedded one.

:class:`Storage` is Optuna's own RDBStorage with two differences: an address that is masked wherever it is shown, and
trials read in one aggregated query. Optuna reads 10,000 trials of 7 parameters and 8 reports through its mapper in
7 s; this takes under one, for whoever uses it: workers, the dashboard, ``hpo.load``.
"""

import contextlib
import json
import time
from collections.abc import Collection, Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.database.address import masked, resolve_address
from hpo.database.embedded import restart_when_gone
from hpo.database.explain import explained
from hpo.database.read_trials import LAST_MARK, READ_MARKS, READ_TRIALS, Mark, frozen_trial
from hpo.database.schema import OWN_TABLES, create_own_tables, has_own_columns, optuna_tables
from hpo.database.schema_version import has_newest_revision, unread_revision
from hpo.errors import StorageError

# Two connections serve a worker: one for claims, reports and results, one for heartbeats.
POOL_SIZE = 2
CONNECTIONS = 3
"""With one more for a moment in which both are taken."""
CONNECT_OPTIONS: dict[str, Any] = {
    "options": "-c timezone=UTC -c jit=off",
    "application_name": "hpo",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


def open_storage(
    address: str | None = None,
    *,
    home: str | Path | None = None,
    connections: int = CONNECTIONS,
    kept: int = POOL_SIZE,
) -> "Storage":
    """Opens the storage that ``address`` names (see :func:`resolve_address`); makes the tables where there are none.

    ``connections``: the most that are open at a time; a process whose threads read at once wants one for each.
    ``kept``: how many of them stay open while nobody uses them.

    Raises:
        StorageError: one line on a server that cannot be reached or refuses us, a database that is not ours or that
            another version of Optuna made.
    """
    return Storage(resolve_address(address, home), connections, kept)


class Storage(RDBStorage):
    """Optuna's storage on Postgres, reading trials fast. ``optuna.storages.get_storage`` puts its cache before it."""

    def __init__(self, address: str, connections: int = CONNECTIONS, kept: int = POOL_SIZE) -> None:
        self.address = masked(address)
        engine_options = {
            "pool_pre_ping": True,
            "pool_size": kept,
            "max_overflow": connections - kept,
            "connect_args": CONNECT_OPTIONS,
        }
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            # Processes that make Optuna's tables at once would meet in the catalogue: one makes them, the others wait.
            with _checked(address, self.address) as (ours, is_newest), unread_revision(skip=is_newest):
                super().__init__(
                    address.replace("{", "{{").replace("}", "}}"),
                    engine_options,
                    skip_compatibility_check=is_newest,
                    skip_table_creation=ours,
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
        restart_when_gone(self.engine)
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
        """What Optuna's own methods and the cache of ``optuna.storages.get_storage`` read trials with."""
        return self.read_trials(study_id, states, included_trial_ids, trial_id_greater_than)

    def read_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
        ended_of: Collection[int] = (),
    ) -> list[FrozenTrial]:
        """The study's trials with a greater id, the included ones, and those of ``ended_of`` that run no longer, in the
        order of their ids.

        Raises:
            KeyError: if there is no such study.
            StorageInternalError: if the database does not answer.
        """
        conditions = ["t.study_id = :study_id"]
        parameters: dict[str, Any] = {"study_id": study_id}
        if trial_id_greater_than > -1:
            wanted = "t.trial_id > :after OR t.trial_id = ANY(:included)"
            parameters |= {"after": trial_id_greater_than, "included": list(included_trial_ids)}
            if ended_of:
                wanted += " OR (t.trial_id = ANY(:ended_of) AND t.state <> 'RUNNING')"
                parameters["ended_of"] = list(ended_of)
            conditions.append(f"({wanted})")
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

    def read_marks(self, study_id: int, after: int | None) -> tuple[list[Mark], int]:
        """The system attributes of the study's trials that were written after one, oldest first; and the newest's id.

        With None for ``after`` no marks, and only the id.
        """
        with self.engine.connect() as connection:
            # Before the marks: what is written meanwhile is read again the next time.
            last: int = connection.execute(sa.text(LAST_MARK)).scalar_one()
            if after is None:
                return [], last
            rows = connection.execute(sa.text(READ_MARKS), {"study_id": study_id, "after": after}).all()
        return [
            Mark(trial, number, lineage, attempt, key, json.loads(value))
            for trial, number, lineage, attempt, key, value in rows
        ], last


@contextlib.contextmanager
def _checked(address: str, shown: str) -> Iterator[tuple[bool, bool]]:
    """Whether the database holds our tables already, and whether Optuna's have the newest revision.

    Where it does not, others that open it wait until the block ends.
    """
    engine = sa.create_engine(address, poolclass=sa.NullPool, connect_args=CONNECT_OPTIONS)
    while True:
        # The lock goes with the transaction, and nobody waits inside one: behind a pooler a session's lock would stay
        # behind, and those who wait would hold the connections that the one who makes the tables needs.
        with engine.begin() as connection:
            ours = _is_ours(connection, shown)
            if not ours and connection.execute(sa.text("SELECT pg_try_advisory_xact_lock(7305197)")).scalar_one():
                yield _is_ours(connection, shown), False
                return
            is_newest = ours and has_newest_revision(connection)
        if ours:
            yield True, is_newest
            return
        time.sleep(0.05)


def _is_ours(connection: sa.Connection, shown: str) -> bool:
    """Whether the database holds our tables already; False for an empty one, Optuna's alone, an earlier version's."""
    # Views do not count: extensions such as pg_stat_statements have theirs in a database that is otherwise empty.
    query = """SELECT table_name FROM information_schema.tables
        WHERE table_schema = ANY(current_schemas(false)) AND table_type = 'BASE TABLE'"""
    tables = {name for (name,) in connection.execute(sa.text(query))}
    if tables and "version_info" not in tables:
        known = set(optuna_tables()) | {"alembic_version", *OWN_TABLES}
        others = sorted(tables - known)
        if others:
            raise StorageError(
                f"the database {shown} holds tables of something else ({', '.join(others[:3])}"
                f"{', …' if len(others) > 3 else ''}) and none of Optuna's: give an empty database, or one of Optuna's"
            )
    return tables.issuperset(OWN_TABLES) and has_own_columns(connection)
