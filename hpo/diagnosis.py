"""``hpo train --diagnose``: a configuration trained once more, watched, and what its network looks like inside."""

from pathlib import Path
from typing import Any

from hpo.artifacts import attach_to_study
from hpo.errors import UsageError
from hpo.export import training_place
from hpo.settings import Settings
from hpo.spec import StudyFile, configure
from trainers.protocol import Run


def diagnose_file(study_file: StudyFile, settings: Settings, folder: Path) -> dict[str, Any]:
    """Trains the file's configuration with its own seed and writes numbers, figures and pictures into ``folder``.

    Returns what ``diagnostics.json`` holds. Raises UsageError for a trainer that is not the image classifier.
    """
    from trainers.config import ClassifierConfig
    from trainers.diagnostics.trained import train_and_diagnose

    config = configure(study_file, {})
    if not isinstance(config, ClassifierConfig):
        raise UsageError(f"--diagnose looks into networks of the trainer 'classifier', not of {study_file.trainer!r}")
    device, threads = training_place(study_file)
    seed = study_file.provenance.get("seed", study_file.seed)
    run = Run(device, seed, data_dir=settings.data_dir, download=settings.download, test="last")
    return train_and_diagnose(config, run, folder, threads=threads)


def attach_diagnosis(study_file: StudyFile, settings: Settings, folder: Path) -> str:
    """Attaches the pictures and numbers in ``folder`` to the study that the file was exported from; returns its name.

    Raises:
        UsageError: for a file that was not exported from a study.
        StorageError: where the database cannot be opened.
    """
    import optuna

    from hpo.storage import open_storage

    name = study_file.provenance.get("study")
    if name is None:
        raise UsageError(f"{study_file.name!r} names no study that it was exported from, so there is none to attach to")
    storage = open_storage(settings.storage, home=settings.home)
    try:
        study = optuna.load_study(study_name=name, storage=storage, pruner=optuna.pruners.NopPruner())
    except KeyError:
        raise UsageError(f"there is no study {name!r} at {storage.address} to attach to") from None
    for path in sorted(folder.iterdir()):
        if path.suffix == ".png" or path.name == "diagnostics.json":
            attach_to_study(study, path, settings.artifacts)
    return str(name)
