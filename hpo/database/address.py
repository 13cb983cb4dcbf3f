"""The database's address: from the settings or the embedded server; printed without its password."""

from pathlib import Path

import sqlalchemy as sa

from hpo.database.embedded import embedded_address
from hpo.errors import UsageError
from hpo.settings import Settings

EMBEDDED = "embedded"
"""The address of the embedded server, for whoever has HPO_STORAGE set and wants it all the same."""


def masked(address: str) -> str:
    """The address with its password hidden: the only form in which an address is printed."""
    try:
        url = sa.engine.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        return "(an address that cannot be read)"
    if "password" in url.query:
        url = url.update_query_dict({"password": "***"})
    return url.render_as_string(hide_password=True)


def resolve_address(address: str | None = None, home: str | Path | None = None) -> str:
    """The address to open: the given one, or, for None or ``embedded``, that of the embedded server, which is started.

    ``address`` and ``home`` that are None are read from the environment, as in :class:`Settings`.

    Raises:
        UsageError: for an address that is not Postgres's.
        StorageError: if the embedded server does not start.
    """
    settings = Settings.given(storage=address, home=None if home is None else Path(home))
    address = settings.storage
    if address is None or address == EMBEDDED:
        address = embedded_address(settings.make_home())
    expected = "expected postgresql://user:password@host:5432/database, or none at all for the embedded server"
    try:
        url = sa.engine.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError(f"the storage address cannot be read; {expected}") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise UsageError(f"the storage {masked(address)} is not Postgres; {expected}")
    return url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
