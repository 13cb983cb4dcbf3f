"""Trainers that misbehave in every way that we could think of: each harms its own trial, and the record says how.

Each experiment here is a grid over the faults with well-behaved trials between them, in one worker, which is harder
than many: whatever a fault breaks is what the next trial has to train in.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.database.storage import open_storage

from .conftest import Hpo

TRAINER = """
import os, resource, sys, time
from collections.abc import Iterator
from pathlib import Path

import hpo

FAULTS = {faults!r}
LEAKED = []


class Config(hpo.Config):
    index: int
    epochs: int = 3


@hpo.trainer("bad", metrics={{"value": "maximize"}})
def bad(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    fault = FAULTS[config.index]
    for epoch in range(run.start_epoch + 1, config.epochs + 1):
        run.save({{"epoch": epoch}})
        if epoch == 2:
            yield from misbehave(fault, run)
        try:
            yield {{"value": config.index + epoch / 10}}
        finally:
            if fault == "cleanup" and epoch == config.epochs:
                raise OSError("cannot tidy up")


def misbehave(fault, run):
    global LEAKED
    if fault == "raises":
        raise ValueError("no such luck")
    if fault == "raises once" and not run.checkpoint:
        raise ValueError("just this time")
    if fault == "raises binary":
        raise ValueError("a NUL \\0 and half a character \\udcff" + "x" * 10_000)
    if fault == "raises without words":
        raise type("Mute", (Exception,), {{"__str__": lambda self: 1 / 0}})
    if fault == "exits":
        sys.exit(0)
    if fault == "another key":
        yield {{"other": 1.0}}
    if fault == "nothing at all":
        yield {{}}
    if fault == "no mapping":
        yield 0.5
    if fault == "a string":
        yield {{"value": "high"}}
    if fault == "none":
        yield {{"value": None}}
    if fault in ("nan", "inf", "-inf"):
        yield {{"value": float(fault)}}
    if fault == "nan beside it":
        yield {{"value": 0.5, "grad_norm": float("nan")}}
    if fault == "prints":
        os.write(1, bytes(range(256)) * 40_960)
        sys.stdout.write("x" * 1_000_000)
    if fault == "closes":
        os.close(1)
        os.close(2)
    if fault == "closes streams":
        sys.stdout.close()
        sys.stderr.close()
    if fault.startswith("was closed"):
        print("printed after closing", flush=True)
        print("complained after closing", file=sys.stderr, flush=True)
    if fault == "unsavable":
        run.save({{"function": misbehave}})
    if fault == "artifact":
        Path("soon-gone.txt").write_text("x")
        run.artifact("soon-gone.txt")
        os.unlink("soon-gone.txt")
    if fault == "ends with 3":
        os.write(2, b"\\xff\\x00 last words \\x1b[31m\\n")
        os._exit(3)
    if fault in ("ends with 0", "ends with 1"):
        os._exit(int(fault[-1]))
    if fault == "hangs":
        while True:
            time.sleep(60)
    if fault == "leaks":
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 128 * 2**20, resource.RLIM_INFINITY))
        while True:
            LEAKED.append(bytearray(2**22))
