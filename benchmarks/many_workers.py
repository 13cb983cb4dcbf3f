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

import psutil
import psycopg2
import sqlalchemy as sa

from benchmarks.node_workers import MEAN_EPOCHS, READY, Orders, as_json
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
PROCESSES = 2
CONNECTIONS_A_NODE = 4
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
) AS cycles WHERE cycle IS NOT NULL
  AND ended > (to_timestamp(:since) AT TIME ZONE 'UTC') AND ended <= (to_timestamp(:until) AT TIME ZONE 'UTC')
"""
STATEMENTS = """
SELECT calls, total_exec_time, rows, query FROM pg_stat_statements WHERE dbid = (
  SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY total_exec_time DESC
"""
NAMES = {
    "SELECT t.trial_id, t.number, t.state::text": "read trials (to draw)",
    "SELECT t.trial_id, t.number, h.lineage, h.attempt, a.key": "read marks (to prune)",
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
    "SELECT 1 FROM studies": "lock the study",
    "UPDATE hpo_studies SET epochs_spent": "finish",
}


@dataclass(frozen=True)
class Setup:
    """One measurement: so many workers, with trials of ``trial_seconds`` on average."""

    workers: int
    trial_seconds: float
    how: str
    per_node: int
    trials_per_worker: float

    @property
    def budget(self) -> int:
        return round(self.workers * self.trials_per_worker)

    @property
    def epoch_seconds(self) -> float:
        return self.trial_seconds / MEAN_EPOCHS


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


def measure(setup: Setup) -> None:
    """Runs the workers to the end of their budget, and prints what that took."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        server, has_statistics = stack.enter_context(_server(folder))
        address = server.address
        if setup.how == "pgbouncer":
            (folder / "pooler").mkdir()
            (folder / "pooler").chmod(0o755)
            address = stack.enter_context(pgbouncer(folder / "pooler", server, POOLED))
        file = folder / "many.toml"
        file.write_text(STUDY.format(name="many", trials=setup.budget, seconds=setup.epoch_seconds) + SPACE)
        storage = open_storage(server.address)
        create_experiment(storage, load_study_file(file))
        storage.engine.dispose()
        processes = [_start(setup, address, folder, index) for index in range(PROCESSES)]
        try:
            measured, ended = _run(setup, server, has_statistics, processes)
        finally:
            for process in processes:
                process.kill()
        with storage.engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT state::text, count(*) FROM trials GROUP BY 1")).all()
        storage.engine.dispose()
    _show(setup, measured, ended, {row[0]: row[1] for row in rows})


def _start(setup: Setup, address: str, folder: Path, index: int) -> "subprocess.Popen[str]":
    nodes = -(-setup.workers // setup.per_node)
    own = sum(min(setup.per_node, setup.workers - node * setup.per_node) for node in range(index, nodes, PROCESSES))
    home = str(folder / f"home-{index}")
    connections = CONNECTIONS_A_NODE if setup.how == "node" else None
    orders = Orders(resolve_address(address), "many", home, own, setup.per_node, connections)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.node_workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HPO_HOME": home, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    process.stdin.write(as_json(orders) + "\n")
    process.stdin.flush()
    return process


def _run(
    setup: Setup, server: PostgresServer, has_statistics: bool, processes: "list[subprocess.Popen[str]]"
) -> tuple[Measured, list[dict[str, Any]]]:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == READY
    begins = time.time() + 1.0
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps({"begins": begins, "over": setup.trial_seconds}) + "\n")
        process.stdin.flush()
    watcher = _Connections(server.address)
    known: dict[int, float] = {}
    measured = Measured()
    time.sleep(max(0.0, begins + setup.trial_seconds + 2.0 - time.time()))
    with _connected(server.address) as cursor:
        if has_statistics:
            cursor.execute("SELECT pg_stat_statements_reset()")
        first = _state(cursor, server, known, processes)
        while True:
            time.sleep(1.0)
            _cpu_seconds(server.pid, known)
            cursor.execute("SELECT next_lineage >= num_lineages FROM hpo_studies")
            if cursor.fetchone()[0] or any(process.poll() is not None for process in processes):
                break
        last = _state(cursor, server, known, processes)
        if has_statistics:
            cursor.execute(STATEMENTS)
            measured.statements = [tuple(row) for row in cursor.fetchall()]
    outputs = [process.communicate()[0] for process in processes]
    measured.connections = watcher.stop()
    ended = [json.loads(output.splitlines()[-1]) for output in outputs]
    measured.seconds = last["at"] - first["at"]
    measured.cpu = last["cpu"] - first["cpu"]
    measured.transactions = last["transactions"] - first["transactions"]
    measured.clients_cpu = last["clients"] - first["clients"]
    engine = sa.create_engine(resolve_address(server.address), poolclass=sa.NullPool)
    with engine.connect() as connection:
        parameters = {"since": first["at"], "until": last["at"], "seconds": setup.epoch_seconds}
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
    at, cpu = time.time(), _cpu_seconds(server.pid, known)
    return {"at": at, "cpu": cpu, "transactions": float(transactions), "clients": used}


def _show(setup: Setup, measured: Measured, ended: list[dict[str, Any]], counts: dict[str, int]) -> None:
    seconds, trials, nodes = measured.seconds, max(1, measured.trials), -(-setup.workers // setup.per_node)
    cpu_ms, clients_ms = 1000 * measured.cpu / trials, 1000 * measured.clients_cpu / trials
    finished = counts.get("COMPLETE", 0) + counts.get("PRUNED", 0)
    failed = [reason for process in ended for reason in process["failed"]]
    asked = setup.workers / setup.trial_seconds
    # An attempt that was given back or swept is FAIL, and another one follows it.
    is_exact = finished == setup.budget and set(counts) <= {"COMPLETE", "PRUNED", "FAIL"}
    lines = {
        "trials": f"{finished} of {setup.budget}, {counts.get('PRUNED', 0)} pruned: "
        + ("exact" if is_exact else f"NOT EXACT {counts}"),
        "workers that failed": f"{len(failed)}" + (f": {failed[0]}" if failed else ""),
        "trials a second": f"{measured.trials / seconds:.1f} of {asked:.1f} that the sleep allows, in {seconds:.0f} s",
        "overhead a trial": f"{measured.overhead_ms:.0f} ms on average, 90 % below {measured.slow_ms:.0f} ms",
        "connections": f"{measured.connections} in all, {measured.connections / nodes:.1f} a node",
        "transactions": f"{measured.transactions / seconds:.0f} a second, {measured.transactions / trials:.0f} a trial",
        "database": f"{measured.cpu / seconds:.2f} cores, {cpu_ms:.1f} ms a trial",
        "workers": f"{measured.clients_cpu / seconds:.2f} cores, {clients_ms:.1f} ms a trial",
        "a core saturates at": f"{1000 / cpu_ms:.0f} trials a second of the database alone" if cpu_ms else "?",
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    print(f"\n{setup.workers} workers, trials of {setup.trial_seconds:g} s, {setup.per_node} a node, {HOW[setup.how]}")
    for name, value in lines.items():
        print(f"  {name:20} {value}")
    by_name: dict[str, list[float]] = {}
    for calls, milliseconds, rows, query in measured.statements:
        sums = by_name.setdefault(_name(query), [0.0, 0.0, 0.0])
        for place, number in enumerate((calls, milliseconds, rows)):
            sums[place] += number
    total = sum(sums[1] for sums in by_name.values())
    for name, (calls, spent, rows) in sorted(by_name.items(), key=lambda item: -item[1][1])[:12]:
        share, each = 100 * spent / total, spent / calls
        print(f"    {share:5.1f} %  {calls / seconds:7.1f}/s  {each:8.3f} ms  {rows / calls:7.1f} rows  {name}")
    sys.stdout.flush()


def _name(query: str) -> str:
    text = " ".join(query.split())
    return next((name for start, name in NAMES.items() if text.startswith(start)), text[:70])
