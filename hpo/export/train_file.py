"""What ``hpo train`` does with a file: which training it asks for, where its files go, who is missing.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import datetime
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from hpo.errors import StudyFileError, UsageError
from hpo.experiment.experiment import MissingTrainerError
from hpo.export.retrain import (
    check_trainable,
    own_seed_of,
    own_seed_result,
    train_fresh_seeds,
    train_own_seed,
)
from hpo.export.train_result import TrainResult
from hpo.settings import Settings
from hpo.studyfile.load import load_study_file, read_table
from hpo.studyfile.model import StudyFile
from hpo.trainers.loading import load_trainers
from hpo.trainers.registry import TRAINERS


def train_file(
    file: str | Path,
    settings: Settings,
    *,
    seeds: int | None,
    report: Callable[[int, int, dict[str, float]], None] | None,
    diagnose: str | Path | None,
    attach: bool,
    model: str | Path | None,
    folder: str | Path | None,
    resume: str | Path | None = None,
) -> TrainResult:
    """Trains an exported file: with its own seed or fresh ones, for its model, or for a diagnosis.

    Raises:
        UsageError: for a file that still searches, and arguments that make no sense together.
    """
    from hpo.export.model import CLASSIFIER, NetworkKeeper, check_target, copy_model

    load_trainers(settings.trainers)
    study_file = _load_exported(file)
    if model is not None:
        check_target(Path(model))
        if seeds is not None or diagnose is not None:
            raise UsageError("--model writes the model of the file's own seed: leave out --seeds and --diagnose")
    if (check := TRAINERS[study_file.trainer].check) is not None:
        for config in study_file.example_configs():
            check(config, settings.data_dir, settings.download)
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    state = None if resume is None else Path(resume).absolute()
    if folder is None and state is not None:
        folder = state / "files"  # a program finds its own checkpoints there
    files = Path(folder or settings.home_path / "train" / f"{study_file.name}-{now}-{os.getpid()}").absolute()
    if diagnose is not None:
        return _train_and_diagnose(study_file, settings, Path(diagnose), seeds, report, attach=attach, resume=state)
    if seeds is not None:
        return train_fresh_seeds(study_file, settings, seeds, report, folder=files, resume=state)
    if model is None:
        return train_own_seed(study_file, settings, report, folder=files, resume=state)
    if study_file.trainer == CLASSIFIER:
        network = NetworkKeeper()
        result = train_own_seed(study_file, settings, report, folder=files, observe=network, resume=state)
        network.write(Path(model))
        return result
    result = train_own_seed(study_file, settings, report, folder=files, resume=state)
    copy_model(files / f"seed-{own_seed_of(study_file)}", Path(model), study_file.trainer)
    return result


def _train_and_diagnose(
    study_file: StudyFile,
    settings: Settings,
    folder: Path,
    seeds: int | None,
    report: Callable[[int, int, dict[str, float]], None] | None,
    *,
    attach: bool,
    resume: Path | None,
) -> TrainResult:
    from hpo.export.diagnose import attach_diagnosis, check_diagnosis, diagnose_file, train_and_diagnose_file

    check_trainable(study_file)
    check_diagnosis(study_file, settings, folder, attach=attach)
    if seeds is None and study_file.num_seeds > 1:
        result = train_own_seed(study_file, settings, report, resume=resume)
        diagnose_file(study_file, settings, folder, resume=resume)  # of the network of the first seed
    elif seeds is None:
        result = own_seed_result(study_file, train_and_diagnose_file(study_file, settings, folder, report, resume))
    else:
        result = train_fresh_seeds(study_file, settings, seeds, report, resume=resume)
        diagnose_file(study_file, settings, folder, resume=resume)
    if attach:
        attach_diagnosis(study_file, settings, folder)
    return result


def _load_exported(file: str | Path) -> StudyFile:
    """The study file; if it was exported and its trainer is not among those of this process, says what to give."""
    try:
        return load_study_file(file)
    except StudyFileError as error:
        content = read_table(file)
        provenance, trainer = content.get("provenance"), content.get("trainer")
        modules = provenance.get("trainers") if isinstance(provenance, dict) else None
        if isinstance(modules, str) and isinstance(trainer, str) and trainer not in TRAINERS:
            raise MissingTrainerError(
                f"{file} trains with {trainer!r}, which this process does not have; its experiment was launched with "
                f"--trainers {shlex.quote(modules)}",
                modules,
            ) from error
        raise
