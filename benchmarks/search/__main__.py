"""The samplers and pruners of this service beside plain Optuna's at equal epochs, on real curves and synthetic ones.

    python -m benchmarks.search                                   # every pairing that takes seconds
    python -m benchmarks.search "tpe + asha" "Optuna tpe + asha" --seeds 20

No database and no training: the curves are those of ``benchmarks/curves`` and of formulas. Runs that are in the file of
``--results`` are not repeated, so that a run in parts gives what one run gives; delete it after a change of a sampler.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import scipy.stats  # type: ignore[import-untyped]
from numpy.typing import NDArray
from optuna.exceptions import ExperimentalWarning

from benchmarks.search.pairings import PAIRINGS
from benchmarks.search.searches import run
from benchmarks.search.tasks import Task, all_tasks

BUDGETS = [540, 1620]
"""Epochs: 20 and 60 trainings."""

Floats = NDArray[np.float64]


def key_of(pairing: str, task: str, seed: int, slots: int, epochs: int, more: str = "") -> str:
    return f"{pairing} | {task} | {seed} | {slots} | {epochs}{more}"


class Results:
    """Runs by their key, kept in a file of JSON lines if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._runs: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                record = json.loads(line)
                self._runs[record["key"]] = record

    def __contains__(self, key: str) -> bool:
        return key in self._runs

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._runs[key]

    def add(self, key: str, record: dict[str, Any]) -> None:
        self._runs[key] = {"key": key, **record}
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(self._runs[key]) + "\n")


def measure(
    results: Results, pairings: list[str], tasks: list[Task], seeds: int, slots: int, budgets: list[int], until: float
) -> bool:
    """Makes the runs that are missing; False if ``until``, on the monotonic clock, came before the last one."""
    for seed in range(seeds):
        for name in pairings:
            for task in tasks:
                key = key_of(name, task.name, seed, slots, budgets[-1])
                if key in results:
                    continue
                if time.monotonic() > until:
                    return False
                began = time.process_time()
                course = run(PAIRINGS[name].make(task, seed), task, budgets, slots)
                results.add(key, {**vars(course), "budgets": budgets, "cpu": round(time.process_time() - began, 2)})
    return True


def interval(values: Floats) -> tuple[float, float]:
    """The mean, and half of its 95 % t interval; nan if there is one value."""
    if len(values) < 2:
        return float(values.mean()), float("nan")
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def regrets(results: Results, pairing: str, tasks: list[Task], slots: int, budget: int, most: int) -> Floats:
    """Shape (seeds, tasks): of the seeds with which every task has been run."""
    rows = []
    for seed in range(10_000):
        keys = [key_of(pairing, task.name, seed, slots, most) for task in tasks]
        if not all(key in results for key in keys):
            break
        rows.append([results[key]["regrets"][results[key]["budgets"].index(budget)] for key in keys])
    return np.array(rows).reshape(-1, len(tasks))


def show(results: Results, pairings: list[str], tasks: list[Task], slots: int, budgets: list[int]) -> None:
    """A table of mean regrets for each budget, ours beside its counterpart."""
    for budget in budgets:
        print(
            f"\nRegret at {budget} epochs, {slots} at once; ± half a 95 % interval over seeds of the mean over tasks\n"
        )
        print(
            "| pairing | seeds | all tasks | " + " | ".join(task.name for task in tasks) + " | minus its counterpart |"
        )
        print("|---" * (len(tasks) + 4) + "|")
        table = {name: regrets(results, name, tasks, slots, budget, budgets[-1]) for name in pairings}
        for name, each in sorted(table.items(), key=lambda item: item[1].mean() if len(item[1]) else np.inf):
            if not len(each):
                continue
            mean, half = interval(each.mean(axis=1))
            other = table.get(PAIRINGS[name].counterpart or "")
            against = ""
            if other is not None and len(other):
                both = min(len(each), len(other))
                apart, width = interval((each[:both] - other[:both]).mean(axis=1))
                against = f"{apart:+.3f} ± {width:.3f}"
            by_task = " | ".join(f"{value:.3f}" for value in each.mean(axis=0))
            print(f"| {name} | {len(each)} | {mean:.3f} ± {half:.3f} | {by_task} | {against} |")


SLOW = ("gp", "Optuna gp")
"""Samplers whose draws take tenths of a second: only if they are named."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairings", nargs="*", metavar="PAIRING", help="default: all but those with gp")
    parser.add_argument("--list", action="store_true", help="print the pairings and the tasks")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slots", type=int, default=1, help="trials at once")
    parser.add_argument("--epochs", type=int, nargs="+", default=BUDGETS, help=f"default: {BUDGETS}")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="those whose names begin so; default: all")
    parser.add_argument("--results", type=Path, help="file of JSON lines to go on with")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run later; show what there is")
    options = parser.parse_args(arguments)
    tasks = [t for t in all_tasks() if not options.tasks or any(t.name.startswith(name) for name in options.tasks)]
    if options.list:
        print("\n".join([*PAIRINGS, "", *(task.name for task in tasks)]))
        return
    if unknown := [name for name in options.pairings if name not in PAIRINGS]:
        parser.error(f"no such pairing: {', '.join(unknown)}; --list prints them")
    pairings = options.pairings or [name for name in PAIRINGS if not name.startswith(SLOW)]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    results = Results(options.results)
    budgets = sorted(options.epochs)
    complete = measure(
        results, pairings, tasks, options.seeds, options.slots, budgets, time.monotonic() + options.seconds
    )
    if not complete:
        print("not all runs were made; the table holds those that were", file=sys.stderr)
    show(results, pairings, tasks, options.slots, budgets)


if __name__ == "__main__":
    main()
