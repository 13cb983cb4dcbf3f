"""The database's address: where it comes from, and how it is shown without its password."""

import os
from pathlib import Path

import sqlalchemy as sa

from hpo.database.embedded import embedded_address
from hpo.errors import UsageError
from hpo.settings import home_folder


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
