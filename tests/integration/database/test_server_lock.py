"""One home, one server: from other processes, process id namespaces (containers) and, made up, other machines."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hpo.database.server_lock import SILENCE_SECONDS, ServerLock, ServerRecord
from hpo.errors import StorageError

REPOSITORY = Path(__file__).parents[3]
# Opens the storage, prints when the server was started, then obeys: "again" asks once more, the end of input ends it.
USER = """
import sys
from pathlib import Path
import sqlalchemy as sa
from hpo.database.retrying import persistently
from hpo.database.storage import open_storage
from hpo.errors import HPOError
def started():
    with storage.engine.connect() as connection:
        return connection.execute(sa.text("SELECT pg_postmaster_start_time()::text")).scalar()
try:
    storage = open_storage(home=Path(sys.argv[1]))
    print(started(), flush=True)
    for line in sys.stdin:
        print(persistently(started), flush=True)
except HPOError as error:
    print(f"refused: {error}", flush=True)
"""
CONTAINER = ["unshare", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child"]


def can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*CONTAINER, "true"], capture_output=True).returncode == 0
    )


in_container = pytest.mark.skipif(not can_unshare(), reason="needs the right to make namespaces")


class User:
    """A process that uses the server of a home."""

    def __init__(self, home: Path, *prefix: str) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", USER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={name: value for name, value in os.environ.items() if name != "HPO_STORAGE"},
        )
        assert self.process.stdout is not None
        self.answer = self.process.stdout.readline().strip()

    def ask(self) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.communicate(timeout=60)


@contextlib.contextmanager
def user(home: Path, *prefix: str) -> Iterator[User]:
    made = User(home, *prefix)
    try:
        yield made
    finally:
        made.end()


def server(home: Path) -> psutil.Process:
    """The server, by its data folder: its own number may be that of another namespace."""
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [])[1:3] == ["-D", str(home / "postgres")]:
            return process
    raise AssertionError("no server runs")


def starts(home: Path) -> int:
    return (home / "postgres" / "log").read_text().count("starting PostgreSQL")


@in_container
def test_a_second_container_uses_the_server_of_the_first(home: Path) -> None:
    with user(home, *CONTAINER) as first:
        for _ in range(2):
            with user(home, *CONTAINER) as second:
                assert second.answer == first.answer
        assert first.ask() == first.answer
        with user(home) as outside:
            assert outside.answer == first.answer
        assert first.ask() == first.answer
    assert starts(home) == 1


@in_container
def test_who_stays_starts_it_again_when_the_container_of_the_server_ends(home: Path) -> None:
    with user(home, *CONTAINER) as first, user(home, *CONTAINER) as second:
        assert second.answer == first.answer
        first.end()
        again = second.ask()
        assert again
        assert again != first.answer
        with user(home) as third:
            assert third.answer == again
    assert starts(home) == 2


@in_container
def test_the_last_user_stops_a_server_of_another_namespace(home: Path) -> None:
    """By the server's own shell: the number of its process means something else here."""
    with user(home) as outside:
        process = server(home)
        inside = User(home, *CONTAINER)
        assert inside.answer == outside.answer
        outside.process.kill()
        outside.process.wait()
        assert process.is_running()
        inside.end()
        process.wait(30)
    assert not ServerLock(home).is_running()


@pytest.mark.parametrize("whole", [False, True], ids=["the server alone", "all its processes"])
def test_a_server_that_was_killed_is_started_again_by_who_uses_it(home: Path, whole: bool) -> None:
    with user(home) as first, user(home) as second:
        process = server(home)
        children = process.children() if whole else []
        process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        # The connections' processes end a moment after the server.
        deadline = time.monotonic() + 30
        while ServerLock(home).is_running():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        answers = {second.ask(), first.ask()}
        assert len(answers) == 1
        assert first.answer not in answers
        assert starts(home) == 2


def test_a_process_id_that_is_somebody_elses_today_does_not_keep_it_from_starting(home: Path) -> None:
    with user(home) as first:
        process = server(home)
        first.process.kill()
        process.kill()
        process.wait(30)
        time.sleep(0.5)
    file = home / "postgres" / "postmaster.pid"
    lines = file.read_text().splitlines()
    # As after a reboot, or in the next container: the number belongs to a program of ours.
    file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    with user(home) as second:
        assert second.answer[:2] == "20"


class TestAnotherMachine:
    """A home on a file system that keeps its locks to one machine: the record is all that is seen of the other."""

    def record(self, home: Path) -> ServerRecord:
        home.mkdir(exist_ok=True)
        there = dataclasses.replace(
            ServerRecord.here(4711, str(home / "postgres")), host="node-7", machine="another", namespace="pid:[7]"
        )
        ServerLock(home).write(there)
        return there

    def test_its_server_is_left_alone(self, home: Path) -> None:
        self.record(home)
        with user(home) as refused:
            assert refused.answer.startswith(f"refused: the embedded Postgres of {home} runs on node-7, seen ")
            assert "HPO_STORAGE=postgresql://user:password@host/database" in refused.answer
        assert not (home / "postgres").exists()
        assert json.loads((home / "postgres.json").read_text())["host"] == "node-7"

    def test_it_is_taken_over_after_a_silence(self, home: Path) -> None:
        self.record(home)
        long_ago = time.time() - SILENCE_SECONDS - 1
        os.utime(home / "postgres.json", (long_ago, long_ago))
        with user(home) as heir:
            assert heir.answer[:2] == "20"
            assert ServerLock(home).read().is_in_this_namespace
        assert ServerLock(home).read() is None

    def test_a_lock_that_is_seen_and_a_server_that_is_not(self, home: Path) -> None:
        self.record(home)
        lock = ServerLock(home)
        long_ago = time.time() - SILENCE_SECONDS - 1
        os.utime(home / "postgres.json", (long_ago, long_ago))
        held = lock.claim()
        assert held is not None
        with user(home) as refused:
            assert refused.answer.startswith(f"refused: the embedded Postgres of {home} runs on node-7, and only")
        os.close(held)


def test_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    first, second = ServerLock(tmp_path), ServerLock(tmp_path)
    held = first.claim()
    assert held is not None
    assert second.claim() is None
    assert second.is_running()
    os.close(held)
    assert not second.is_running()


def test_users_are_counted_by_locks(tmp_path: Path) -> None:
    first, second = ServerLock(tmp_path), ServerLock(tmp_path)
    first.use()
    second.use()
    with first.starting():
        assert not first.leave()
    with second.starting():
        assert second.leave()


def test_a_home_that_cannot_be_locked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be locked"):
        ServerLock(tmp_path / "absent").claim()
