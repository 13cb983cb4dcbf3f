"""A person works on the studies of a running experiment with Optuna's own clients; then the record is checked.

80 TPE trials and a 24-cell grid with 4 workers. At seeded points of progress somebody enqueues good and bad trials,
adds finished ones, copies, annotates and deletes studies, asks the dashboard to rename one, stops the database for a
while, sends every signal that means "end" to a worker or to the launcher, and edits the study file (more trials).
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna_dashboard import get_note, save_note  # type: ignore[import-untyped]

from benchmarks.chaos import STUDY
from benchmarks.chaos_record import Row, as_text, check
from benchmarks.postgres_server import PostgresServer, free_port

WORKER_SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU", "SIGKILL")
LAUNCHER_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")
GOOD = {
    "lr": 0.05,
    "beta": 0.9,
    "width_1": 300,
    "width_2": 100,
    "weight_decay": 1e-4,
    "batch_size": 64,
    "scheduler": "step",
}
BAD: tuple[dict[str, Any], ...] = (
    {"batch_size": 48},
    {"lr": "fast"},
    {"no_such_parameter": 1},
    {"lr": 5.0},
    {"width_1": None},
)
TPE, GRID = "chaos/tpe/0", "chaos/grid/0"


@dataclass(frozen=True)
class Plan:
    """How big the run is; every action of a person comes ``rounds`` times."""

    trials: int = 60
    more_trials: int = 80
    lr_points: int = 6
    beta_points: int = 4
    epochs: int = 10
    workers: int = 4
    rounds: int = 2
    pause_seconds: float = 3.0
    grace_seconds: float = 6.0
    seed: int = 0

    @property
    def cells(self) -> int:
        return self.lr_points * self.beta_points


def short_plan(seed: int = 0) -> Plan:
    """What the tests run: every action once."""
    return Plan(
        trials=20,
        more_trials=26,
        lr_points=4,
        beta_points=3,
        workers=2,
        rounds=1,
        pause_seconds=2.0,
        grace_seconds=4.0,
        seed=seed,
    )


@dataclass
class Person:
    """What a person did, to be found again unchanged at the end.

    Attributes:
        added: number of the finished trial that was added -> its value.
        bad: numbers of the trials enqueued with values that cannot be used, by study.
        good: numbers of the trials enqueued with values that can be used, by study.
        copies: studies that a person made.
    """

    storage: optuna.storages.RDBStorage
    added: dict[int, float] = field(default_factory=dict)
    bad: dict[str, list[int]] = field(default_factory=dict)
    good: dict[str, list[int]] = field(default_factory=dict)
    copies: list[str] = field(default_factory=list)
    rename_refused: list[int] = field(default_factory=list)

    def study(self, name: str) -> optuna.Study:
        return optuna.load_study(study_name=name, storage=self.storage, pruner=optuna.pruners.NopPruner())


NOTE = "A person's own note: do not touch."


class Run:
    """One run with a person in it: starts, disturbs, waits, checks."""

    def __init__(self, plan: Plan, folder: Path, server: PostgresServer) -> None:
        self.plan, self.folder, self.server = plan, folder, server
        self.random = random.Random(plan.seed)
        self.log = folder / "trainer.log"
        self.log.touch()
        self.study_file = folder / "chaos.toml"
        self.done: Counter[str] = Counter()
        self._write_study(plan.trials)
        self.launcher = self._launch()
        address = server.address.replace("postgresql://", "postgresql+psycopg2://")
        self._wait(lambda: any(self._workers()), "no worker started")
        self.person = Person(optuna.storages.RDBStorage(address))
        self.port = free_port()
        self.dashboard = subprocess.Popen(
            [sys.executable, "-m", "hpo", "dashboard", "--port", str(self.port)],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        own = {"HPO_STORAGE": self.server.address, "HPO_HOME": str(self.folder / "home"), "SLEEPING_LOG": str(self.log)}
        return os.environ | own | {"HPO_TRAINERS": "benchmarks.sleeping"}

    def _write_study(self, trials: int) -> None:
        plan = self.plan
        text = STUDY.format(trials=trials, epochs=plan.epochs, lr_points=plan.lr_points, beta_points=plan.beta_points)
        # Progress protects a trial, so three retries are enough. Slow epochs: what a person does takes seconds.
        text = text.replace("max_retries = 1000\n", "").replace("epoch_seconds = 0.05", "epoch_seconds = 0.25")
        self.study_file.write_text(text)

    def _launch(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "hpo", "launch", str(self.study_file), "--workers", str(self.plan.workers)]
        command += ["--gpus", "none", "--heartbeat-seconds", "1", "--grace-seconds", str(self.plan.grace_seconds)]
        command += ["--max-restarts", "1000"]
        with (self.folder / "launcher.log").open("ab") as output:
            return subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _workers(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.launcher.pid).children()
            return [child for child in children if child.status() not in ("zombie", "stopped")]
        except psutil.NoSuchProcess:
            return []

    def _wait(self, condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} after {seconds:g} s: see {self.folder / 'launcher.log'}")
            time.sleep(0.05)

    def _epochs(self) -> int:
        return self.log.read_bytes().count(b"\n")

    # What a person does.

    def enqueue_good(self) -> None:
        for name in (TPE, GRID):
            study = self.person.study(name)
            study.enqueue_trial(GOOD, user_attrs={"by": "a person"})
            self.person.good.setdefault(name, []).append(len(study.get_trials(deepcopy=False)) - 1)

    def enqueue_bad(self) -> None:
        study = self.person.study(TPE)
        for values in BAD:
            study.enqueue_trial(values, user_attrs={"by": "a person", "bad": True})

    def add_finished(self) -> None:
        study = self.person.study(TPE)
        distributions = next(
            t for t in study.get_trials(deepcopy=False) if set(GOOD) <= set(t.distributions)
        ).distributions
        value = 2.0 + len(self.person.added)  # better than all that the trainer can reach
        trial = optuna.trial.create_trial(params=GOOD, distributions=distributions, value=value)
        study.add_trial(trial)
        added = [t for t in study.get_trials(deepcopy=False) if t.values == [value]]
        self.person.added[added[-1].number] = value

    def copy(self) -> None:
        name = f"copy of tpe {len(self.person.copies)}"
        optuna.copy_study(
            from_study_name=TPE, from_storage=self.person.storage, to_storage=self.person.storage, to_study_name=name
        )
        self.person.copies.append(name)

    def annotate(self) -> None:
        study = self.person.study(TPE)
        save_note(study, NOTE)

    def delete_own(self) -> None:
        """Makes a study of the person's own and deletes it: nothing of the experiment may go with it."""
        self.copy()
        optuna.delete_study(study_name=self.person.copies.pop(), storage=self.person.storage)

    def rename(self) -> None:
        study_id = self.person.storage.get_study_id_from_name(TPE)
        self._wait(lambda: self._get("/hpo/") is not None, "the dashboard does not answer")
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/studies/{study_id}/rename",
            data=json.dumps({"study_name": "renamed"}).encode(),
            headers={"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{self.port}"},
        )
        try:
            urllib.request.urlopen(request, timeout=30).close()
        except urllib.error.HTTPError as error:
            self.person.rename_refused.append(error.code)

    def _get(self, path: str) -> int | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)
        except OSError:
            return None

    def pause_database(self) -> None:
        processes = [psutil.Process(self.server.pid), *psutil.Process(self.server.pid).children(recursive=True)]
        for process in processes:
            _send(process, signal.SIGSTOP)
        time.sleep(self.plan.pause_seconds)
        for process in processes:
            _send(process, signal.SIGCONT)

    def signal_worker(self, name: str) -> None:
        self._wait(lambda: bool(self._workers()), "no worker to send a signal to")
        _send(self.random.choice(self._workers()), signal.Signals[name])

    def signal_launcher(self, name: str) -> None:
        self._wait(lambda: bool(self._workers()), "the launcher has no worker")
        self.launcher.send_signal(signal.Signals[name])
        self.launcher.wait(60)
        self.launcher = self._launch()

    def edit(self) -> None:
        self.launcher.send_signal(signal.SIGTERM)
        self.launcher.wait(60)
        self._write_study(self.plan.more_trials)
        self.launcher = self._launch()

    def finish(self, limit_seconds: float) -> float:
        """Does everything that a person does, at seeded points, and waits for the end. Returns the seconds taken."""
        plan, started = self.plan, time.monotonic()
        actions: list[tuple[str, Callable[[], None]]] = []
        for _ in range(plan.rounds):
            for action in (
                self.enqueue_good, self.enqueue_bad, self.add_finished, self.copy, self.annotate,
                self.delete_own, self.rename, self.pause_database,
            ):  # fmt: skip
                actions.append((action.__name__, action))
            actions += [(f"worker {name}", lambda name=name: self.signal_worker(name)) for name in WORKER_SIGNALS]  # type: ignore[misc]
            actions += [(f"launcher {name}", lambda name=name: self.signal_launcher(name)) for name in LAUNCHER_SIGNALS]  # type: ignore[misc]
        actions.append(("edit", self.edit))
        self.random.shuffle(actions)
        total = (plan.trials + plan.cells) * plan.epochs
        points = sorted(self.random.uniform(0.03, 0.6) * total for _ in actions)
        for (name, action), point in zip(actions, points, strict=True):
            self._wait(lambda point=point: self._epochs() >= point or self.launcher.poll() is not None, "no progress")  # type: ignore[misc]
            action()
            self.done[name] += 1
        self._wait(lambda: self.launcher.poll() is not None, "not finished", limit_seconds)
        return time.monotonic() - started

    # What must hold.

    def _hpo(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "hpo", *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=120
        )

    def check(self) -> list[Row]:
        """The rows of the chaos table, and what a person made: untouched, and one answer in every view."""
        plan, person = self.plan, self.person
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        rows = check(self.server.address, lines, budget=plan.more_trials, num_cells=plan.cells)
        study = person.study(TPE)
        trials = study.get_trials(deepcopy=False)
        added = {t.number: t.value for t in trials if t.number in person.added and t.state.name == "COMPLETE"}
        rows.append(
            (
                "finished trials that a person added are untouched",
                added == person.added,
                f"{len(added)} of {len(person.added)}",
            )
        )
        bad = [t for t in trials if t.user_attrs.get("bad")]
        named = [t for t in bad if t.state.name == "FAIL" and t.user_attrs.get("reason")]
        rows.append(
            (
                "trials that cannot be used fail with the value",
                len(named) == len(bad) > 0,
                f"{len(named)} of {len(bad)}",
            )
        )
        notes = get_note(study)
        rows.append(("a person's note is untouched", NOTE in notes, repr(notes[:60])))
        names = set(optuna.get_all_study_names(person.storage))
        missing = [name for name in person.copies if name not in names]
        rows.append(
            (
                "studies that a person made are there",
                not missing,
                f"{len(person.copies) - len(missing)} of {len(person.copies)}",
            )
        )
        renamed = self.done["rename"]
        rows.append(
            (
                "renaming a study of an experiment is refused",
                len(person.rename_refused) == renamed > 0,
                f"{person.rename_refused}",
            )
        )
        rows.append(self._one_answer())
        code = self.launcher.returncode
        again = self._hpo("launch", str(self.study_file), "--workers", "1")
        same = again.returncode == code and self._status() == self._status()
        rows.append(("launching again changes nothing", same, f"exit codes {code} and {again.returncode}"))
        return rows

    def _status(self) -> dict[str, Any]:
        content = json.loads(self._hpo("status", "chaos", "--json").stdout)
        return {study["name"]: study for study in content["studies"]}

    def _one_answer(self) -> Row:
        """The best value of the experiment by status, export, comparison and the dashboard's download."""
        status = self._status()
        answers = {"status": max(s["best"]["value"] for s in status.values() if s["best"])}
        exported = json.loads(self._hpo("export", "chaos", "--format", "json").stdout)
        answers["export"] = exported["provenance"]["value"]
        compared = json.loads(self._hpo("compare", "chaos", "--json").stdout)
        answers["compare"] = max(s["best"]["value"] for s in compared["samplers"].values() if s["best"])
        downloads = []
        for sampler in ("grid", "tpe"):
            path = f"/hpo/best?name=chaos&sampler={sampler}&format=json"
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                downloads.append(json.loads(answer.read())["provenance"]["value"])
        answers["dashboard"] = max(downloads)
        return (
            "one best in every view",
            len(set(answers.values())) == 1,
            ", ".join(f"{k} {v:.6g}" for k, v in answers.items()),
        )

    def close(self) -> None:
        """Ends what this run started."""
        for process in [*self._workers(), self.launcher, self.dashboard]:
            try:
                process.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        self.dashboard.wait(30)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def run_plan(plan: Plan, folder: Path, limit_seconds: float = 900.0) -> tuple[Run, float, list[Row]]:
    """Runs the plan to its end on a server of its own and checks it; everything that it started is ended."""
    with PostgresServer(folder / "postgres") as server:
        run = Run(plan, folder, server)
        try:
            seconds = run.finish(limit_seconds)
            return run, seconds, run.check()
        except BaseException:
            print((folder / "launcher.log").read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            run.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="the size that the tests run")
    options = parser.parse_args()
    plan = short_plan(options.seed) if options.short else Plan(seed=options.seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="hpo-users-") as name:
        run, seconds, rows = run_plan(plan, Path(name))
    print(
        f"{plan.more_trials} TPE trials, {plan.cells} cells, {plan.workers} workers, seed {plan.seed}: {seconds:.0f} s"
    )
    print("a person: " + ", ".join(f"{count} {name}" for name, count in sorted(run.done.items())))
    print(as_text(rows))
    sys.exit(not all(holds for _, holds, _ in rows))


if __name__ == "__main__":
    main()
