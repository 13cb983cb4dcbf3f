"""Database errors as one line for the user, with the mend."""

import sqlalchemy as sa

from hpo.errors import StorageError


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
        transient=isinstance(cause, sa.exc.OperationalError) and not (sign or "").startswith(lasting),
    )
