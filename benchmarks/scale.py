"""What a trial costs in a study of 100, 1,000, 10,000 finished trials, and with 1, 8, 64 workers that only sleep.

TPE and ASHA, 7 parameters, 8 reports; plain Optuna on the same server in the same run. The first table is one worker
whose epochs take no time: what is left is the service's own. The second is whole searches; milliseconds a trial are
those from one end to the next of the same worker, beyond the sleep, once all workers have ended one.

``--workers 1000`` (from 200 on) runs them as threads of a few processes, a node of eight sharing four connections, or
with PgBouncer, and prints what the database does (:mod:`benchmarks.many_workers`).
"""

import argparse
import datetime
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import optuna
import psutil
import psycopg2
import sqlalchemy as sa

import hpo
from benchmarks import many_workers
from benchmarks.filled import fill
from benchmarks.overhead import STUDY, plain_worker
from benchmarks.postgres_server import PostgresServer
from benchmarks.sleeping import SPACE
from hpo.database.address import resolve_address
from hpo.database.storage import open_storage
from hpo.experiment.experiment import create_experiment
from hpo.launchers.progress import PlainProgress
from hpo.settings import Settings
from hpo.studyfile.load import load_study_file

EPOCHS = 8
TRIALS = 40
TRIALS_PER_WORKER = 12
MANY = 200
"""From so many workers on they are threads: a process each would not fit on one machine."""


def filled_studies(address: str, folder: Path, size: int) -> tuple[str, str]:
    """Makes our experiment and a plain study with ``size`` finished trials each; returns their names."""
    name = f"scale-{size}"
    file = folder / f"{name}.toml"
    text = STUDY.format(trials=size + TRIALS, epochs=EPOCHS, seconds=0.0).replace("constant = true", "")
    file.write_text(text.replace('"overhead"', f'"{name}"') + SPACE)
    storage = open_storage(address)
    experiment, _ = create_experiment(storage, load_study_file(file))
    plain = optuna.create_study(study_name=f"plain-{size}", storage=resolve_address(address), direction="maximize")
    for study_id, is_ours in ((experiment.study_ids[0], True), (plain._study_id, False)):
        with storage.engine.begin() as connection:
            fill(connection, study_id, size, EPOCHS, ours=is_ours)
    storage.engine.dispose()
    # As the server itself does some time after such a change; not in the middle of the measurement.
    connection = psycopg2.connect(address)
    connection.autocommit = True
    connection.cursor().execute("VACUUM ANALYZE")
    connection.close()
    return name, plain.study_name


