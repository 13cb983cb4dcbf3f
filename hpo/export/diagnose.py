"""``hpo train --diagnose``: what a network looks like inside, from the same training that is reported.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import optuna

from hpo.database.storage import open_storage
from hpo.errors import UsageError
from hpo.export.resumption import Resumption
from hpo.export.retrain import Report, own_seed_of, training_place, value_of
from hpo.files.artifacts import attach_to_study
from hpo.settings import Settings
from hpo.studyfile.model import StudyFile
from hpo.trainers.protocol import Metrics, Run


def check_diagnosis(study_file: StudyFile, settings: Settings, folder: Path, *, attach: bool) -> None:
    """Finds before the training what would stop the diagnosis after it.

    Raises:
        UsageError: for a trainer that is not the image classifier, a folder that is a file, and, to ``attach``, a file
            that was not exported from a study of this database.
        StorageError: to ``attach``, where the database cannot be opened.
    """
    if study_file.trainer != "classifier":
        raise UsageError(f"--diagnose looks into networks of the trainer 'classifier', not of {study_file.trainer!r}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--diagnose needs a folder to write into; {folder} is a file")
    if attach:
        _source(study_file, settings)


def diagnose_file(
    study_file: StudyFile,
    settings: Settings,
    folder: Path,
    *,
    test: Literal["never", "last", "each"] = "last",
    report: Callable[[int, Metrics], None] | None = None,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Trains the file's configuration with its own seed and writes numbers, figures and pictures into ``folder``.

    ``report`` is called with each epoch, from 1, and its metrics; ``test`` is when the test set is looked at.
    ``resume`` is a folder for the training's state, from which it goes on if it was interrupted. Returns what
    ``diagnostics.json`` holds.
    """
    from hpo.trainers.classifier.config import ClassifierConfig
    from hpo.trainers.classifier.diagnostics.trained import train_and_diagnose

    config = study_file.configure(study_file.merge({}))
    assert isinstance(config, ClassifierConfig)
    place = training_place(study_file)
    run = Run(place.device, own_seed_of(study_file), data_dir=settings.data_dir, download=settings.download, test=test)
    if resume is None:
        return train_and_diagnose(config, run, folder, threads=place.threads, report=report)
    kept = Resumption(resume, study_file, run.seed, "diagnose")
    earlier = kept.restore(run)
    for epoch, metrics in enumerate(earlier, 1):
        if report is not None:
            report(epoch, metrics)
    done = train_and_diagnose(config, run, folder, threads=place.threads, report=report, earlier=earlier, each=kept.add)
    kept.clear()
    return done


def train_and_diagnose_file(
    study_file: StudyFile,
    settings: Settings,
    folder: Path,
    report: Report | None = None,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Trains with the file's own seed, as ``hpo train`` does, and looks into the network that this gives.

    Returns ``seed`` and the metrics of the epoch that counts.
    """
    seed = own_seed_of(study_file)
    history: list[dict[str, float]] = []

    def add_epoch(epoch: int, metrics: Metrics) -> None:
        history.append({name: float(value) for name, value in metrics.items() if value is not None})
        if report is not None:
            report(seed, epoch, history[-1])

    test: Literal["last", "each"] = "last" if study_file.value == "last" else "each"
    diagnose_file(study_file, settings, folder, test=test, report=add_epoch, resume=resume)
    return {"seed": seed, **value_of(study_file, history)}


def attach_diagnosis(study_file: StudyFile, settings: Settings, folder: Path) -> str:
    """Attaches the pictures and numbers in ``folder`` to the study that the file was exported from; returns its name.

    Raises:
        UsageError: for a file that was not exported from a study of this database.
        StorageError: where the database cannot be opened.
    """
    study = _source(study_file, settings)
    for path in sorted(folder.iterdir()):
        if path.suffix == ".png" or path.name == "diagnostics.json":
            attach_to_study(study, path, settings.artifact_root)
    return study.study_name


def _source(study_file: StudyFile, settings: Settings) -> optuna.Study:
    name = study_file.provenance.get("study")
    if name is None:
        raise UsageError(f"{study_file.name!r} names no study that it was exported from, so there is none to attach to")
    storage = open_storage(settings.storage, home=settings.home)
    try:
        return optuna.load_study(study_name=name, storage=storage, pruner=optuna.pruners.NopPruner())
    except KeyError:
        raise UsageError(f"there is no study {name!r} at {storage.address} to attach to") from None
