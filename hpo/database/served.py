"""The embedded server on TCP, for workers on other machines: its password, its port, and the file that holds both.

``hpo launch --serve`` and ``hpo server`` open it; nothing else does. Over TCP there is one role, ``hpo``, which is no
superuser, with a password of 32 random characters that is made once for a home. The address with the password is in the
file ``postgres.address`` of the home, which only its owner can read: workers that share the home read it there, others
get ``HPO_STORAGE=file:PATH``. The port stays, so that a server that is started again is found where it was.
"""

import contextlib
import os
import secrets
import shutil
import socket
from pathlib import Path

import sqlalchemy as sa

from hpo.errors import StorageError, UsageError

FILE = "file:"
"""What an address begins with that stands in a file."""
ROLE = "hpo"
RIGHTS = f"""
GRANT pg_read_all_data, pg_write_all_data TO {ROLE};
GRANT CREATE, USAGE ON SCHEMA public TO {ROLE};
"""
# On the Unix socket, which only its owner reaches, as before; over TCP the one role with its password, else nobody.
HBA = f"""local all all trust
host postgres {ROLE} all scram-sha-256
host all all all reject
"""
CONNECT_SECONDS = 2.0


def address_file(home: Path) -> Path:
    """The file that holds the address of the served server of a home."""
    return home / "postgres.address"


def read_address(path: Path) -> str:
    """The address in a file.

    Raises:
        UsageError: if the file does not exist, cannot be read, or others may read it.
    """
    try:
        with path.open() as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise UsageError(f"{path} holds a password, and others than its owner can read it: chmod 600 {path}")
            return file.read().strip()
    except OSError as error:
        raise UsageError(
            f"the address of the database cannot be read from {path}: {error.strerror}; hpo server writes it"
        ) from None


def own_address(home: Path, host: str | None, port: int | None, *, stays: bool = False) -> sa.URL:
    """The address at which the server of a home listens: that of before, or a new one; written where it changes.

    ``host``: the name by which the workers reach this machine; None: the machine's own, or, if it ``stays`` on the
    machine, that of before.
    """
    path = address_file(home)
    before = None
    if path.exists():
        with contextlib.suppress(sa.exc.ArgumentError, ValueError):
            before = sa.engine.make_url(read_address(path))
    url = sa.URL.create(
        "postgresql",
        ROLE,
        (before and before.password) or secrets.token_urlsafe(24),
        host or (before.host if stays and before else None) or socket.gethostname(),
        port or (before and before.port) or _free_port(),
        "postgres",
    )
    if url != before:
        _write(path, url.render_as_string(hide_password=False) + "\n")
    return url


def is_free(port: int) -> bool:
    """Whether a server can listen at the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def server_options(data_folder: Path, port: int) -> str:
    """Options of ``postgres`` that open it; the file of who may connect is written beside its data."""
    if not is_free(port):
        raise StorageError(
            f"the embedded Postgres was at port {port}, which something else on this machine has taken; end that, or "
            "give another: hpo server --port PORT"
        )
    hba = data_folder / "hpo_hba.conf"
    hba.write_text(HBA)
    hba.chmod(0o600)
    with contextlib.suppress(OSError):
        owner = data_folder.stat()
        shutil.chown(hba, owner.st_uid, owner.st_gid)
    # As words of a shell: pg_ctl hands the options to one.
    return f"-h '*' -c port={port} -c 'hba_file={hba}' -c password_encryption=scram-sha-256"


def make_role(socket_address: str, url: sa.URL) -> None:
    """Makes the role that workers connect as, with the password of the address."""
    assert url.password is not None
    engine = sa.create_engine(socket_address, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        exists = connection.execute(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": ROLE}).scalar()
        # A role's password is no parameter of a statement; ours has letters, digits, - and _ alone.
        quoted = url.password.replace("'", "''")
        connection.exec_driver_sql(f"{'ALTER' if exists else 'CREATE'} ROLE {ROLE} LOGIN PASSWORD '{quoted}'")
        connection.exec_driver_sql(RIGHTS)


def answers(host: str, port: int) -> bool:
    """Whether something listens there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), CONNECT_SECONDS):
        return True
    return False


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(aside, path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
