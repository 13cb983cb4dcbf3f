"""Everything is killed, stopped, cut and restarted while an experiment runs; then the record is checked, row by row.

200 TPE trials and a 60-cell grid on Postgres with 8 workers and a trainer of 10 epochs of 50 ms that checkpoints.
Faults come at seeded points of progress, so all of them fall within the run: SIGKILLs of workers, SIGSTOPs longer than
the grace period and then SIGCONT, Postgres restarted (once by SIGKILL, once down for a minute), connections cut,
SIGKILLs of the launcher followed by a relaunch. The trainer's own log says what really happened.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from benchmarks.chaos_record import Row, as_text, check
from benchmarks.postgres_server import PostgresServer

STUDY = """
name = "chaos"
trainer = "sleeping"
metric = "value"
samplers = ["grid", "tpe"]
budget = {{ trials = {trials} }}
max_retries = 1000
[fixed]
epochs = {epochs}
epoch_seconds = 0.05
[space]
lr = {{ low = 1e-3, high = 1.0, log = true, grid = {lr_points} }}
beta = {{ low = 0.8, high = 0.99, grid = {beta_points} }}
width_1 = {{ low = 256, high = 1024 }}
width_2 = {{ low = 64, high = 256 }}
weight_decay = {{ low = 1e-6, high = 1e-2, log = true }}
batch_size = [32, 64, 128, 256]
scheduler = ["constant", "step", "cosine"]
"""


@dataclass(frozen=True)
class Plan:
    """How big the run is and how much goes wrong in it."""

    trials: int = 200
    lr_points: int = 10
    beta_points: int = 6
    epochs: int = 10
    workers: int = 8
    kills: int = 100
    stops: int = 10
    restarts: int = 5
    down_seconds: float = 60.0
    cuts: int = 10
    launcher_kills: int = 2
    grace_seconds: float = 6.0
    seed: int = 0

    @property
    def cells(self) -> int:
        return self.lr_points * self.beta_points

    @property
    def total_epochs(self) -> int:
        return (self.trials + self.cells) * self.epochs


class Run:
    """One chaotic run: starts, disturbs, waits, checks."""

    def __init__(self, plan: Plan, folder: Path, server: PostgresServer) -> None:
        self.plan = plan
        self.folder = folder
        self.server = server
        self.random = random.Random(plan.seed)
        self.log = folder / "trainer.log"
        self.log.touch()
        self.study_file = folder / "chaos.toml"
        self.study_file.write_text(
            STUDY.format(trials=plan.trials, epochs=plan.epochs, lr_points=plan.lr_points, beta_points=plan.beta_points)
        )
        self.done: Counter[str] = Counter()
        self._read = 0  # bytes of the trainer's log
        self._epochs: set[tuple[int, int]] = set()
        self._trained: set[int] = set()  # processes that have trained an epoch
        self._timers: list[threading.Timer] = []
        self.launcher = self._launch()

    def _launch(self) -> "subprocess.Popen[bytes]":
        environment = os.environ | {
            "HPO_STORAGE": self.server.address,
            "HPO_HOME": str(self.folder / "home"),
            "SLEEPING_LOG": str(self.log),
        }
        command = [sys.executable, "-m", "hpo", "launch", str(self.study_file), "--workers", str(self.plan.workers)]
        command += ["--trainers", "benchmarks.sleeping", "--gpus", "none", "--max-restarts", "100000"]
        command += ["--heartbeat-seconds", "1", "--grace-seconds", str(self.plan.grace_seconds)]
        with (self.folder / "launcher.log").open("ab") as output:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def finish(self, limit_seconds: float) -> float:
        """Disturbs the run as planned and waits for its end. Returns the seconds that it took."""
        plan, started = self.plan, time.monotonic()
        faults = (
            ["kill"] * plan.kills + ["stop"] * plan.stops + ["cut"] * plan.cuts + ["launcher"] * plan.launcher_kills
        )
        faults += ["server-kill", "server-down", "server-restart", "server-restart", "server-restart"][: plan.restarts]
        self.random.shuffle(faults)
        # Not in the last tenth: a fault that comes after the end is none.
        points = sorted(self.random.uniform(0.02, 0.9) * plan.total_epochs for _ in faults)
        for fault, point in zip(faults, points, strict=True):
            while self._epochs_trained() < point and time.monotonic() - started < limit_seconds:
                time.sleep(0.02)
                self._check_launcher()
            self._do(fault)
        while self.launcher.poll() is None and time.monotonic() - started < limit_seconds:
            time.sleep(0.2)
        for timer in self._timers:
            timer.join()
        if self.launcher.poll() is None:
            self.launcher.kill()
            raise RuntimeError(f"not finished after {limit_seconds:g} s: see {self.folder / 'launcher.log'}")
        if self.launcher.returncode:
            raise RuntimeError(f"the launcher failed:\n{(self.folder / 'launcher.log').read_text()[-3000:]}")
        return time.monotonic() - started

    def check(self, address: str | None = None) -> list[Row]:
        """The checked record of the finished run, in its own database or a copy of it."""
        plan = self.plan
        return check(address or self.server.address, self.lines(), budget=plan.trials, num_cells=plan.cells)

    def _follow_log(self) -> None:
        with self.log.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in _parsed(whole):
            self._epochs.add((line["seed"], line["epoch"]))
            self._trained.add(line["pid"])

    def _epochs_trained(self) -> int:
        self._follow_log()
        return len(self._epochs)

    def _check_launcher(self) -> None:
        if self.launcher.poll() is not None:
            text = (self.folder / "launcher.log").read_text()[-3000:]
            raise RuntimeError(f"the launcher ended with exit code {self.launcher.returncode}:\n{text}")

    def lines(self) -> list[dict[str, Any]]:
        """What the trainer noted."""
        return _parsed(self.log.read_bytes())

    def _workers(self) -> list[psutil.Process]:
        """Workers that run now: they have trained an epoch, so a kill hits a trial, and are not stopped."""
        self._follow_log()
        try:
            children = psutil.Process(self.launcher.pid).children()
            return [
                child
                for child in children
                if child.pid in self._trained and child.status() not in ("zombie", "stopped")
            ]
        except psutil.NoSuchProcess:
            return []

    def _victim(self) -> psutil.Process:
        deadline = time.monotonic() + 180
        while not (workers := self._workers()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"no worker trains: see {self.folder / 'launcher.log'}")
            time.sleep(0.05)
            self._check_launcher()
        return self.random.choice(workers)

    def _do(self, fault: str) -> None:
        if fault == "kill":
            self._victim().send_signal(signal.SIGKILL)
        elif fault == "stop":
            victim = self._victim()
            victim.send_signal(signal.SIGSTOP)
            timer = threading.Timer(self.plan.grace_seconds * 1.7, lambda: _continue(victim))
            timer.start()
            self._timers.append(timer)
        elif fault == "cut":
            self._cut_connections()
        elif fault == "launcher":
            self.launcher.send_signal(signal.SIGKILL)
            self.launcher.wait()
            self.launcher = self._launch()
            self._wait_until_launched()
        else:
            self.server.kill() if fault == "server-kill" else self.server.stop()
            time.sleep(self.plan.down_seconds if fault == "server-down" else 0.5)
            self.server.start()
        self.done[fault] += 1

    def _wait_until_launched(self) -> None:
        """A launch that finds no server says so and ends, as it should: the next fault waits until it has workers."""
        while not psutil.Process(self.launcher.pid).children():
            time.sleep(0.02)
            self._check_launcher()

    def _cut_connections(self) -> None:
        connection = psycopg2.connect(self.server.address)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'hpo' AND pid <> pg_backend_pid()"
            )
        connection.close()


def _parsed(content: bytes) -> list[dict[str, Any]]:
    """The log's lines; one that was cut off by a kill is left out."""
    found = []
    for line in content.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _continue(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return


@contextlib.contextmanager
def finished_run(plan: Plan, folder: Path, limit_seconds: float = 1800.0) -> Iterator[tuple[Run, float]]:
    """Runs the plan to its end on a server of its own, which is there until the block ends; and the seconds taken."""
    with PostgresServer(folder / "postgres") as server:
        run = Run(plan, folder, server)
        try:
            seconds = run.finish(limit_seconds)
        except BaseException:
            print((run.folder / "launcher.log").read_text()[-3000:], file=sys.stderr)
            for process in [*run._workers(), run.launcher]:
                process.kill()
            raise
        yield run, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="the size that the tests run")
    options = parser.parse_args()
    plan = short_plan(options.seed) if options.short else Plan(seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="hpo-chaos-") as name, finished_run(plan, Path(name)) as (run, seconds):
        rows = run.check()
    print(f"{plan.trials} TPE trials, {plan.cells} cells, {plan.workers} workers, seed {plan.seed}: {seconds:.0f} s")
    print("faults: " + ", ".join(f"{count} {name}" for name, count in sorted(run.done.items())))
    print(as_text(rows))
    sys.exit(not all(holds for _, holds, _ in rows))


def short_plan(seed: int = 0) -> Plan:
    """What the tests run: every kind of fault at least once, in under a minute or so."""
    return Plan(
        trials=24, lr_points=4, beta_points=3, workers=3, kills=6, stops=1, restarts=2, down_seconds=5.0, cuts=1,
        launcher_kills=1, grace_seconds=4.0, seed=seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
