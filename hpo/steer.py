"""Steering in Python: what ``hpo stop``, ``pause``, ``resume``, ``prune``, ``extend`` and ``enqueue`` do, unasked.

Each returns a sentence on what came of it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.database.storage import open_storage
from hpo.experiment import enqueueing, extension, steering
from hpo.experiment.experiment import Experiment, load_experiment
from hpo.settings import Settings

Home = str | Path | None


def _load(name: str, storage: str | None, home: Home, settings: Settings | None) -> Experiment:
    chosen = (settings or Settings()).replaced(storage=storage, home=home)
    return load_experiment(open_storage(chosen.storage, home=chosen.home), name)


def stop(
    experiment: str,
    *,
    finish_running: bool = False,
    storage: str | None = None,
    home: Home = None,
    settings: Settings | None = None,
) -> str:
    """Has the experiment's workers give their trials back, with their checkpoints, and end.

    Args:
        finish_running: whether the trials that run are trained to their end before.

    Raises:
        ExperimentError: with the near miss, if there is no such experiment.
    """
    return steering.stop(_load(experiment, storage, home, settings), finish_running=finish_running).message


def pause(
    experiment: str,
    *,
    finish_running: bool = False,
    storage: str | None = None,
    home: Home = None,
    settings: Settings | None = None,
) -> str:
    """Has the experiment's workers give their trials back and wait for :func:`resume`; as :func:`stop`.

    Raises:
        ExperimentError: also if it is stopped.
    """
    return steering.pause(_load(experiment, storage, home, settings), finish_running=finish_running).message


def resume(experiment: str, *, storage: str | None = None, home: Home = None, settings: Settings | None = None) -> str:
    """Lets a paused or stopped experiment go on; workers that a stop has ended have to be launched again.

    Raises:
        ExperimentError: with the near miss, if there is no such experiment.
    """
    return steering.resume(_load(experiment, storage, home, settings)).message


def prune(
    experiment: str,
    trial: int | str,
    *,
    storage: str | None = None,
    home: Home = None,
    settings: Settings | None = None,
) -> str:
    """Has a running trial pruned: it ends with the value that it has.

    Args:
        trial: its number; ``"SAMPLER/REPEAT/NUMBER"`` if the experiment has several studies.

    Raises:
        UsageError: for what names no trial.
        ExperimentError: if there is no such experiment or trial, or it does not run.
    """
    return steering.prune(_load(experiment, storage, home, settings), str(trial)).message


def extend(
    experiment: str,
    *,
    trials: int | str | None = None,
    epochs: int | str | None = None,
    hours: float | str | None = None,
    seconds: float | str | None = None,
    gpu_hours: float | str | None = None,
    storage: str | None = None,
    home: Home = None,
    settings: Settings | None = None,
) -> str:
    """Gives each search of the experiment a larger budget, which running workers or the next launch spend.

    Args:
        trials, epochs, hours, seconds, gpu_hours: the new number, or ``"+N"`` for so many more; of a unit that the
            budget has.

    Raises:
        UsageError: for another unit, or a number that is not larger.
        ExperimentError: with the near miss, if there is no such experiment.
    """
    given = {"trials": trials, "epochs": epochs, "hours": hours, "seconds": seconds, "gpu_hours": gpu_hours}
    wanted = {unit: str(count) for unit, count in given.items() if count is not None}
    return extension.extend(_load(experiment, storage, home, settings), wanted).message


def enqueue(
    experiment: str,
    values: Mapping[str, Any],
    *,
    sampler: str | None = None,
    repeat: int | None = None,
    storage: str | None = None,
    home: Home = None,
    settings: Settings | None = None,
) -> str:
    """Has a configuration tried next, as a trial of the budget, in each study that can take it.

    Args:
        values: hyperparameters by name; the others are drawn.
        sampler, repeat: only in these studies.

    Raises:
        UsageError: for values that the space does not have.
        ExperimentError: if there is no such experiment, its budget is given out, or the configuration waits already.
    """
    found = _load(experiment, storage, home, settings)
    return enqueueing.enqueue(found, values, sampler=sampler, repeat=repeat).message
