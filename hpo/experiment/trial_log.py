"""A trial's log, as ``hpo logs`` prints it: the artifact of a trial that has ended, the file of a running one.

Where checkpoints go to an address, workers send both there; a running trial's log is some seconds behind.
"""

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from optuna.trial import FrozenTrial

from hpo.database import attributes
from hpo.errors import ExperimentError, UsageError, near_miss
from hpo.experiment.experiment import Experiment, StudyHandle
from hpo.files.artifacts import PREFIX, ArtifactFolder
from hpo.files.kept_folders import folder_copies
from hpo.files.trial_folders import TrialFolders
from hpo.settings import Settings
from hpo.trainers.trial_log import LOG_NAME, whole_log


def trial_log(experiment: Experiment, trial: str, settings: Settings) -> bytes:
    """The log of a trial: its number, or ``SAMPLER/REPEAT/NUMBER`` if the experiment has several studies.

    Raises:
        UsageError: for a text that names no trial.
        ExperimentError: if there is no such trial, it has no log, its log is not on this machine, or the shared
            address does not answer.
    """
    study, number, trial_id = named_trial(experiment, trial)
    held = experiment.storage.get_trial(trial_id)
    what = f"trial {number} of {study.name!r} has no log here"
    try:
        if (log := _log_of(held, study.key, settings)) is not None:
            return log
    except OSError as error:
        raise ExperimentError(f"{what}: {settings.checkpoints} does not answer ({error})") from error
    if _logs(held):
        worker = str(held.user_attrs.get(attributes.WORKER, "another machine")).partition(":")[0]
        raise ExperimentError(f"{what}: it was trained on {worker}; a shared --checkpoint-dir makes logs readable")
    raise ExperimentError(
        f"{what}: a program's output and run.log(…) make one; what other code prints is in the logs of the workers, in "
        f"{settings.home_path / 'logs'}"
    )


def _log_of(held: FrozenTrial, study_key: str, settings: Settings) -> bytes | None:
    """The log as this machine finds it; None if it does not. Raises OSError if the shared address does not answer."""
    lineage = held.user_attrs.get(attributes.LINEAGE)
    in_folder: list[Callable[[], bytes]] = []
    if isinstance(lineage, int):
        folder = TrialFolders(settings.checkpoints, settings.home_path, study_key).of(lineage)
        in_folder.append(functools.partial(_in_folder, folder))
        if (copies := folder_copies(settings.checkpoints, study_key)) is not None:
            in_folder.append(lambda: copies.read(lineage, LOG_NAME))
    store = ArtifactFolder(*settings.artifact_places)
    attached: list[Callable[[], bytes]] = [
        functools.partial(_attached, store, artifact_id) for artifact_id in reversed(_logs(held))
    ]
    for read in (*attached, *in_folder) if held.state.is_finished() else (*in_folder, *attached):
        with contextlib.suppress(FileNotFoundError):
            return read()
    return None


def _in_folder(folder: Path) -> bytes:
    if (log := whole_log(folder)) is None:
        raise FileNotFoundError(folder / LOG_NAME)
    return log


def _attached(store: ArtifactFolder, artifact_id: str) -> bytes:
    if (file := store.find(artifact_id)) is None:
        raise FileNotFoundError(artifact_id)
    with file:
        return file.read()


def named_trial(experiment: Experiment, trial: str) -> tuple[StudyHandle, int, int]:
    """The study, number and id of a trial that a person names by its number, or ``SAMPLER/REPEAT/NUMBER``.

    Raises:
        UsageError: for a text that names no trial.
        ExperimentError: if there is no such trial.
    """
    study, number = _named(experiment, trial)
    try:
        trial_id = experiment.storage.get_trial_id_from_study_id_trial_number(study.study_id, number)
    except (KeyError, sa.exc.DataError):
        raise ExperimentError(f"the study {study.name!r} has no trial {number}") from None
    return study, number, trial_id


def _named(experiment: Experiment, trial: str) -> tuple[StudyHandle, int]:
    prefix, _, text = trial.rpartition("/")
    if not text.isdecimal():
        raise UsageError(f"{trial!r} names no trial; expected its number, or SAMPLER/REPEAT/NUMBER")
    short = {study.name.removeprefix(f"{experiment.name}/"): study for study in experiment.studies}
    if prefix:
        name = prefix.removeprefix(f"{experiment.name}/")
        if name not in short:
            known = ", ".join(list(short)[:10])
            raise UsageError(
                f"the experiment {experiment.name!r} has no study {name!r}{near_miss(name, short)}: {known}"
            )
        return short[name], int(text)
    if len(short) > 1:
        first = next(iter(short))
        raise UsageError(
            f"the experiment {experiment.name!r} has {len(short)} studies; name one of them too, such as {first}/{text}"
        )
    return next(iter(short.values())), int(text)


def _logs(trial: FrozenTrial) -> list[str]:
    """The ids of the artifacts that hold the trial's log."""
    ids = []
    for key, value in trial.system_attrs.items():
        if key.startswith(PREFIX):
            try:
                filename = json.loads(value)["filename"]
            except (ValueError, TypeError, KeyError):
                continue  # written by somebody else
            if filename == LOG_NAME:
                ids.append(key.removeprefix(PREFIX))
    return ids
