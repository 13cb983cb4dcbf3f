"""The embedded server on TCP: who may connect, and who starts it again; another machine is a namespace of its own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from hpo.database.address import served_settings
from hpo.database.served import address_file
from hpo.errors import UsageError
from hpo.settings import Settings

from .test_server_lock import REPOSITORY, server, user

# With another boot id the processes take themselves for ones on another machine, and the socket is not theirs.
ELSEWHERE = ["unshare", "--mount", "sh", "-c"]
MOUNT = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'


def another_machine(folder: Path) -> list[str]:
    """What stands before a command that is to run on another machine."""
    folder.mkdir(exist_ok=True)
    boot_id = folder / "boot_id"
    boot_id.write_text("another\n")
    prefix = [*ELSEWHERE, MOUNT, str(boot_id)]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount in a namespace")
    return prefix


@contextlib.contextmanager
def served(home: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "hpo", "server", "--json", "--home", str(home), *options],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        answer = json.loads(process.stdout.readline())
        assert answer["file"] == str(address_file(home))
        assert ":***@" in answer["address"]
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def url_of(home: Path) -> sa.URL:
    return sa.engine.make_url(address_file(home).read_text().strip()).set(drivername="postgresql+psycopg2")


def refusal(url: sa.URL) -> str:
    with pytest.raises(sa.exc.OperationalError) as caught:
        sa.create_engine(url, poolclass=sa.NullPool).connect()
    return str(caught.value)


def listening(process: psutil.Process) -> list[str]:
    return [one.laddr.ip for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]


def test_nobody_without_the_password(home: Path) -> None:
    with served(home, "--host", "127.0.0.1"):
        url = url_of(home)
        assert url.password is not None
        assert len(url.password) >= 32
        assert address_file(home).stat().st_mode & 0o777 == 0o600
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM trials")).scalar() == 0
            assert connection.execute(sa.text("SELECT rolsuper FROM pg_roles WHERE rolname = user")).scalar() is False
        assert "password authentication failed" in refusal(url.set(password="wrong"))
        # The server's own role has no password, and none helps.
        assert "rejects connection" in refusal(url.set(username="postgres"))
        assert url.password not in " ".join(" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))
    # Who comes next without the option opens nothing, at a home that was served before.
    with user(home) as alone:
        assert alone.answer[:2] == "20"
        assert listening(server(home)) == []


def test_a_server_that_runs_without_is_opened_under_its_users(home: Path) -> None:
    with user(home) as before:
        assert listening(server(home)) == []
        with served(home):
            assert listening(server(home)) != []
            assert before.ask() > before.answer
        assert before.ask()[:2] == "20"


def test_a_worker_elsewhere_and_one_that_starts_it_again(home: Path, tmp_path: Path) -> None:
    prefix = another_machine(tmp_path / "there")
    with served(home, "--host", "127.0.0.1") as starter:
        port = url_of(home).port
        with user(home) as here, user(home, *prefix) as there:
            assert here.answer == there.answer
            # The starter's job ends with all that it has started: nobody stops the server in an orderly way.
            starter.kill()
            starter.communicate()
            process = server(home)
            for one in [process, *process.children(recursive=True)]:
                one.send_signal(signal.SIGKILL)
            psutil.wait_procs([process], 20)
            assert there.process.stdin is not None
            there.process.stdin.write("again\n")
            there.process.stdin.flush()
            time.sleep(1)
            # Only a process of its machine starts it, and it is where it was.
            with contextlib.suppress(psutil.NoSuchProcess, AssertionError):
                assert not server(home).is_running()
            again = here.ask()
            assert again > here.answer
            assert there.process.stdout is not None
            assert there.process.stdout.readline().strip() == again
            assert url_of(home).port == port


def test_the_file_as_an_address(home: Path) -> None:
    with served(home, "--host", "127.0.0.1"):
        done = _status(f"file:{address_file(home)}")
        assert done.returncode == 0, done.stderr
        assert "no experiment yet" in done.stdout
        address_file(home).chmod(0o644)
        done = _status(f"file:{address_file(home)}")
        assert done.returncode == UsageError.exit_code
        assert f"others than its owner can read it: chmod 600 {address_file(home)}" in done.stderr
        address_file(home).chmod(0o600)
    done = _status("file:/nowhere/at-all")
    assert done.returncode == UsageError.exit_code
    assert "cannot be read from /nowhere/at-all: No such file or directory; hpo server writes it" in done.stderr


def test_a_port_that_is_taken(home: Path) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "hpo", "server", "--home", str(home), "--port", str(port)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert f"port {port}, which something else on this machine has taken" in done.stderr
    assert "hpo server --port PORT" in done.stderr


def _status(storage: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hpo", "status"],
        env={**os.environ, "HPO_STORAGE": storage},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_not_beside_another_database() -> None:
    with pytest.raises(
        UsageError, match=r"--serve opens the embedded server, and the storage is postgresql://me:\*\*\*@"
    ):
        served_settings(Settings(storage="postgresql://me:secret@host/database"))
