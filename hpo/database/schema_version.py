"""Whether the database has the tables of the installed Optuna, without alembic.

Optuna compares revisions with alembic whenever a storage is opened, which imports alembic and runs all migration
scripts: 0.15 s of each process. The same comparison takes one query and the text of the scripts. Whatever is not equal
is left to Optuna, which makes the tables, or says what to do.
"""

import contextlib
import functools
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import storage as rdb_storage

_LOCK = threading.Lock()


def has_newest_revision(connection: sa.Connection) -> bool:
    """Whether the tables, which are there, have the revision of the installed Optuna."""
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all() == [newest_revision()]


@functools.cache
def newest_revision() -> str | None:
    """The revision that no migration script of the installed Optuna continues; None if there is not exactly one."""
    scripts = Path(rdb_storage.__file__).with_name("alembic") / "versions"
    text = "\n".join(path.read_text(encoding="utf-8") for path in scripts.glob("*.py"))
    names = ("revision", "down_revision")
    made, continued = (set(re.findall(rf"^{name} = [\"'](.+)[\"']", text, re.MULTILINE)) for name in names)
    newest = made - continued
    return newest.pop() if len(newest) == 1 else None


class _UnreadRevision(rdb_storage._VersionManager):
    """Knows that the revision is right; reads it if somebody asks, as ``optuna storage upgrade`` does."""

    def _init_version_info_model(self) -> None:
        pass

    def _init_alembic(self) -> None:
        pass


@contextlib.contextmanager
def unread_revision(*, skip: bool) -> Iterator[None]:
    """With ``skip``, storages that this thread opens within the block do not read the revision of their tables."""
    if not skip:
        yield
        return
    thread = threading.get_ident()
    with _LOCK:
        original = rdb_storage._VersionManager

        def made(*arguments: Any) -> Any:
            return (_UnreadRevision if threading.get_ident() == thread else original)(*arguments)

        rdb_storage._VersionManager = made  # type: ignore[misc, assignment]
        try:
            yield
        finally:
            rdb_storage._VersionManager = original  # type: ignore[misc]
