"""Makes ``trainers/classifier/portfolio.json`` of the tables of real learning curves, and shows what it is worth.

    python -m benchmarks.portfolio                 # writes the file, of all tables that are there
    python -m benchmarks.portfolio --show          # each table as held-out data: a portfolio of the others on it

A portfolio is chosen greedily: each configuration is the one with which the best of the portfolio so far is best on
average over the tables, after 3, 9 and 27 epochs, by accuracy and by loss, for each training seed by itself. Widths are
left out of it: they depend on the network that somebody searches.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import curves

FILE = Path(__file__).parents[1] / "trainers" / "classifier" / "portfolio.json"
SIZE = 8
AFTER = (3, 9, 27)
"""Epochs: users train for less or more than the tables do."""

LEFT_OUT = ("width_1", "width_2")
WORST = 2.0
"""Largest regret that counts: how bad a bad configuration is does not matter."""

Floats = NDArray[np.float64]


def regrets(table: str) -> Floats:
    """Shape (configurations, tasks): 0 for the best of the table and 1 for the median one."""
    made = curves.load(table)
    tasks = []
    for values in (1 - made.val_accuracy, made.val_loss.astype(np.float64)):
        for epoch in AFTER:
            for seed in range(values.shape[1]):
                at = np.nan_to_num(values[:, seed, epoch - 1], nan=np.inf, posinf=np.inf)
                best, median = at.min(), np.median(at)
                tasks.append(np.minimum((at - best) / (median - best), WORST))
    return np.array(tasks).T


def tables() -> list[str]:
    """The tables that are there whose configurations are points of one sequence, so that they can be compared."""
    return [table for table in ("digits_mlp", "mnist_mlp") if curves.file_of(table).exists()]


def choose(names: list[str], size: int = SIZE, among: int | None = None) -> list[int]:
    """Numbers of configurations of the tables, the best first; of the first ``among`` of those that all have."""
    found = [regrets(name) for name in names]
    length = min([*map(len, found), *([] if among is None else [among])])
    # Each table counts alike, however many seeds it has.
    weights = np.concatenate([np.full(each.shape[1], 1 / each.shape[1]) for each in found])
    joined = np.concatenate([each[:length] for each in found], axis=1)
    chosen: list[int] = []
    best = np.full(joined.shape[1], WORST)
    for _ in range(size):
        scores = (np.minimum(joined, best) * weights).sum(axis=1) + 1e-3 * (joined * weights).sum(axis=1)
        scores[chosen] = np.inf
        chosen.append(int(scores.argmin()))
        best = np.minimum(best, joined[chosen[-1]])
    return chosen


def configurations(names: list[str]) -> list[dict[str, object]]:
    """The portfolio of these tables, with what they all fixed that matters for it."""
    file, points = curves.study_file(names[0]), curves.load(names[0]).points
    made: list[dict[str, object]] = []
    for number in choose(names):
        values: dict[str, object] = {"optimizer": "sgd"}
        for name, value in curves.configuration_at(file, points[number]).items():
            if name not in LEFT_OUT:
                values[name] = float(f"{value:.3g}") if isinstance(value, float) else value
        if values["scheduler"] == "exponential":
            values["exponential_gamma"] = file.fixed["exponential_gamma"]
        if values not in made:
            made.append(values)
    return made


def show() -> None:
    """The regret after 27 epochs of the best of 1, 2, 4 and 8 configurations, of the others' portfolio or at random."""
    print("| held-out table | of | 1 | 2 | 4 | 8 | random: 1 | 2 | 4 | 8 |")
    print("|---" * 10 + "|")
    rng = np.random.default_rng(0)
    for table in tables():
        others = [name for name in tables() if name != table] or [table]
        each = regrets(table)
        # Its best and median are of the whole table; chosen and drawn is from what the others have too.
        common = min(len(curves.load(name)) for name in [table, *others])
        seeds = each.shape[1] // (2 * len(AFTER))
        final = each[:, 2 * seeds : 3 * seeds].mean(axis=1)  # accuracy after the last epoch
        ours = [final[choose(others, count, common)].min() for count in (1, 2, 4, 8)]
        drawn = [
            np.mean([final[rng.choice(common, n, replace=False)].min() for _ in range(2000)]) for n in (1, 2, 4, 8)
        ]
        print(f"| {table} | {', '.join(others)} | " + " | ".join(f"{value:.3f}" for value in [*ours, *drawn]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print what a portfolio is worth on held-out tables")
    if parser.parse_args().show:
        show()
        return
    made = configurations(tables())
    FILE.write_text("[\n" + ",\n".join(f"  {json.dumps(values)}" for values in made) + "\n]\n")
    print(f"{FILE.name}: {len(made)} configurations of {', '.join(tables())}")


if __name__ == "__main__":
    main()
