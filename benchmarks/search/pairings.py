"""The pairings of sampler and pruner that are compared: ours and plain Optuna's, and who stands beside whom."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.search.searches import OurSearch, PlainSearch, Search
from benchmarks.search.tasks import Task

ASHA = {"name": "asha", "min_epochs": 1, "reduction_factor": 3}
OUR_PRUNERS: dict[str, Any] = {
    "none": "none",
    "median": {"name": "median", "n_startup_trials": 5, "min_epochs": 2},
    "asha": ASHA,
    "hyperband": {"name": "hyperband", "min_epochs": 1, "reduction_factor": 3},
}


@dataclass(frozen=True)
class Pairing:
    """One way to search.

    Attributes:
        make: a search of a task and a seed.
        counterpart: name of the plain Optuna pairing that ours is not to be worse than; None for Optuna's own.
    """

    name: str
    make: Callable[[Task, int], Search]
    counterpart: str | None = None


def _ours(label: str, sampler: Any, pruner: str, counterpart: str) -> Pairing:
    return Pairing(
        f"{label} + {pruner}",
        lambda task, seed: OurSearch(task, sampler, OUR_PRUNERS[pruner], seed),
        f"Optuna {counterpart} + {pruner}",
    )


def _plain(sampler: str, pruner: str) -> Pairing:
    return Pairing(f"Optuna {sampler} + {pruner}", lambda task, seed: PlainSearch(task, sampler, pruner, seed))


def _all() -> list[Pairing]:
    made = []
    for pruner in ("none", "asha", "hyperband", "median"):
        for sampler, counterpart in (
            ("random", "random"),
            ("qmc", "qmc"),
            ("tpe", "tpe multivariate"),
            ("cmaes", "cmaes"),
            ("auto", "tpe multivariate"),
            ("gp", "gp"),
        ):
            made.append(_ours(sampler, sampler, pruner, counterpart))
        made += [_plain(sampler, pruner) for sampler in ("random", "qmc", "tpe multivariate", "cmaes", "gp")]
    as_optuna = {"name": "tpe", "pruned": "optuna"}
    made.append(_ours("tpe, pruned as Optuna", as_optuna, "asha", "tpe multivariate"))
    for count in (5, 20):
        started = {"name": "tpe", "n_startup_trials": count}
        made.append(_ours(f"tpe, {count} to start", started, "asha", "tpe multivariate"))
    return made


PAIRINGS = {pairing.name: pairing for pairing in _all()}
