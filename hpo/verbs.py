"""The remaining verbs of the command line in Python: status, import, delete, list.

``hpo.compare`` and ``hpo.export`` are the packages of those names, which are called as functions.
"""

from pathlib import Path
from typing import Any

from hpo.api import load
from hpo.catalog import parts
from hpo.database.storage import open_storage
from hpo.experiment.deletion import contents, delete_experiment
from hpo.experiment.experiment import create_experiment, experiment_names, load_experiment
from hpo.experiment.imports import read_import, write_import
from hpo.experiment.starts import with_starts
from hpo.settings import Settings
from hpo.study_source import Trainers, trainer_modules
from hpo.studyfile.load import load_study_file
from hpo.trainers.loading import load_trainers


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


def import_trials(
    source: str | Path,
    into: str | Path,
    *,
    trainers: Trainers | None = None,
    storage: str | None = None,
    home: str | Path | None = None,
    settings: Settings | None = None,
) -> str:
    """Brings finished trials in as knowledge for an experiment's samplers, as ``hpo import`` does.

    They cost no budget and are no result. Workers that start afterwards know them.

    Args:
        source: a CSV file, or the name of an earlier experiment.
        into: the name of an experiment, or a study file, of which the experiment is made if there is none yet.

    Returns:
        A line on what was imported and what was left out.

    Raises:
        UsageError: for mistakes in the file, or an experiment that measures something else.
        ExperimentError: if there is no such experiment, or no trial fits.
    """
    modules = trainer_modules(trainers)
    settings = (settings or Settings()).replaced(storage=storage, home=home, trainers=modules)
    load_trainers(settings.trainers)
    is_file = str(into).endswith((".toml", ".json")) or Path(into).is_file()
    parsed = load_study_file(into) if is_file else None
    opened = open_storage(settings.storage, home=settings.home)
    study_file = parsed if parsed is not None else load_experiment(opened, str(into)).study_file
    read = read_import(opened, study_file, str(source))
    if parsed is None:
        return write_import(load_experiment(opened, str(into)), read)
    started, _ = with_starts(opened, parsed)
    return write_import(create_experiment(opened, started, settings.trainers)[0], read)


def list_parts(trainers: Trainers | None = None) -> dict[str, dict[str, str]]:
    """Trainers, networks, data sets, samplers, pruners and launchers: kind -> name -> one line."""
    return parts(trainer_modules(trainers) or "")
