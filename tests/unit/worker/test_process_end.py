"""No process that a worker has started outlives it, whatever session it made for itself."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpo.machine import WORKER_ID_VARIABLE
from hpo.worker.process_end import MAX_RESTARTS, end_children

PARENT = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(120)"]
stubborn = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"]
children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True), subprocess.Popen(stubborn),
            subprocess.Popen(["sh", "-c", "sleep 121 & echo $! > " + sys.argv[1] + "; wait"], start_new_session=True)]
time.sleep(0.5)
print(*[child.pid for child in children], flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("how", ["killed", "alive"])
def test_children_in_any_session_end_and_others_do_not(how: str, tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    worker = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "grandchild")],
        env={**os.environ, WORKER_ID_VARIABLE: "12:ab"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert worker.stdout is not None
    pids = [int(word) for word in worker.stdout.readline().split()]
    pids.append(int((tmp_path / "grandchild").read_text()))
    if how == "killed":
        worker.kill()
        worker.wait()
    began = time.monotonic()
    assert end_children("12:ab", worker.pid) == len(pids)
    assert time.monotonic() - began < 5
    for pid in pids:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert bystander.poll() is None
    assert (worker.poll() is None) == (how == "alive")
    for process in (bystander, worker):
        process.kill()
        process.wait()
    worker.stdout.close()


def test_without_an_id_only_the_session_counts() -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    assert end_children("", 2**22 + 1) == 0
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


SUCCESSION = """
import os, sys
from hpo.worker import process_end
with open(sys.argv[1], "a") as file:
    print(os.getpid(), os.environ.get("HPO_WORKER_ID"), file=file)
process_end.Progress.made = os.environ.get("MADE") == "1" and sum(1 for _ in open(sys.argv[1])) < 15
process_end.leave(int(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("made", "code", "lives"),
    [
        ("0", 75, MAX_RESTARTS + 1),
        ("1", 75, 15 + MAX_RESTARTS),
        ("0", 71, MAX_RESTARTS + 1),
        ("0", 1, 1),
        ("1", 130, 1),
    ],
)
def test_a_worker_follows_in_the_same_process(made: str, code: int, lives: int, tmp_path: Path) -> None:
    """Through a package called ``hpo`` whose main program is the one above."""
    (tmp_path / "fake.py").write_text(SUCCESSION)
    program = (
        "import os, sys, runpy\n"
        "from hpo.worker import process_end\n"
        "real = os.execve\n"
        "def execve(path, words, environment):\n"
        "    assert words[1:4] == ['-P', '-m', 'hpo'], words\n"
        "    real(path, [path, *sys.orig_argv[1:]], environment)\n"
        "os.execve = execve\n"
        f"sys.argv = ['fake', {str(tmp_path / 'log')!r}, '{code}']\n"
        f"runpy.run_path({str(tmp_path / 'fake.py')!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HPO_SUPERVISE": "1", "MADE": made, WORKER_ID_VARIABLE: "1:a"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len(rows) == lives, done.stderr
    assert len({pid for pid, _ in rows}) == 1
    assert len({worker_id for _, worker_id in rows}) == lives
