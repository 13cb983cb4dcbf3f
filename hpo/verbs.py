"""The remaining verbs of the command line in Python: status, delete, list.

``hpo.compare`` and ``hpo.export`` are the packages of those names, which are called as functions.
"""

from pathlib import Path
from typing import Any

from hpo.api import load
from hpo.catalog import parts
from hpo.database.storage import open_storage
from hpo.experiment.deletion import contents, delete_experiment
from hpo.experiment.experiment import experiment_names
from hpo.settings import Settings
from hpo.study_source import Trainers, trainer_modules


def status(
    experiment: str | None = None,
    *,
    storage: str | None = None,
    home: str | Path | None = None,
    settings: Settings | None = None,
) -> Any:
    """Where an experiment stands, as a dict that shows itself as a table; without a name, the experiments' names.

    Raises:
        ExperimentError: with the near miss, if there is no such experiment.
    """
    chosen = (settings or Settings()).replaced(storage=storage, home=home)
    if experiment is None:
        return experiment_names(open_storage(chosen.storage, home=chosen.home))
    return load(experiment, settings=chosen).status()


def delete(
    experiment: str,
    *,
    storage: str | None = None,
    home: str | Path | None = None,
    settings: Settings | None = None,
) -> None:
    """Deletes an experiment: its studies, checkpoints and artifacts. It does not ask.

    Raises:
        ExperimentError: with the near miss, if there is no such experiment.
    """
    chosen = (settings or Settings()).replaced(storage=storage, home=home)
    delete_experiment(contents(open_storage(chosen.storage, home=chosen.home), experiment), chosen)


def list_parts(trainers: Trainers | None = None) -> dict[str, dict[str, str]]:
    """Trainers, networks, data sets, samplers, pruners and launchers: kind -> name -> one line."""
    return parts(trainer_modules(trainers) or "")
