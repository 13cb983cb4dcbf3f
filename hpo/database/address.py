"""The database's address: from the settings or the embedded server; printed without its password."""

from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from hpo.database import served
from hpo.database.embedded import embedded_address, serve
from hpo.database.server_lock import ServerLock
from hpo.errors import UsageError
from hpo.settings import Settings

EMBEDDED = "embedded"
"""The address of the embedded server, for whoever has HPO_STORAGE set and wants it all the same."""


def masked(address: str) -> str:
    """The address with its password hidden: the only form in which an address is printed."""
    if address.startswith(served.FILE):
        return address
    try:
        url = sa.engine.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        return "(an address that cannot be read)"
    if "password" in url.query:
        url = url.update_query_dict({"password": "***"})
    return url.render_as_string(hide_password=True)


def served_settings(settings: Settings) -> Settings:
    """The settings with the embedded server named, for workers anywhere; raises UsageError if they name another."""
    if settings.storage is not None and settings.storage != EMBEDDED:
        raise UsageError(
            f"--serve opens the embedded server, and the storage is {masked(settings.storage)}: leave out one of them"
        )
    return replace(settings, storage=EMBEDDED)


def is_served(settings: Settings) -> bool:
    """Whether the settings mean the embedded server, and it listens on TCP."""
    if settings.storage is not None and settings.storage != EMBEDDED:
        return False
    record = ServerLock(settings.home_path).read()
    return record is not None and record.port > 0


def serve_database(settings: Settings, host: str | None = None, port: int | None = None) -> sa.URL:
    """Opens the embedded server to other machines; returns its address, which is also in a file of the home.

    ``host``: the name by which they reach this machine; None: its own name.

    Raises:
        UsageError: if the settings name another database.
        StorageError: if it does not start.
    """
    return serve(served_settings(settings).make_home(), host, port)


def resolve_address(address: str | None = None, home: str | Path | None = None) -> str:
    """The address to open: the given one, or, for None or ``embedded``, that of the embedded server, which is started.

    ``file:PATH`` names a file that holds the address and that only its owner can read.
    ``address`` and ``home`` that are None are read from the environment, as in :class:`Settings`.

    Raises:
        UsageError: for an address that is not Postgres's.
        StorageError: if the embedded server does not start.
    """
    settings = Settings.given(storage=address, home=None if home is None else Path(home))
    address = settings.storage
    if address is None or address == EMBEDDED:
        address = embedded_address(settings.make_home())
    if address.startswith(served.FILE):
        address = served.read_address(Path(address.removeprefix(served.FILE)).expanduser())
    expected = "expected postgresql://user:password@host:5432/database, or none at all for the embedded server"
    try:
        url = sa.engine.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError(f"the storage address cannot be read; {expected}") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise UsageError(f"the storage {masked(address)} is not Postgres; {expected}")
    return url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
