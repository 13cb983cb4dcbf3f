"""Programs as trials, as real processes: how each of them ends, and that nothing of it is left."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from hpo.trainers.errors import Infeasible
from hpo.trainers.process_guard import later_than, num_forks, processes_of
from hpo.trainers.program import ProgramOptions, ProgramTrainer
from hpo.trainers.protocol import Ended, EpochEnd, Event, Failed, Run
from hpo.trainers.trial_log import LIMIT_BYTES

HEADER = "import json, os, signal, subprocess, sys, time\n"


class Trial:
    """One run of a Python program, given as its text."""

    def __init__(self, folder: Path, code: str = "", **options: Any) -> None:
        self.program = folder / "program.py"
        self.program.write_text(HEADER + textwrap.dedent(code))
        self.folder = folder / "trial"
        self.values: dict[str, Any] = options.pop("values", {})
        self.run = Run(seed=3, trial=5, study="e/tpe/0", experiment="e", **options.pop("run", {}))
        if self.run.trial_folder is None:
            self.run.trial_folder = self.folder
        command = options.pop("command", [sys.executable, str(self.program)])
        self.trainer = ProgramTrainer(ProgramOptions(command=tuple(command), objective="acc", **options))
        self.trainer.start("a", self.values, self.run)

    def all(self) -> list[Event]:
        events: list[Event] = []
        while found := self.trainer.advance():
            events += found
        assert self.left_over() == []
        return events

    def left_over(self) -> list[int]:
        return processes_of(f"HPO_FOLDER={self.folder}")

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")


def epochs(events: list[Event]) -> list[tuple[int, dict[str, float | None]]]:
    return [(event.epoch, dict(event.metrics)) for event in events if isinstance(event, EpochEnd)]


def error_of(events: list[Event]) -> str:
    assert isinstance(events[-1], Failed), events
    return str(events[-1].error)


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Where metrics come from.


def test_hpo_report_json_lines_and_the_file(tmp_path: Path):
    code = """
    import hpo
    hpo.report(acc=0.1, loss=2, epoch=1)
    print('{"acc": 0.2, "epoch": 2}')
    time.sleep(0.2)
    with open(os.environ["HPO_METRICS"], "a") as file:
        file.write('{"acc": 0.3}')
    """
    events = Trial(tmp_path, code).all()
    assert sorted(epochs(events)[:2]) == epochs(events)[:2]
    assert (3, {"acc": 0.3}) in epochs(events)
    assert events[-1] == Ended("a")


def test_an_expression(tmp_path: Path):
    code = "for e in range(3): print(f'epoch {e + 1}: acc = 0.{e}', file=sys.stderr)"
    events = Trial(tmp_path, code, metrics={"acc": r"acc = (\S+)", "epoch": r"epoch (\d+)"}).all()
    assert epochs(events) == [(1, {"acc": 0.0}), (2, {"acc": 0.1}), (3, {"acc": 0.2})]


def test_what_a_program_is_given(tmp_path: Path):
    code = """
    names = ["TRIAL", "STUDY", "EXPERIMENT", "SEED", "FOLDER", "CHECKPOINT_DIR"]
    print(json.dumps({name: os.environ["HPO_" + name] for name in names}))
    print(sys.argv[1:], json.load(open(os.environ["HPO_PARAMS"])), "HPO_STORAGE" in os.environ)
    assert os.path.isdir(os.environ["HPO_CHECKPOINT_DIR"]) and not sys.stdin.read()
    print('{"acc": 1}')
    """
    os.environ["HPO_STORAGE"] = "postgresql://user:secret@host/db"
    try:
        trial = Trial(tmp_path, code, values={"lr": 0.1, "model.width": 8})
        trial.all()
    finally:
        del os.environ["HPO_STORAGE"]
    assert '"TRIAL": "5", "STUDY": "e/tpe/0", "EXPERIMENT": "e", "SEED": "3"' in trial.log
    assert "['--lr=0.1', '--model.width=8'] {'lr': 0.1, 'model.width': 8} False" in trial.log


def test_outside_of_a_trial_report_does_nothing(tmp_path: Path):
    code = (
        "import sys, hpo; hpo.report(acc=1, epoch=2); assert hpo.should_stop() is False\n"
        "assert not {'torch', 'optuna', 'pydantic', 'sqlalchemy'} & set(sys.modules), sys.modules\n"
        "try: hpo.report(acc='high')\nexcept TypeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "hpo.report: acc = 'high' is text; a number was expected\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_rank_0_reports(tmp_path: Path):
    code = """
    import hpo
    for rank in ("1", "0", "2"):
        os.environ["RANK"] = rank
        hpo.report(acc=float(rank))
    """
    assert epochs(Trial(tmp_path, code).all()) == [(1, {"acc": 0.0})]


# How it ends.


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('hello')", "ended with exit code 0, but it never reported 'acc'"),
        ("print('accuracy: 0.9')", "the nearest lines: accuracy: 0.9"),
        ("print('{\"acc\": 1}'); sys.exit(1)", "the program ended with exit code 1"),
        ("raise ValueError('broken')", "ValueError: broken"),
        ("os.kill(os.getpid(), 9)", "the program was ended by SIGKILL; it wrote nothing"),
        ("input('your name? ')", "EOFError"),
        ("import hpo; hpo.report(acc='high')", "acc = 'high' is text"),
        ('print(\'{"acc": "high"}\')', "it never reported 'acc'"),
        ("print('{\"acc\": 0.')", "it never reported 'acc'"),
    ],
)
def test_a_program_that_fails(code: str, expected: str, tmp_path: Path):
    assert expected in error_of(Trial(tmp_path, code).all())


def test_a_report_before_the_failure_is_kept(tmp_path: Path):
    events = Trial(tmp_path, "print('{\"acc\": 1}'); sys.exit(1)").all()
    assert epochs(events) == [(1, {"acc": 1.0})]


def test_a_command_that_is_not_there(tmp_path: Path):
    text = error_of(Trial(tmp_path, command=["no-such-program-anywhere"]).all())
    assert text == "the command 'no-such-program-anywhere' cannot be started: No such file or directory"
    plain = tmp_path / "plain.txt"
    plain.write_text("no program")
    assert "cannot be started: Permission denied" in error_of(Trial(tmp_path, command=[str(plain)]).all())
    plain.chmod(0o755)
    assert "cannot be started: Exec format error" in error_of(Trial(tmp_path, command=[str(plain)]).all())


def test_ten_megabytes_without_a_newline_and_bytes_that_are_no_text(tmp_path: Path):
    code = r"""
    sys.stdout.buffer.write(b"\xff\xfe\x00" + b"x" * 10_000_000 + b'\n{"acc": 0.5}\n')
    """
    trial = Trial(tmp_path, code)
    assert epochs(trial.all()) == [(1, {"acc": 0.5})]
    assert (trial.folder / "log.txt").stat().st_size <= LIMIT_BYTES
    assert "bytes left out" in trial.log


def test_odd_reports(tmp_path: Path):
    code = """
    for line in ('{"acc": 1, "epoch": 2}', '{"acc": 2, "epoch": 2}', '{"acc": 3, "epoch": 1}', '{"acc": Infinity}'):
        print(line)
    """
    trial = Trial(tmp_path, code)
    assert epochs(trial.all()) == [(2, {"acc": 1.0}), (3, {"acc": float("inf")})]
    assert "[hpo] a report of epoch 2 came after that of epoch 2; it is ignored" in trial.log


def test_children_in_the_background_end_with_their_program(tmp_path: Path):
    """In its process group, in a session of their own, and writing all the time."""
    code = """
    for session in (False, True):
        child = "import os\\nwhile True: os.write(1, b'child\\\\n')"  # whole lines, which both write at once
        subprocess.Popen([sys.executable, "-c", child], start_new_session=session)
    print('{"acc": 1}', flush=True)
    """
    trial = Trial(tmp_path, code)
    assert trial.all()[-1] == Ended("a")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import hpo; hpo.infeasible('does not fit')", "does not fit"),
        ("import hpo; os.environ['RANK'] = '1'; hpo.infeasible('rank 1 has no memory')", "rank 1 has no memory"),
        ("import hpo; raise hpo.Infeasible('too wide')", "too wide"),
        ('print(\'{"infeasible": "too wide"}\')', "too wide"),
        ('print(\'{"infeasible": "too wide"}\'); sys.exit(3)', "too wide"),
        ("print('{\"infeasible\": true}')", "the program says so"),
        ("open(os.environ['HPO_METRICS'], 'w').write('{\"infeasible\": \"half a line\"}')", "half a line"),
        ('print(\'{"infeasible": "it goes on"}\', flush=True); time.sleep(60)', "it goes on"),
    ],
)
def test_a_program_says_that_its_configuration_is_infeasible(code: str, reason: str, tmp_path: Path):
    trial = Trial(tmp_path, "print('{\"acc\": 1}', flush=True); time.sleep(0.1)\n" + code)
    events = trial.all()
    assert epochs(events) == [(1, {"acc": 1.0})]
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, Infeasible)
    assert events[-1].error.reason == reason
    assert f"[hpo] infeasible: {reason}" in trial.log


def test_what_is_not_infeasible(tmp_path: Path):
    code = """
    import hpo
    print('{"infeasible": 2, "acc": 1}')  # a metric of that name
    try:
        raise hpo.Infeasible("handled")
    except hpo.Infeasible as error:
        raise ValueError("another error") from error
    """
    assert "ValueError: another error" in error_of(Trial(tmp_path, code).all())


def test_which_processes_are_younger(tmp_path: Path):
    """Children are looked for among them alone; if numbers may have begun again, or nothing is known, among all."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, text=True) as old:
        forks = num_forks()
        assert forks is not None
        assert later_than(old.pid, forks) == old.pid
        mark = {"HPO_PROCESS": tmp_path.name}
        command = [sys.executable, "-S", "-c", "input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env={**os.environ, **mark}) as young:
            wait_for(lambda: processes_of(f"HPO_PROCESS={tmp_path.name}", old.pid) == [young.pid])
            assert processes_of(f"HPO_PROCESS={tmp_path.name}", young.pid) == []
            young.communicate("\n")
        old.communicate("\n")
    assert later_than(old.pid, forks - 10_000) == 0
    assert later_than(old.pid, None) == 0
    assert later_than(2**40, forks) == 0


def test_a_daemon_is_ended_with_its_program(tmp_path: Path):
    """Forked twice, in a session of its own, without the program's output: only its environment shows whose it is."""
    code = """
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    print('{"acc": 1}')
    """
    assert Trial(tmp_path, code).all()[-1] == Ended("a")


def test_a_window_opens_on_no_screen(tmp_path: Path):
    """Matplotlib draws into memory; a window of Tk's fails with its reason, and nothing waits for a person."""
    code = """
    import matplotlib.pyplot as plt
    plt.plot([1, 2])
    plt.show()
    print('{"acc": 1}')
    """
    assert Trial(tmp_path, code).all()[-1] == Ended("a")


# Being stopped.

SLEEPER = """
print('{"acc": 1}', flush=True)
time.sleep(60)
"""


def started(trial: Trial) -> Trial:
    """The trial after its first epoch."""
    assert epochs(trial.trainer.advance())[:1] == [(1, {"acc": 1.0})]
    return trial


def test_stop_ends_it(tmp_path: Path):
    trial = started(Trial(tmp_path, SLEEPER))
    before = time.monotonic()
    trial.trainer.stop("another")
    assert trial.left_over() != []
    trial.trainer.stop("a")
    assert time.monotonic() - before < 5
    assert trial.left_over() == []
    assert trial.trainer.advance() == []


def test_sigterm_ignored(tmp_path: Path):
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
    trial = started(Trial(tmp_path, code, stop_grace_seconds=0.3))
    trial.trainer.stop("a")
    assert trial.left_over() == []


def test_should_stop_lets_it_write_its_files(tmp_path: Path):
    code = """
    import hpo
    assert hpo.should_stop() is False
    print('{"acc": 1}', flush=True)
    while not hpo.should_stop():
        time.sleep(0.01)
    open(os.environ["HPO_FOLDER"] + "/written", "w").write("all of it")
    print("bye")
    """
    trial = started(Trial(tmp_path, code))
    trial.trainer.stop("a")
    assert (trial.folder / "written").read_text() == "all of it"
    assert trial.log.endswith("bye\n")


CHILDREN = """
import fcntl
lock = open(os.environ["HPO_FOLDER"] + "/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
for session in (False, True):
    subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[lock.fileno()], start_new_session=session
    )
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"acc": 1}', flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("end", ["sigkill", "os._exit"])
def test_nothing_outlives_the_worker(end: str, tmp_path: Path):
    """A program that ignores SIGTERM, with children that hold a lock: the worker dies without a word."""
    (tmp_path / "program.py").write_text(HEADER + CHILDREN)
    worker = f"""
import os, sys, time
from pathlib import Path
from hpo.trainers.program import ProgramOptions, ProgramTrainer
from hpo.trainers.protocol import Run
trainer = ProgramTrainer(ProgramOptions((sys.executable, {str(tmp_path / "program.py")!r}), "acc"))
trainer.start("a", {{}}, Run(trial_folder=Path({str(tmp_path / "trial")!r})))
trainer.advance()
print("ready", flush=True)
{"os._exit(75)" if end == "os._exit" else "time.sleep(60)"}
"""
    process = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if end == "sigkill":
        assert len(processes_of(f"HPO_FOLDER={tmp_path / 'trial'}")) == 3
        process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_for(lambda: processes_of(f"HPO_FOLDER={tmp_path / 'trial'}") == [], 5)
    import fcntl

    with (tmp_path / "trial" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_an_earlier_attempt_left_running_is_ended_first(tmp_path: Path):
    first = started(Trial(tmp_path, SLEEPER))
    (old,) = first.left_over()
    assert first.trainer._trial is not None
    second = started(Trial(tmp_path, SLEEPER, run={"attempt": 1}))
    (new,) = second.left_over()
    assert new != old
    assert Path(f"/proc/{old}/stat").read_text().split()[2] == "Z"
    # The first worker dies: what it has started is ended, not what has taken its place.
    first.trainer._guard.close()
    time.sleep(0.2)
    assert second.left_over() == [new]
    second.trainer.stop("a")
    assert "SIGKILL" in error_of(first.trainer.advance())


# Resuming.


def test_a_program_with_checkpoints_goes_on_where_it_was(tmp_path: Path):
    code = """
    path = os.environ["HPO_CHECKPOINT_DIR"] + "/epoch"
    start = int(open(path).read()) if os.path.exists(path) else 0
    for epoch in range(start + 1, 6):
        open(path, "w").write(str(epoch))
        print(json.dumps({"acc": epoch}), flush=True)
        if epoch == 3 and not start:
            time.sleep(60)
    """
    trial = Trial(tmp_path, code)
    events: list[Event] = []
    while len(events) < 3:
        events += trial.trainer.advance()
    first = next(event for event in events if isinstance(event, EpochEnd))
    assert first.snapshot is not None
    assert first.snapshot() == {"program_epoch": 1}
    trial.trainer.stop("a")
    again = Trial(tmp_path, code, run={"start_epoch": 3, "checkpoint": {"program_epoch": 3}, "attempt": 1})
    assert epochs(again.all()) == [(4, {"acc": 4.0}), (5, {"acc": 5.0})]
    finished = Trial(tmp_path, code, run={"start_epoch": 5, "checkpoint": {"program_epoch": 5}, "attempt": 2})
    assert finished.all() == [Ended("a")]


def test_a_program_without_checkpoints_starts_again(tmp_path: Path):
    code = "print('{\"acc\": 1}')"
    (event, _) = Trial(tmp_path, code).all()
    assert isinstance(event, EpochEnd)
    assert event.snapshot is None
    again = Trial(tmp_path, code, run={"start_epoch": 3, "attempt": 1})
    assert epochs(again.all()) == [(1, {"acc": 1.0})]


def test_in_the_trials_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    code = "open('here', 'w').close(); print('{\"acc\": 1}')"
    trial = Trial(tmp_path, code, command=[sys.executable, "program.py"], run={"work_in_folder": True})
    assert trial.all()[-1] == Ended("a")
    assert (trial.folder / "here").exists()


def test_a_slot_is_taken_once(tmp_path: Path):
    trial = started(Trial(tmp_path, SLEEPER))
    with pytest.raises(RuntimeError, match="the slot is taken"):
        trial.trainer.start("b", {}, Run())
    trial.trainer.stop("a")
