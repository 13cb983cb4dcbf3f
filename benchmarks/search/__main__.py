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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Setting:
    """How searches run.

    Attributes:
        budgets: epochs after which the regret is taken, ascending.
        slots: trials at once.
        in_step: epochs of all trials last the same, as in a pack; else what they took in the table.
        most_running: limit on the trials that run at once, below ``slots``; None: none.
    """

    budgets: tuple[int, ...]
    slots: int = 1
    in_step: bool = False
    most_running: int | None = None

    def key(self, pairing: str, task: str, seed: int) -> str:
        """Names one run in a file of results."""
        more = (" | in step" if self.in_step else "") + (f" | most {self.most_running}" if self.most_running else "")
        return f"{pairing} | {task} | {seed} | {self.slots} | {self.budgets[-1]}{more}"


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
    results: Results, pairings: list[str], tasks: list[Task], seeds: int, setting: Setting, until: float
) -> bool:
    """Makes the runs that are missing; False if ``until``, on the monotonic clock, came before the last one."""
    for seed in range(seeds):
        for name in pairings:
            for task in tasks:
                key = setting.key(name, task.name, seed)
                if key in results:
                    continue
                if time.monotonic() > until:
                    return False
                began = time.process_time()
                course = run(
                    PAIRINGS[name].make(task, seed),
                    task,
                    list(setting.budgets),
                    setting.slots,
                    setting.in_step,
                    setting.most_running,
                )
                taken = {"budgets": setting.budgets, "cpu": round(time.process_time() - began, 2)}
                results.add(key, {**vars(course), **taken})
    return True


def interval(values: Floats) -> tuple[float, float]:
    """The mean, and half of its 95 % t interval; nan if there is one value."""
    if len(values) < 2:
        return float(values.mean()), float("nan")
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def regrets(results: Results, pairing: str, tasks: list[Task], setting: Setting, budget: int) -> Floats:
    """Shape (seeds, tasks): of the seeds with which every task has been run."""
    rows = []
    for seed in range(10_000):
        keys = [setting.key(pairing, task.name, seed) for task in tasks]
        if not all(key in results for key in keys):
            break
        rows.append([results[key]["regrets"][list(results[key]["budgets"]).index(budget)] for key in keys])
    return np.array(rows).reshape(-1, len(tasks))


def show(results: Results, pairings: list[str], tasks: list[Task], setting: Setting) -> None:
    """A table of mean regrets for each budget, ours beside its counterpart."""
    limit = f", at most {setting.most_running} of them" if setting.most_running else ""
    together = f"{setting.slots} at once{' in step' if setting.in_step else ''}{limit}"
    head = " | ".join(task.name for task in tasks)
    for budget in setting.budgets:
        print(f"\nRegret at {budget} epochs, {together}; ± half a 95 % interval over seeds of the mean over tasks\n")
        print(f"| pairing | seeds | all tasks | {head} | minus its counterpart |")
        print("|---" * (len(tasks) + 4) + "|")
        table = {name: regrets(results, name, tasks, setting, budget) for name in pairings}
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
    parser.add_argument("--in-step", action="store_true", help="epochs of all trials last the same, as in a pack")
    parser.add_argument("--most-running", type=int, help="at most so many trials at once, whatever the slots")
    parser.add_argument("--epochs", type=int, nargs="+", default=BUDGETS, help=f"default: {BUDGETS}")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="those whose names begin so; default: all")
    parser.add_argument("--results", type=Path, help="file of JSON lines to go on with")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run later; show what there is")
    options = parser.parse_args(arguments)
    tasks = all_tasks(options.tasks or ("",))
    if not tasks:
        parser.error(f"no task begins with {' or '.join(options.tasks)}; --list prints them")
    if options.list:
        print("\n".join([*PAIRINGS, "", *(task.name for task in tasks)]))
        return
    if unknown := [name for name in options.pairings if name not in PAIRINGS]:
        parser.error(f"no such pairing: {', '.join(unknown)}; --list prints them")
    pairings = options.pairings or [name for name in PAIRINGS if not name.startswith(SLOW)]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    results = Results(options.results)
    setting = Setting(tuple(sorted(options.epochs)), options.slots, options.in_step, options.most_running)
    complete = measure(results, pairings, tasks, options.seeds, setting, time.monotonic() + options.seconds)
    if not complete:
        print("not all runs were made; the table holds those that were", file=sys.stderr)
    show(results, pairings, tasks, setting)


if __name__ == "__main__":
    main()
