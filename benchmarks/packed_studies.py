"""Whole studies with one worker, from ``hpo.launch`` to their end: one slot in its forms, then many.

For each: seconds by the clock; seconds of processor time, of this process and its workers (not of the database);
trained epochs a second; and the share of the slots' time in which they trained, as ``hpo status`` shows it.

``equal`` is a study of equal networks with ASHA, ``digits_mlp`` the space of ``studies/digits_mlp.toml``, random, every
trial to its end: mixed widths and batches.
"""

import argparse
import resource
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hpo
from hpo.launchers.progress import PlainProgress
from hpo.settings import Settings

DIGITS_MLP = Path(__file__).parents[1] / "studies" / "digits_mlp.toml"
DIGITS = {"dataset": "digits", "width_1": 64, "width_2": 32, "batch_size": 32, "epochs": 10}
"""The equal trials, as in ``benchmarks.packed``."""


@dataclass(frozen=True)
class Spent:
    """What a study took; ``busy``: the slots' share, None with one slot."""

    clock: float
    cpu: float
    epochs: int
    busy: float | None


def equal(trials: int, fixed: dict[str, Any] | None = None) -> dict[str, Any]:
    """A study of equal networks whose worse half is pruned early."""
    return {
        "name": "equal",
        "trainer": "classifier",
        "metric": "val_accuracy",
        "samplers": ["random"],
        "budget": {"trials": trials},
        "pruner": {"name": "asha", "min_epochs": 1, "reduction_factor": 3},
        "fixed": DIGITS if fixed is None else fixed,
        "space": {
            "lr": {"low": 1e-3, "high": 0.3, "log": True},
            "beta": {"low": 0.8, "high": 0.99},
            "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
        },
    }


def digits_mlp(trials: int, *, pruned: bool = False) -> dict[str, Any]:
    """The study file, with random configurations alone."""
    table = tomllib.loads(DIGITS_MLP.read_text())
    pruner = table["pruner"] if pruned else "none"
    return {**table, "samplers": ["random"], "repeats": 1, "budget": {"trials": trials}, "pruner": pruner}


def whole(table: dict[str, Any], launcher: str, slots: int | None, data_dir: Path | None = None) -> Spent:
    """One run of the study on a database of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder), slots=slots, data_dir=data_dir)
        began, cpu = time.perf_counter(), _cpu_seconds()
        loaded = hpo.launch(table, launcher=launcher, settings=settings, workers=1, progress=PlainProgress(sys.stderr))
        clock, cpu = time.perf_counter() - began, _cpu_seconds() - cpu
        (study,) = hpo.status(table["name"], settings=settings)["studies"]
        loaded._experiment.storage.engine.dispose()
    return Spent(clock, cpu, study["epochs"], study["busy_share"])


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(
    name: str, table: dict[str, Any], many: list[int | None], data_dir: Path | None = None, *, only_many: bool = False
) -> None:
    """Prints a row for each form; gains are over the fastest form of one slot."""
    print(f"\n{name}, one worker: {table['budget']['trials']} trials")
    print(f"{'':34} {'s by clock':>11} {'gain':>6} {'cpu s':>8} {'gain':>6} {'epochs/s':>9} {'slots busy':>11}")
    alone: list[Spent] = []
    for label, launcher, slots in [
        ("one slot, inline", "inline", 1),
        ("one slot", "local", 1),
        *((f"{count} slots" if count else "slots as the worker measures", "local", count) for count in many),
    ]:
        if only_many and slots == 1:
            continue
        spent = whole(table, launcher, slots, data_dir)
        if slots == 1:
            alone.append(spent)
        clock, cpu = (min((getattr(each, name) for each in alone), default=float("nan")) for name in ("clock", "cpu"))
        gains = clock / spent.clock, cpu / spent.cpu
        busy = "" if spent.busy is None else f"{spent.busy:.0%}"
        print(
            f"{label:34} {spent.clock:11.1f} {gains[0]:6.1f} {spent.cpu:8.1f} {gains[1]:6.1f} "
            f"{spent.epochs / spent.clock:9.1f} {busy:>11}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=96)
    parser.add_argument("--slots", type=int, nargs="*", default=[16, 64], help="beside what the worker measures")
    kinds = ["equal", "digits_mlp", "pruned"]
    parser.add_argument("--studies", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--only-many", action="store_true", help="leave out the forms of one slot")
    options = parser.parse_args()
    tables = {
        "equal": ("equal MLPs, ASHA", equal(options.trials)),
        "digits_mlp": ("studies/digits_mlp.toml, not pruned", digits_mlp(options.trials)),
        "pruned": ("studies/digits_mlp.toml, ASHA", digits_mlp(options.trials, pruned=True)),
    }
    for name in options.studies:
        measure(*tables[name], [*options.slots, None], only_many=options.only_many)


if __name__ == "__main__":
    main()
