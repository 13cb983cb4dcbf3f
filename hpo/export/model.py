"""The model of a trial as a file: ``hpo export EXPERIMENT --model FILE`` and ``hpo train FILE --model FILE``.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from hpo.database import attributes
from hpo.errors import ExperimentError, UsageError
from hpo.experiment.experiment import Experiment
from hpo.experiment.results import BestTrial
from hpo.files.kept_folders import KeptFolder
from hpo.files.trial_folders import TrialFolders
from hpo.settings import Settings
from hpo.trainers.model_file import model_files

CLASSIFIER = "classifier"


def check_target(path: Path) -> None:
    """Raises UsageError if no file can be written at ``path``."""
    if path.is_dir():
        raise UsageError(f"--model needs a file to write; {path} is a folder")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {path.absolute().parent} to write {path.name} in")


def export_model(experiment: Experiment, best: BestTrial, settings: Settings, path: Path) -> Path:
    """Copies the model that a trial kept to ``path``, from here or from the shared address; returns the original.

    Raises:
        ExperimentError: if the trial has none, or its folder is not here; says what to do.
    """
    check_target(path)
    study = next(study for study in experiment.studies if study.name == best.study)
    lineage = int(best.attrs[attributes.LINEAGE])
    folder = TrialFolders(settings.checkpoints, settings.home_path, study.key).of(lineage)
    what = f"trial {best.number} of {best.study} has no model"
    try:
        kept = KeptFolder(settings, study.key, lineage)
        model = kept.model()
        if model is not None and not kept.is_here:
            kept.fetch(model, path)
            return Path(model)
    except OSError as error:
        raise ExperimentError(f"{what} here: {settings.checkpoints} does not answer ({error})") from error
    if model is None:
        if kept.where is None and not folder.is_dir():
            worker = str(best.attrs.get(attributes.WORKER, "another machine")).partition(":")[0]
            why = (
                f"its folder is not here ({folder}): keep_folders = {experiment.study_file.keep_folders!r}, and it was "
                f"trained on {worker}; a shared --checkpoint-dir makes folders of all machines readable"
            )
        else:
            why = "its code calls run.save_model(…) or writes a file called model.* into its folder; this one did not"
        if experiment.trainer == CLASSIFIER:
            # Of another seed of the same configuration, or of a version that kept none.
            name = shlex.quote(experiment.name)
            if experiment.study_file.num_seeds > 1:
                why = "of a trial that is the mean over several seeds no weights are kept"
            elif kept.where is not None or folder.is_dir():
                why = "its weights were not kept"
            why += "; train it again:\n"
            why += f"  hpo export {name} --output best.toml && hpo train best.toml --model {shlex.quote(str(path))}"
        raise ExperimentError(f"{what}: {why}")
    copy_file(folder / model, path)
    return folder / model


def copy_model(folder: Path, path: Path, trainer: str) -> None:
    """Copies the model in ``folder`` to ``path``. Raises ExperimentError if the trainer saved none."""
    models = model_files(folder)
    if not models:
        raise ExperimentError(
            f"the trainer {trainer!r} kept no model: call run.save_model(…), or write a file called model.* into the "
            "trial's folder"
        )
    copy_file(models[0], path)


class NetworkKeeper:
    """Given to the classifier as ``Run.observe``, holds its network until the end of the training."""

    def __init__(self) -> None:
        self._network: Any = None

    def __call__(self, network: Any) -> None:
        self._network = network

    def write(self, path: Path) -> None:
        """Writes the network's ``state_dict``, on the CPU; ``torch.load(path, weights_only=True)`` reads it."""
        import torch

        state = {name: value.detach().cpu().clone() for name, value in self._network.state_dict().items()}
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(state, aside)
        os.replace(aside, path)


def copy_file(source: Path, target: Path) -> None:
    """Copies a file; the copy appears whole or not at all."""
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, aside)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
