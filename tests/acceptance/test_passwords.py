"""A database password with every printable character: as an address, as PGPASSWORD, and never printed."""

import string
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from benchmarks.postgres_server import PostgresServer

from .conftest import Hpo

PASSWORD = string.digits + string.ascii_letters + string.punctuation + " "


@pytest.mark.parametrize("way", ["address", "PGPASSWORD"])
def test_every_printable_character(tcp: PostgresServer, hpo_command: Hpo, study: Callable[..., Path], way: str) -> None:
    connection = psycopg2.connect(tcp.address)
    connection.autocommit = True
    connection.cursor().execute("ALTER ROLE hpo PASSWORD %s", (PASSWORD,))
    connection.close()
    place = f"127.0.0.1:{tcp.port}/hpo"
    if way == "address":
        variables = {"HPO_STORAGE": f"postgresql://hpo:{urllib.parse.quote(PASSWORD, safe='')}@{place}"}
    else:
        variables = {"HPO_STORAGE": f"postgresql://hpo@{place}", "PGPASSWORD": PASSWORD}
    file = study(samplers='["random"]', budget="trials = 2", epochs=2)
    done = hpo_command("launch", str(file), "--workers", "1", "--gpus", "none", **variables)
    assert done.returncode == 0, done.stderr
    shown = hpo_command("status", "sleepy", **variables)
    assert shown.returncode == 0, shown.stderr
    for text in (done.stdout, done.stderr, shown.stdout, shown.stderr):
        assert PASSWORD not in text
        assert urllib.parse.quote(PASSWORD, safe="") not in text
