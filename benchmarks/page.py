"""The pages of an experiment of 300 and of 10,000 trials: first page of a fresh server, update, figure, list of trials.

One study of 7 hyperparameters and 8 reports a trial. *Server* is the processor time of the dashboard's process for the
request, *clock* what a client waits; an update is the answer to a poll after one more trial has ended. *Paint* is
Chromium's first contentful paint, if there is a Chromium.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy as sa

from benchmarks.postgres_server import PostgresServer
from benchmarks.scale import filled_studies
from hpo.database.storage import open_storage

UPDATES = 15
TABLES = ("", "&page=3", "&sort=param:lr&desc=1", "&sort=epochs", "&search=value%3E0.5")
"""Views of the table of trials, of which the slowest is shown."""


class Dashboard:
    """``hpo dashboard`` as a process, and what a request costs it."""

    def __init__(self, address: str, home: Path) -> None:
        environment = os.environ | {"HPO_STORAGE": address, "HPO_HOME": str(home)}
        command = [sys.executable, "-m", "hpo", "dashboard", "--port", "0"]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", self._process.stdout.readline())
        assert found is not None
        self.url = found[0]
        self._measured = psutil.Process(self._process.pid)

    def get(self, path: str) -> tuple[dict[str, float], bytes]:
        """Milliseconds of a request, by the ``clock`` and of the ``server``'s processor time; and the answer."""
        before, started = self._spent(), time.perf_counter()
        with urllib.request.urlopen(self.url + path) as answer:
            content = answer.read()
        return {"clock": 1000 * (time.perf_counter() - started), "server": 1000 * (self._spent() - before)}, content

    def _spent(self) -> float:
        times = self._measured.cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


def end_a_trial(engine: sa.Engine, study: optuna.Study) -> None:
    """One more finished trial, as a worker leaves it."""
    study.add_trial(optuna.trial.create_trial(value=0.001, user_attrs={"epochs": 8, "seconds": 1.5}))
    with engine.begin() as connection:
        insert = (
            "INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt) "
            "SELECT max(trial_id), study_id, max(number), 0 FROM trials WHERE study_id = :s GROUP BY study_id"
        )
        connection.execute(sa.text(insert), {"s": study._study_id})


def paint(url: str) -> float | None:
    """Milliseconds to the first contentful paint; None without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(url)
        for _ in range(100):
            found = page.evaluate("performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)")
            if found:
                break
            page.wait_for_timeout(50)
        browser.close()
    return float(found[0]) if found else None


def measure(address: str, folder: Path, size: int) -> dict[str, Any]:
    """The table's row of one size."""
    name, _ = filled_studies(address, folder, size)
    storage = open_storage(address)
    study = optuna.load_study(study_name=f"{name}/tpe/0", storage=storage)
    row: dict[str, Any] = {"size": size}
    dashboard = Dashboard(address, folder)
    try:
        dashboard.get("/hpo/login")  # templates and connections are those of any server that has run a while
        row["first"], _ = dashboard.get(f"/hpo/experiment?name={name}")
        time.sleep(0.6)
        row["again"], _ = dashboard.get(f"/hpo/experiment?name={name}")
        token = _poll(dashboard, name, "")[1]["token"]
        updates = []
        for _ in range(UPDATES):
            end_a_trial(storage.engine, study)
            time.sleep(0.6)  # polls within half a second share an answer
            spent, content = _poll(dashboard, name, token)
            assert content["token"] != token
            token = content["token"]
            updates.append(spent)
        row["update"] = {key: statistics.median(update[key] for update in updates) for key in ("clock", "server")}
        time.sleep(0.6)
        row["idle"], _ = _poll(dashboard, name, token)
        row["figure"], _ = dashboard.get(f"/hpo/api/figure?name={name}&figure=learning&scope=")
        tables = [dashboard.get(f"/hpo/trials?name={name}{values}")[0] for values in TABLES]
        row["trials"] = {key: max(table[key] for table in tables) for key in ("clock", "server")}
        row["paint"] = paint(f"{dashboard.url}/hpo/experiment?name={name}")
    finally:
        dashboard.close()
        storage.engine.dispose()
    return row


def _poll(dashboard: Dashboard, name: str, token: str) -> tuple[dict[str, float], dict[str, Any]]:
    spent, content = dashboard.get(f"/hpo/api/experiment?name={name}&have={token}")
    return spent, json.loads(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 10_000])
    sizes = parser.parse_args().sizes
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = ("first", "again", "update", "idle", "figure", "trials")
    print(f"{'size':>7}" + "".join(f"{column:>18}" for column in columns) + f"{'paint':>9}")
    with tempfile.TemporaryDirectory() as temporary, PostgresServer(Path(temporary) / "postgres") as server:
        for size in sizes:
            row = measure(server.address, Path(temporary), size)
            cells = "".join(f"{row[c]['server']:8.0f}/{row[c]['clock']:5.0f} ms " for c in columns)
            painted = "–" if row["paint"] is None else f"{row['paint']:.0f} ms"
            print(f"{size:7}{cells}{painted:>9}", flush=True)
    print("server / clock: processor time of the dashboard / what the client waits, in milliseconds")


if __name__ == "__main__":
    main()
