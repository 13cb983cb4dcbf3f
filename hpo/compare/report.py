"""A comparison for people and machines: terminal, JSON, CSV, one self-contained page."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.compare.comparison import Comparison, compare_studies
from hpo.compare.load import Loader
from hpo.compare.tasks import TaskComparison, compare_tasks
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.errors import UsageError

# Trains a configuration of an experiment once for each seed and returns the metrics of each run.
Train = Callable[[str, Mapping[str, Any], Sequence[int]], list[dict[str, float]]]
FRESH_SEEDS = 1_000_000  # retraining seeds count from here, far from those of any trial that a search was lucky with


@dataclass(frozen=True)
class Report:
    """One or several experiments; ``tasks`` if there are several."""

    experiments: tuple[Comparison, ...]
    tasks: TaskComparison | None = None


def compare(
    storage: Storage | Loader, experiments: Sequence[str], *, retrain: int = 0, train: Train | None = None
) -> Report:
    """Compares the samplers of each experiment, and ranks them over the experiments if there are several.

    ``retrain`` trains each sampler's best configuration with that many fresh seeds, by ``train``.

    Raises:
        ExperimentError: for an unknown experiment, or studies that cannot be compared.
        StorageError: if the database does not answer.
        UsageError: for retraining with fewer than two seeds or of two objectives, or the same experiment twice.
    """
    if retrain and (retrain < 2 or train is None):
        raise UsageError(f"--retrain must be at least 2: {retrain} seed gives no spread")
    if len(set(experiments)) != len(experiments):
        raise UsageError(f"an experiment is named twice: {', '.join(experiments)}")
    loader = storage if isinstance(storage, Loader) else Loader(storage)
    found = []
    for name in experiments:
        if retrain and train is not None:
            retrain_best(loader, name, retrain, train)
        found.append(compare_studies(loader.load(name)))
    return Report(tuple(found), compare_tasks(found) if len(found) > 1 else None)


def retrain_best(loader: Loader, experiment: str, num_seeds: int, train: Train) -> None:
    """Trains each sampler's best configuration with fresh seeds and keeps the results with the study it is from."""
    seeds = list(range(FRESH_SEEDS, FRESH_SEEDS + num_seeds))
    comparison = compare_studies(loader.load(experiment))
    if len(comparison.objectives) > 1:
        raise UsageError(
            f"--retrain N trains the best of one metric again, and {experiment!r} has two: write its Pareto front with "
            "hpo export --pareto, and train a file of it with hpo train FILE --seeds N"
        )
    tested = _test_metric(comparison.metric)
    for sampler in comparison.samplers.values():
        best = sampler.best
        if best is None or best.study_id is None:
            continue
        runs = train(experiment, best.given, seeds)
        kept = {
            "trial": best.number,
            "seeds": seeds,
            "validation": [_finite(run[comparison.metric]) for run in runs],
            "test": [_finite(run[tested]) for run in runs] if tested is not None and tested in runs[0] else None,
        }
        loader.storage.set_study_user_attr(best.study_id, attributes.RETRAINED, kept)


def _finite(value: float) -> float | None:
    """None for a run that diverged: JSON has no other number for it, and a page that reads it would break for good."""
    return float(value) if math.isfinite(value) else None


def _test_metric(metric: str) -> str | None:
    return metric.replace("val_", "test_", 1) if metric.startswith("val_") else None