def worker(who: str, study: str, address: str, folder: Path) -> dict[str, Any]:
    """Runs :mod:`benchmarks.scale_worker` and returns what it measured."""
    command = [sys.executable, "-m", "benchmarks.scale_worker", who, study, str(TRIALS), str(EPOCHS), str(time.time())]
    environment = os.environ | {"HPO_STORAGE": resolve_address(address), "HPO_HOME": str(folder)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def by_size(address: str, folder: Path, sizes: list[int]) -> None:
    head = ("trials", "", "ask", "report", "prune", "tell", "by the clock", "first trial", "MB")
    print("{:>7} {:13}{:>8}{:>8}{:>8}{:>8}{:>14}{:>13}{:>7}".format(*head))
    for size in sizes:
        name, plain = filled_studies(address, folder, size)
        for who, study in (("ours", name), ("plain", plain)):
            row = worker(who, study, address, folder)
            parts = "".join(f"{row[part]:8.1f}" for part in ("ask", "report", "prune", "tell"))
            label = "hpo" if who == "ours" else "plain Optuna"
            print(
                f"{size:7} {label:13}{parts}{row['clock']:11.1f} ms{row['first']:11.2f} s{row['mb']:7.0f}", flush=True
            )
            assert not row["torch"]
    print("ask, report, prune, tell: ms a trial, on whichever thread; by the clock: median from one start to the next")


class Watcher(threading.Thread):
    """Samples what each child process holds while a search runs: most connections to the server, most memory."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.connections = 0
        self.megabytes = 0.0
        self._port = sa.engine.make_url(address).port
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.wait(0.5):
            for child in psutil.Process().children():
                try:
                    if time.time() - child.create_time() < 2:  # may still be a copy of this process
                        continue
                    connections = child.net_connections("tcp")
                    self.megabytes = max(self.megabytes, child.memory_info().rss / 2**20)
                except psutil.Error:
                    continue
                held = sum(bool(c.raddr) and c.raddr.port == self._port for c in connections)
                self.connections = max(self.connections, held)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def by_workers(address: str, folder: Path, counts: list[int], seconds: float) -> None:
    print(
        f"\n{'workers':>7} {'':13}{'ms a trial':>11}{'trials':>8}{'budget':>8}{'connections':>13}{'MB':>6}{'wall':>10}"
    )
    for count in counts:
        budget = TRIALS_PER_WORKER * count
        name = f"workers-{count}"
        file = folder / f"{name}.toml"
        text = STUDY.format(trials=budget, epochs=EPOCHS, seconds=seconds)
        file.write_text(text.replace('"overhead"', f'"{name}"') + SPACE)
        settings = Settings(storage=address, home=folder, trainers="benchmarks.sleeping")
        watcher, started = Watcher(address), time.monotonic()
        loaded = hpo.launch(file, settings=settings, workers=count, gpus="none", progress=PlainProgress(sys.stderr))
        loaded._experiment.storage.engine.dispose()
        watcher.stop()
        study = optuna.load_study(study_name=f"{name}/tpe/0", storage=resolve_address(address))
        _row(count, "hpo", study, budget, seconds, watcher, started)
        optuna.create_study(study_name=f"plain-{name}", storage=resolve_address(address))
        context = multiprocessing.get_context("spawn")
        watcher, started = Watcher(address), time.monotonic()
        arguments = (resolve_address(address), budget, EPOCHS, seconds, f"plain-{name}")
        processes = [context.Process(target=plain_worker, args=arguments) for _ in range(count)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        watcher.stop()
        study = optuna.load_study(study_name=f"plain-{name}", storage=resolve_address(address))
        _row(count, "plain Optuna", study, budget, seconds, watcher, started)
    print("connections and MB: of the worker that held most")


def cycle_seconds(study: optuna.Study) -> float:
    """Mean seconds from one trial's end to the next of the same worker, while all workers run."""
    ends: dict[str, list[datetime.datetime]] = defaultdict(list)
    for trial in study.get_trials(deepcopy=False):
        assert trial.datetime_complete is not None
        ends[trial.user_attrs["worker"]].append(trial.datetime_complete)
    all_run = max(min(times) for times in ends.values())
    cycles = [
        (later - earlier).total_seconds()
        for times in ends.values()
        for earlier, later in itertools.pairwise(sorted(times))
        if earlier >= all_run
    ]
    return statistics.mean(cycles)


def _row(
    count: int, who: str, study: optuna.Study, budget: int, seconds: float, watcher: Watcher, started: float
) -> None:
    milliseconds = 1000 * (cycle_seconds(study) - EPOCHS * seconds)
    wall, ran = time.monotonic() - started, len(study.get_trials(deepcopy=False))
    print(
        f"{count:7} {who:13}{milliseconds:11.1f}{ran:8}{budget:8}{watcher.connections:13}{watcher.megabytes:6.0f}"
        f"{wall:8.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", help="finished trials; default: 100 1000 10000, or none")
    parser.add_argument("--workers", type=int, nargs="*", help="default: 1 8 64, or none if --sizes are given")
    many = parser.add_argument_group(f"{MANY} workers and more")
    many.add_argument("--connections", choices=many_workers.HOW, nargs="*", default=["node", "pgbouncer"])
    many.add_argument("--per-node", type=int, default=8, help="workers that share a pool")
    many.add_argument("--trial-seconds", type=float, nargs="*", default=[60.0], help="of a trial on average")
    many.add_argument("--trials-per-worker", type=float, default=2.5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of an epoch in the second table")
    parser.add_argument("--storage", help="a server to use instead of one made for this; left with what was written")
    options = parser.parse_args()
    if options.sizes is None:
        options.sizes = [] if options.workers else [100, 1000, 10000]
    if options.workers is None:
        options.workers = [] if options.sizes and "--sizes" in sys.argv else [1, 8, 64]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for count in [count for count in options.workers if count >= MANY]:
        for seconds, how in itertools.product(options.trial_seconds, options.connections):
            setup = many_workers.Setup(count, seconds, how, options.per_node, options.trials_per_worker)
            many_workers.measure(setup)
    options.workers = [count for count in options.workers if count < MANY]
    if not (options.workers or options.sizes):
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.storage:
            _measure(options.storage, folder, options)
            return
        folder.chmod(0o755)
        with PostgresServer(folder / "server") as server:
            _measure(server.address, folder, options)


def _measure(address: str, folder: Path, options: argparse.Namespace) -> None:
    if options.sizes:
        by_size(address, folder, options.sizes)
    if options.workers:
        by_workers(address, folder, options.workers, options.seconds)


if __name__ == "__main__":
    main()
