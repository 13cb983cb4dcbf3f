"""A real Postgres for the tests that want one: a server for the session, a database for each test, from a template."""

import itertools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import hpo.database.storage
from hpo.database.embedded import embedded_address


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> sa.URL:
    """The address of an embedded server's maintenance database."""
    home = tmp_path_factory.mktemp("server")
    address = sa.engine.make_url(embedded_address(home)).set(drivername="postgresql+psycopg2")
    # A test's database is gone with the test: nothing of it need survive a power cut.
    _execute(address, "ALTER SYSTEM SET fsync = off")
    _execute(address, "SELECT pg_reload_conf()")
    return address


@pytest.fixture(scope="session")
def template(server: sa.URL) -> sa.URL:
    """Makes the template database, with Optuna's tables and ours in it."""
    _execute(server, "CREATE DATABASE template_hpo")
    storage = hpo.database.storage.Storage(server.set(database="template_hpo").render_as_string(hide_password=False))
    storage.engine.dispose()
    return server


@pytest.fixture
def empty_database(server: sa.URL) -> Iterator[str]:
    """The address of a database without any tables."""
    yield from _database(server, "template1")


@pytest.fixture
def address(template: sa.URL) -> Iterator[str]:
    """The address of a fresh database with all tables."""
    yield from _database(template, "template_hpo")


@pytest.fixture
def storage(address: str) -> Iterator[hpo.database.storage.Storage]:
    """A storage on a fresh database."""
    opened = hpo.database.storage.Storage(address)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``HPO_HOME`` of the test's own, and none of the other variables that a person may have set."""
    for name in [name for name in os.environ if name.startswith("HPO_") and name != "HPO_TEST_DATA"]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("HPO_HOME", str(folder))
    return folder


@pytest.fixture
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server that speaks S3, which AWS's variables name for this process and those that it starts."""
    moto_server = pytest.importorskip("moto.server", reason="a development dependency: moto[server]")
    s3fs = pytest.importorskip("s3fs", reason="a development dependency: s3fs")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield server
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def bucket(object_store: Any) -> str:
    """The address of a folder in an empty bucket."""
    import s3fs

    name = f"hpo-{uuid.uuid4()}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}/folder"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the published MNIST and CIFAR-10; skips where it is absent."""
    folder = Path(os.environ.get("HPO_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "MNIST").is_dir():
        pytest.skip(f"no MNIST in {folder}: name the folder with HPO_TEST_DATA")
    return folder


_numbers = itertools.count()


def _database(server: sa.URL, template: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.set(database=name).render_as_string(hide_password=False)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(server: sa.URL, statement: str) -> None:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
