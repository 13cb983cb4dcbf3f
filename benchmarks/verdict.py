"""Which test decides between two samplers at few repeats, and how often it errs: ``python -m benchmarks.verdict``.

Searches of the table of real learning curves of the digits are replayed with the code of a worker: some hundred
searches of each sampler, without a pruner. A simulated experiment draws repeats of two samplers from them.

- **Error**: how often a procedure decides if both samples are of the same sampler. The worst of all searches counts.
- **Equal means**: how often it decides between random search and another sampler whose values are moved so that both
  have the same mean; their spreads and shapes stay different.
- **Power**: how often it names the better one, of random search against TPE and against CMA-ES, and of random search
  against itself moved by two standard deviations.

Searches are kept in ``--pool FILE``, with which a run that was ended goes on.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.search.searches import OurSearch
from benchmarks.search.tasks import Task, all_tasks
from benchmarks.verdict_procedures import PROCEDURES, Floats, Procedure, Sample

SAMPLERS = ("random", "tpe", "cmaes")
TRIALS = 30
LENGTHS = (12, 30)
SHIFT = 2.0
PART = 20
"""Searches after which the pool's file is written."""


def searched(task: Task, sampler: str, seed: int, trials: int = TRIALS) -> list[float]:
    """The value of each trial of one search, in order."""
    search = OurSearch(task, sampler, "none", seed)
    values = []
    for number in range(trials):
        configuration, training_seed = search.ask(number)
        curve, _ = task.train(configuration, training_seed)
        search.tell(number, float(curve[-1]), pruned=False)
        values.append(float(curve[-1]))
    return values


def make_pool(tasks: list[Task], searches: int, path: Path | None) -> dict[str, Floats]:
    """The searches of each task and sampler, shape (searches, TRIALS), under ``TASK/SAMPLER``."""
    pool: dict[str, Floats] = {}
    if path is not None and path.exists():
        with np.load(path) as kept:
            pool = {name: kept[name] for name in kept.files}
    for task in tasks:
        for sampler in SAMPLERS:
            name = f"{task.name}/{sampler}"
            made = pool.get(name, np.empty((0, TRIALS)))
            while len(made) < searches:
                last = min(searches, len(made) + PART)
                more = [searched(task, sampler, seed) for seed in range(len(made), last)]
                made = pool[name] = np.concatenate([made, np.array(more)])
                if path is not None:
                    np.savez_compressed(path, **pool)  # type: ignore[arg-type]
    return {name: values[:searches] for name, values in pool.items()}


def sample(searches: Floats, chosen: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", moved: float = 0.0) -> Sample:
    """The searches of the numbers ``chosen`` (experiments, repeats), their values moved."""
    trials = searches[chosen] + moved
    curves = np.minimum.accumulate(trials, axis=2)
    return Sample(curves[:, :, -1], curves.mean(axis=2), trials)


@dataclass(frozen=True, eq=False)
class Case:
    """Two samplers to tell apart; ``kind``: ``error``, ``equal means`` or ``power``."""

    kind: str
    name: str
    first: Floats
    second: Floats
    moved: float = 0.0
    same: bool = False


def cases(pool: dict[str, Floats], tasks: list[Task]) -> list[Case]:
    made = []
    for task in tasks:
        for length in LENGTHS:
            of = {sampler: pool[f"{task.name}/{sampler}"][:, :length] for sampler in SAMPLERS}
            where = f"{task.name}, {length} trials"
            for sampler, values in of.items():
                made.append(Case("error", f"{sampler} twice, {where}", values, values, same=True))
            best = of["random"].min(axis=1)
            for sampler in SAMPLERS[1:]:
                ahead = float(best.mean() - of[sampler].min(axis=1).mean())
                name = f"random, {sampler}, {where}"
                made.append(Case("equal means", name, of["random"], of[sampler], ahead))
                if length == TRIALS and ahead > 0:
                    made.append(Case("power", name, of["random"], of[sampler]))
            if length == TRIALS:
                shift = -SHIFT * float(best.std(ddof=1))
                made.append(Case("power", f"shifted, {where}", of["random"], of["random"], shift, same=True))
    return made


def rates(case: Case, repeats: int, experiments: int, procedures: dict[str, Procedure]) -> dict[str, float]:
    """How often each procedure decides (``power``: in favour of the second sampler) in so many experiments."""
    rng = np.random.default_rng([repeats, *case.name.encode()])
    num_first, num_second = len(case.first), len(case.second)
    if case.same:  # two samples without a search in common
        both = rng.random((experiments, num_first)).argpartition(2 * repeats, axis=1)[:, : 2 * repeats]
        first, second = both[:, :repeats], both[:, repeats:]
    else:
        first = rng.random((experiments, num_first)).argpartition(repeats, axis=1)[:, :repeats]
        second = rng.random((experiments, num_second)).argpartition(repeats, axis=1)[:, :repeats]
    a, b = sample(case.first, first), sample(case.second, second, case.moved)
    found = {}
    for name, decide in procedures.items():
        decided = decide(a, b)
        found[name] = float((decided == 1).mean() if case.kind == "power" else (decided != 0).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=200, help="of each sampler")
    parser.add_argument("--experiments", type=int, default=4000, help="simulated ones in each case")
    parser.add_argument("--repeats", type=int, nargs="*", default=[4, 5, 7])
    parser.add_argument("--pool", type=Path, help="file of searches: read if it is there, and written")
    parser.add_argument("--cases", action="store_true", help="print each case, not only the worst or mean of a kind")
    options = parser.parse_args()
    tasks = all_tasks(("digits_mlp",))
    made = cases(make_pool(tasks, options.searches, options.pool), tasks)
    for repeats in options.repeats:
        found = {case: rates(case, repeats, options.experiments, PROCEDURES) for case in made}
        print(f"\n{repeats} repeats\n")
        print("| procedure | error, worst | error, mean | equal means, worst | power, mean |\n|---|---|---|---|---|")
        for name in PROCEDURES:
            of = {kind: [found[case][name] for case in made if case.kind == kind] for kind in KINDS}
            columns = [max(of["error"]), np.mean(of["error"]), max(of["equal means"]), np.mean(of["power"])]
            print(f"| {name} | " + " | ".join(f"{100 * value:.1f} %" for value in columns) + " |", flush=True)
        if options.cases:
            for case in made:
                print(f"{case.kind}: {case.name}: " + ", ".join(f"{n} {100 * v:.1f}" for n, v in found[case].items()))


KINDS = ("error", "equal means", "power")


if __name__ == "__main__":
    main()
