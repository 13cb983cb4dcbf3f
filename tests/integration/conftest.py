"""A server that a test may stop and start again, beside the one that all tests share."""

from collections.abc import Iterator

import pytest

from benchmarks.postgres_server import PostgresServer
from hpo.database.storage import Storage


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("stoppable") / "data", "fsync=off") as server:
        yield server


@pytest.fixture
def stoppable(own_server: PostgresServer) -> Iterator[PostgresServer]:
    """Runs when the test begins and when it ends."""
    yield own_server
    own_server.stop()
    own_server.start()


@pytest.fixture
def stoppable_storage(stoppable: PostgresServer) -> Iterator[Storage]:
    opened = Storage(stoppable.address.replace("postgresql:", "postgresql+psycopg2:"))
    yield opened
    opened.engine.dispose()
