"""One worker on a study that has many trials already, in a process of its own: what its trials cost and what it weighs.

``python -m benchmarks.scale_worker ours|plain STUDY TRIALS EPOCHS STARTED`` with the address in ``HPO_STORAGE`` prints
one line of JSON: seconds from ``STARTED`` (a time stamp) to the first trial's start, milliseconds a trial in each part
of it and by the clock, MB resident at the end.
"""

import itertools
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

spent: dict[str, float] = defaultdict(float)
starts: list[float] = []


def start_trial() -> None:
    """Notes the time. What it took to get to the first trial, reading the history above all, is told by itself."""
    starts.append(time.time())
    if len(starts) == 1:
        spent.clear()


def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, with the time that it takes added to a part."""

    def call(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[part] += time.perf_counter() - started

    return call


def ours(name: str, num_trials: int, folder: Path) -> None:
    """The service's own worker, its parts timed on whichever thread they run."""
    import benchmarks.sleeping  # noqa: F401  (registers the trainer)
    from hpo.database import trial_writes
    from hpo.database.storage import open_storage
    from hpo.experiment.experiment import load_experiment
    from hpo.worker.claim_queue import ClaimQueue
    from hpo.worker.db_thread import DatabaseThread
    from hpo.worker.options import WorkerOptions
    from hpo.worker.study_runner import StudyRunner
    from hpo.worker.worker import Worker

    ClaimQueue._claim = timed("ask", ClaimQueue._claim)  # type: ignore[method-assign]
    DatabaseThread._write = timed("report", DatabaseThread._write)  # type: ignore[method-assign]
    Worker._refresh_for = timed("prune", Worker._refresh_for)  # type: ignore[method-assign]
    StudyRunner.would_prune = timed("prune", StudyRunner.would_prune)  # type: ignore[method-assign]
    trial_writes.finish = timed("tell", trial_writes.finish)
    start = Worker._start

    def noted(worker: Worker, proposal: Any) -> bool:
        start_trial()
        return start(worker, proposal)

    Worker._start = noted  # type: ignore[method-assign]
    experiment = load_experiment(open_storage(), name)
    Worker(experiment, WorkerOptions(str(folder / "checkpoints"), folder / "artifacts")).run()
    assert len(starts) == num_trials


def plain(name: str, num_trials: int, epochs: int) -> None:
    """Optuna's own ask and tell."""
    import optuna

    from benchmarks.overhead import suggest

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=name,
        storage=os.environ["HPO_STORAGE"],
        sampler=optuna.samplers.TPESampler(),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )

    def ask() -> optuna.Trial:
        trial = study.ask()
        suggest(trial)
        return trial

    for _ in range(num_trials):
        trial = timed("ask", ask)()
        start_trial()
        for epoch in range(1, epochs + 1):
            timed("report", trial.report)(1.0, epoch)
            assert not timed("prune", trial.should_prune)()
        timed("tell", study.tell)(trial, 1.0)


def main() -> None:
    who, name, num_trials, epochs, started = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:6])
    if who == "ours":
        ours(name, int(num_trials), Path(os.environ["HPO_HOME"]))
    else:
        plain(name, int(num_trials), int(epochs))
    result = {
        "first": starts[0] - started,
        "clock": 1000 * statistics.median(later - earlier for earlier, later in itertools.pairwise(starts)),
        "mb": psutil.Process().memory_info().rss / 2**20,
        "torch": "torch" in sys.modules,
        **{part: 1000 * spent[part] / len(starts) for part in ("ask", "report", "prune", "tell")},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