"""

STUDY = """
name = "bad"
trainer = "bad"
metric = "value"
samplers = ["grid"]
budget = {{ trials = {trials} }}
max_retries = 1
epoch_timeout_seconds = 3
[space]
index = {{ low = 0, high = {last}, grid = true }}
"""

Launch = Callable[..., "Outcome"]


class Outcome:
    """What came of a launch: its exit code and output, the status, the attempts at each trial by its fault."""

    def __init__(self, faults: list[str], done: Any, status: dict[str, Any], attempts: dict[int, list[FrozenTrial]]):
        self.code, self.output = done.returncode, done.stdout + done.stderr
        self.states: dict[str, int] = status["studies"][0]["states"]
        self.num_attempts = {fault: len(attempts[index]) for index, fault in enumerate(faults) if index in attempts}
        self.last = {fault: attempts[index][-1] for index, fault in enumerate(faults) if index in attempts}
        self.faults = faults
        self._attempts = attempts

    def reason(self, fault: str, attempt: int = -1) -> str:
        return str(self._attempts[self.faults.index(fault)][attempt].user_attrs["reason"])

    def assert_the_others_unharmed(self) -> None:
        """Every well-behaved trial is complete with the value that it computes."""
        fine = [index for index, fault in enumerate(self.faults) if fault == "fine"]
        assert len(fine) > 3
        for index in fine:
            last = self._attempts[index][-1]
            assert last.state is TrialState.COMPLETE, last.user_attrs.get("reason")
            assert last.value == index + 3 / 10
            assert last.intermediate_values == {epoch: index + epoch / 10 for epoch in (1, 2, 3)}


@pytest.fixture
def launch(hpo_command: Hpo, tmp_path: Path, home: Path) -> Launch:
    """Runs a grid over the faults, with a well-behaved trial after each of them where ``fine``."""

    def run(*faults: str, fine: bool = True, options: tuple[str, ...] = ()) -> Outcome:
        listed = [item for fault in faults for item in ((fault, "fine") if fine else (fault,))]
        (tmp_path / "bad.py").write_text(TRAINER.format(faults=listed))
        (tmp_path / "bad.toml").write_text(STUDY.format(trials=len(listed), last=len(listed) - 1))
        options = ("--workers", "1", "--heartbeat-seconds", "0.2", *options)
        done = hpo_command("launch", "bad.toml", "--trainers", "bad", *options)
        status = json.loads(hpo_command("status", "bad", "--json", "--trainers", "bad").stdout)
        storage = open_storage(home=home)
        attempts: dict[int, list[FrozenTrial]] = {}
        for trial in storage.get_all_trials(storage.get_study_id_from_name("bad/grid/0")):
            attempts.setdefault(trial.user_attrs["lineage"], []).append(trial)
        storage.engine.dispose()
        return Outcome(listed, done, status, attempts)

    return run


def test_faults_within_the_process(launch: Launch, home: Path) -> None:
    fail = {
        "raises": "ValueError: no such luck",
        "raises binary": "ValueError: a NUL \\x00 and half a character \\udcff",
        "raises without words": "Mute: (its message cannot be shown: ZeroDivisionError)",
        "exits": "SystemExit: 0",
        "no mapping": "TypeError: 'float' object is not iterable",
        "a string": "TypeError: the trainer yields 'high' as 'value'; a number was expected",
        "unsavable": "TypeError: the state['function'] is a builtins.function; a checkpoint holds dicts, lists,",
    }
    prune = {
        "nan": "value is nan at epoch 2",
        "inf": "value is inf at epoch 2",
        "-inf": "value is -inf at epoch 2",
    }
    complete = [
        "another key",
        "nothing at all",
        "none",
        "raises once",
        "nan beside it",
        "prints",
        "closes",
        "was closed",
        "closes streams",
        "was closed again",
        "artifact",
        "cleanup",
    ]
    outcome = launch(*fail, *prune, *complete)
    assert outcome.states == {
        "complete": len(complete) + len(outcome.faults) // 2,
        "pruned": len(prune),
        "failed": len(fail),
        "running": 0,
        "waiting": 0,
    }
    outcome.assert_the_others_unharmed()
    # The same worker from the first trial to the last: nothing of all this ended it.
    assert len({trial.user_attrs["worker"] for trial in outcome.last.values()}) == 1
    for fault, reason in fail.items():
        assert outcome.last[fault].state is TrialState.FAIL
        assert outcome.reason(fault).startswith(reason)
        assert len(outcome.reason(fault)) < 2100
        # Twice with the same error, from the checkpoint of the first epoch; not a third time.
        assert outcome.num_attempts[fault] == 2
        assert outcome.last[fault].user_attrs["start_epoch"] == 1
    for fault, reason in prune.items():
        assert outcome.last[fault].state is TrialState.PRUNED
        assert (outcome.reason(fault), outcome.num_attempts[fault]) == (reason, 1)
    for fault in complete:
        assert outcome.last[fault].state is TrialState.COMPLETE
        assert outcome.num_attempts[fault] == (2 if fault in ("raises once", "cleanup") else 1), fault
    assert outcome.reason("raises once", 0) == "ValueError: just this time"
    assert outcome.last["raises once"].user_attrs["start_epoch"] == 1

    (log,) = home.glob("logs/*.log")
    written = log.read_bytes()
    assert bytes(range(256)) * 40_960 in written
    # Standard output and error are there again for the trials after the ones that closed them, and so is the log.
    assert written.count(b"printed after closing\n") == written.count(b"complained after closing\n") == 2
    assert b"soon-gone.txt is not attached to trial" in written
    assert outcome.reason("cleanup", 0) == "OSError: cannot tidy up"


def test_faults_that_end_the_process(launch: Launch) -> None:
    faults = ("ends with 3", "ends with 0", "ends with 1", "hangs", "leaks")
    outcome = launch(*faults, options=("--max-restarts", "6"))
    assert outcome.states == {"complete": 5, "pruned": 0, "failed": 4, "running": 0, "waiting": 0}, outcome.output
    outcome.assert_the_others_unharmed()
    for fault in faults:
        assert outcome.last[fault].user_attrs["start_epoch"] == 1
    for code in "301":
        fault = f"ends with {code}"
        worker = outcome.last[fault].user_attrs["worker"]
        assert outcome.reason(fault) == f"its worker {worker} ended with exit code {code}"
        # The attempt that moved on is not counted; its last report may be lost with its process, and count later.
        assert outcome.num_attempts[fault] in (3, 4)
        assert outcome.output.count(f"ended with exit code {code}; another takes") == outcome.num_attempts[fault]
    assert r"\xff\x00 last words \x1b[31m" in outcome.output
    assert outcome.reason("hangs") == "an epoch took longer than epoch_timeout_seconds = 3"
    assert outcome.num_attempts["hangs"] == 2
    assert outcome.reason("leaks") == "infeasible: MemoryError: "
    assert outcome.last["leaks"].state is TrialState.PRUNED
    assert outcome.num_attempts["leaks"] == 2
    # Two after the hung epochs, two after the leaks; these do not count as deaths.
    assert outcome.output.count("asked to be replaced") == 4


def test_a_trainer_that_always_raises_ends_the_run(launch: Launch) -> None:
    outcome = launch(*["raises"] * 8, fine=False)
    assert outcome.code == 1
    assert "5 trials failed and none has succeeded; the last one: ValueError: no such luck" in outcome.output
    assert (outcome.states["complete"], outcome.states["running"], outcome.states["failed"]) == (0, 0, 5)


def test_a_trainer_that_always_leaks_ends_the_run(launch: Launch) -> None:
    outcome = launch(*["leaks"] * 8, fine=False)
    assert outcome.code == 1
    assert "5 trials failed and none has succeeded; the last one: infeasible: MemoryError" in outcome.output
    assert outcome.states["complete"] == outcome.states["running"] == 0
