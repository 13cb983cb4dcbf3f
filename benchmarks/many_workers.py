"""What the database does for a thousand workers that sleep: ``python -m benchmarks.scale --workers 1000``.

TPE, ASHA, 7 parameters, 20 reports a trial, one trial in eight pruned; every claim, report, pruning decision, result,
heartbeat and report of itself is the service's own. The workers start one after another over the length of a trial.
What is measured is between the end of that and the moment when the budget is given out. Statements and the time that
the server spent on each are from pg_stat_statements, where a Postgres with it is installed (Debian's has it).
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
import psycopg2
import sqlalchemy as sa

from benchmarks.node_workers import MEAN_EPOCHS, Orders, as_json
from benchmarks.pgbouncer import pgbouncer
from benchmarks.postgres_server import BINARIES, PostgresServer
from benchmarks.sleeping import SPACE
from hpo.database.address import resolve_address
from hpo.database.storage import open_storage
from hpo.experiment.experiment import create_experiment
from hpo.studyfile.load import load_study_file

STUDY = """
name = "{name}"
trainer = "sleeper"
metric = "value"
samplers = ["tpe"]
budget = {{ trials = {trials} }}
pruner = {{ name = "asha", min_epochs = 1, reduction_factor = 3 }}
[fixed]
epoch_seconds = {seconds}
"""
PROCESSES = 4
POOLED = 40
"""Connections that PgBouncer has to the server."""
HOW = {
    "own": "two each",
    "node": "four a node",
    "pgbouncer": f"PgBouncer, {POOLED} in all",
}
CYCLES = """
SELECT count(*), avg(cycle - slept), percentile_cont(0.9) WITHIN GROUP (ORDER BY cycle - slept) FROM (
  SELECT CAST(extract(epoch FROM t.datetime_complete - lag(t.datetime_complete) OVER (
      PARTITION BY h.worker ORDER BY t.datetime_complete)) AS float8) AS cycle, t.datetime_complete AS ended,
    :seconds * (SELECT count(*) FROM trial_intermediate_values v WHERE v.trial_id = t.trial_id) AS slept
  FROM trials t JOIN hpo_trials h USING (trial_id) WHERE t.state IN ('COMPLETE', 'PRUNED')
) AS cycles WHERE cycle IS NOT NULL AND ended BETWEEN :since AND :until
"""
STATEMENTS = """
SELECT calls, total_exec_time, rows, query FROM pg_stat_statements WHERE dbid = (
  SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY total_exec_time DESC
"""
NAMES = {
    "SELECT t.trial_id, t.number, t.state::text": "read trials (refresh)",
    "UPDATE trial_heartbeats": "heartbeat",
    "INSERT INTO hpo_workers": "worker's own report",
    "DELETE FROM hpo_workers": "forget old workers",
    "SELECT max(halt)": "look for orders",
    "SELECT steering_id": "look for orders (last)",
    "SELECT trial_id, prune": "look for orders (prune)",
    "INSERT INTO trial_intermediate_values": "report",
    "SELECT s.study_id, s.num_lineages": "read budgets (claim)",
    "INSERT INTO trial_user_attributes": "write attributes",
    "INSERT INTO trial_system_attributes": "write marks",
    "SELECT DISTINCT h.worker": "look for silent workers",
    "WITH made AS": "begin a trial",
    "SELECT $1 FROM studies": "lock the study",
    "UPDATE hpo_studies SET epochs_spent": "finish",
}


@dataclass
class Measured:
    """What was seen of the server between two moments."""

    seconds: float = 0.0
    cpu: float = 0.0
    transactions: float = 0.0
    trials: int = 0
    overhead_ms: float = 0.0
    slow_ms: float = 0.0
    connections: int = 0
    clients_cpu: float = 0.0
    statements: list[tuple[int, float, int, str]] = field(default_factory=list)


def binaries_with_statistics() -> Path | None:
    """The folder of a Postgres of this machine that has pg_stat_statements; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/lib/pg_stat_statements.so"))
    return found[-1].parents[1] / "bin" if found else None


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[tuple[PostgresServer, bool]]:
    folder.chmod(0o755)
    binaries = binaries_with_statistics()
    settings = ["max_connections=2300", "max_locks_per_transaction=64"]
    if binaries is not None:
        settings.append("shared_preload_libraries=pg_stat_statements")
    with PostgresServer(folder / "server", *settings, binaries=binaries or BINARIES) as server:
        if binaries is not None:
            with _connected(server.address) as cursor:
                cursor.execute("CREATE EXTENSION pg_stat_statements")
        yield server, binaries is not None


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    connection = psycopg2.connect(address, application_name="benchmark")
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


def _cpu_seconds(pid: int, known: dict[int, float]) -> float:
    """Processor seconds of the server's processes so far; ``known`` keeps those of processes that have ended."""
    for process in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            known[process.pid] = times.user + times.system
    return sum(known.values())


class _Connections(threading.Thread):
    """Samples how many connections of workers the server has."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self._address = address
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        with _connected(self._address) as cursor:
            while not self._ended.wait(1.0):
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hpo'")
                self.most = max(self.most, cursor.fetchone()[0])

    def stop(self) -> int:
        self._ended.set()
        self.join()
        return self.most


def many_workers(count: int, trial_seconds: float, how: str, per_node: int, trials_per_worker: float) -> None:
    """Runs ``count`` workers with trials of ``trial_seconds`` on average, and prints what that took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.ExitStack() as stack:
            server, has_statistics = stack.enter_context(_server(folder))
            address = server.address
            if how == "pgbouncer":
                (folder / "pooler").mkdir()
                (folder / "pooler").chmod(0o755)
                address = stack.enter_context(pgbouncer(folder / "pooler", server, POOLED))
            budget = round(count * trials_per_worker)
            seconds = trial_seconds / MEAN_EPOCHS
            file = folder / "many.toml"
            file.write_text(STUDY.format(name="many", trials=budget, seconds=seconds) + SPACE)
            storage = open_storage(server.address)
            create_experiment(storage, load_study_file(file))
            measured, ended = _run(server, has_statistics, address, folder, count, trial_seconds, how, per_node, budget)
            with storage.engine.connect() as connection:
                counts: dict[str, int] = dict(
                    tuple(row)
                    for row in connection.execute(sa.text("SELECT state::text, count(*) FROM trials GROUP BY 1"))
                )
            storage.engine.dispose()
    _show(measured, ended, counts, count, trial_seconds, how, per_node, budget)


def _run(
    server: PostgresServer,
    has_statistics: bool,
    address: str,
    folder: Path,
    count: int,
    trial_seconds: float,
    how: str,
    per_node: int,
    budget: int,
) -> tuple[Measured, list[dict[str, Any]]]:
    begins = time.time() + 3.0 + count / 200
    starts = [begins + trial_seconds * index / count for index in range(count)]
    nodes = [starts[first : first + per_node] for first in range(0, count, per_node)]
    processes = []
    for index in range(min(PROCESSES, len(nodes))):
        own = [at for node in nodes[index::PROCESSES] for at in node]
        orders = Orders(
            resolve_address(address), "many", str(folder / f"home-{index}"), own, per_node, 4 if how == "node" else None
        )
        process = subprocess.Popen(
            [sys.executable, *__import__("shlex").split(os.environ.get("NW", "-m benchmarks.node_workers"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"HPO_HOME": str(folder / f"home-{index}"), "OMP_NUM_THREADS": "1"},
        )
        assert process.stdin is not None
        process.stdin.write(as_json(orders))
        process.stdin.close()
        processes.append(process)
    watcher = _Connections(server.address)
    known: dict[int, float] = {}
    measured = Measured()
    time.sleep(max(0.0, starts[-1] + 2.0 - time.time()))
    with _connected(server.address) as cursor:
        if has_statistics:
            cursor.execute("SELECT pg_stat_statements_reset()")
        first = _state(cursor, server, known, processes)
        given_out = "SELECT next_lineage >= num_lineages FROM hpo_studies"
        while True:
            time.sleep(1.0)
            _cpu_seconds(server.pid, known)
            cursor.execute(given_out)
            if cursor.fetchone()[0] or any(process.poll() is not None for process in processes):
                break
        last = _state(cursor, server, known, processes)
        if has_statistics:
            cursor.execute(STATEMENTS)
            measured.statements = [tuple(row) for row in cursor.fetchall()]
        cursor.execute(
            "SELECT now() AT TIME ZONE 'UTC' - make_interval(secs => %s), now() AT TIME ZONE 'UTC'",
            [time.time() - first["at"]],
        )
        since, until = cursor.fetchone()
    outputs = [process.communicate()[0] for process in processes]
    measured.connections = watcher.stop()
    ended = [json.loads(output.splitlines()[-1]) for output in outputs]
    measured.seconds = last["at"] - first["at"]
    measured.cpu = last["cpu"] - first["cpu"]
    measured.transactions = last["transactions"] - first["transactions"]
    measured.clients_cpu = last["clients"] - first["clients"]
    engine = sa.create_engine(resolve_address(server.address), poolclass=sa.NullPool)
    with engine.connect() as connection:
        parameters = {"since": since, "until": until, "seconds": trial_seconds / MEAN_EPOCHS}
        row = connection.execute(sa.text(CYCLES), parameters).one()
    measured.trials, measured.overhead_ms, measured.slow_ms = row[0], 1000 * (row[1] or 0), 1000 * (row[2] or 0)
    return measured, ended


def _state(
    cursor: Any, server: PostgresServer, known: dict[int, float], clients: "list[subprocess.Popen[str]]"
) -> dict[str, float]:
    cursor.execute("SELECT pg_stat_clear_snapshot(); SELECT xact_commit FROM pg_stat_database WHERE datname = 'hpo'")
    transactions = cursor.fetchone()[0]
    used = 0.0
    for client in clients:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(client.pid).cpu_times()
            used += times.user + times.system
    return {
        "at": time.time(),
        "cpu": _cpu_seconds(server.pid, known),
        "transactions": float(transactions),
        "clients": used,
    }


def _show(
    measured: Measured,
    ended: list[dict[str, Any]],
    counts: dict[str, int],
    count: int,
    trial_seconds: float,
    how: str,
    per_node: int,
    budget: int,
) -> None:
    rate = measured.trials / measured.seconds
    nodes = -(-count // per_node)
    cpu_ms = 1000 * measured.cpu / max(1, measured.trials)
    finished = counts.get("COMPLETE", 0) + counts.get("PRUNED", 0)
    print(f"\n{count} workers, trials of {trial_seconds:g} s, {per_node} workers a node, connections: {HOW[how]}")
    print(
        f"  trials               {finished} of {budget} ({counts.get('PRUNED', 0)} pruned); others: "
        f"{ {state: n for state, n in counts.items() if state not in ('COMPLETE', 'PRUNED')} or 'none' }"
    )
    print(f"  trials a second      {rate:.1f} over {measured.seconds:.0f} s (asked for: {count / trial_seconds:.1f})")
    print(f"  overhead a trial     {measured.overhead_ms:.0f} ms on average, 90 % below {measured.slow_ms:.0f} ms")
    print(f"  connections          {measured.connections} in all, {measured.connections / nodes:.1f} a node")
    print(
        f"  transactions         {measured.transactions / measured.seconds:.0f} a second, "
        f"{measured.transactions / max(1, measured.trials):.0f} a trial"
    )
    print(
        f"  database's processor {measured.cpu / measured.seconds:.2f} cores, {cpu_ms:.1f} ms a trial: one core "
        f"saturates at {1000 / cpu_ms:.0f} trials a second"
        if cpu_ms
        else ""
    )
    print(
        f"  workers' processor   {measured.clients_cpu / measured.seconds:.2f} cores, "
        f"{1000 * measured.clients_cpu / max(1, measured.trials):.0f} ms a trial; load {os.getloadavg()[0]:.1f}"
    )
    failed = [reason for process in ended for reason in process["failed"]]
    print(f"  workers that failed  {len(failed)}{': ' + failed[0] if failed else ''}")
    total = sum(row[1] for row in measured.statements)
    for calls, milliseconds, rows, query in measured.statements[:12]:
        print(
            f"    {100 * milliseconds / total:5.1f} %  {calls / measured.seconds:7.1f}/s  "
            f"{milliseconds / calls:8.3f} ms  {rows / calls:7.1f} rows  {_name(query)}"
        )
    sys.stdout.flush()


def _name(query: str) -> str:
    text = " ".join(query.split())
    return next((name for start, name in NAMES.items() if text.startswith(start)), text[:70])


def run_all(counts: list[int], trial_seconds: list[float], hows: list[str], per_node: int, per_worker: float) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for count in counts:
        for seconds in trial_seconds:
            for how in hows:
                many_workers(count, seconds, how, per_node, per_worker)
