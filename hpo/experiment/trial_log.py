"""A trial's log, as ``hpo logs`` prints it: the artifact of a trial that has ended, the file of a running one."""

import json

import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial

from hpo.database import attributes
from hpo.errors import ExperimentError, UsageError, near_miss
from hpo.experiment.experiment import Experiment, StudyHandle
from hpo.files.artifacts import PREFIX, ArtifactFolder
from hpo.files.trial_folders import TrialFolders
from hpo.settings import Settings
from hpo.trainers.trial_log import LOG_NAME


def trial_log(experiment: Experiment, trial: str, settings: Settings) -> bytes:
    """The log of a trial: its number, or ``SAMPLER/REPEAT/NUMBER`` if the experiment has several studies.

    Raises:
        UsageError: for a text that names no trial.
        ExperimentError: if there is no such trial, it has no log, or its log is not on this machine.
    """
    study, number, trial_id = named_trial(experiment, trial)
    held = experiment.storage.get_trial(trial_id)
    lineage = held.user_attrs.get(attributes.LINEAGE)
    if isinstance(lineage, int):
        path = TrialFolders(settings.checkpoints, settings.home_path, study.key).of(lineage) / LOG_NAME
        if path.is_file() and not held.state.is_finished():
            return path.read_bytes()
    store = ArtifactFolder(settings.artifact_root, settings.artifacts)
    for artifact_id in reversed(_logs(held)):
        try:
            with store.open_reader(artifact_id) as file:
                return file.read()
        except ArtifactNotFound:
            continue
    if isinstance(lineage, int) and path.is_file():
        return path.read_bytes()
    what = f"trial {number} of {study.name!r} has no log here"
    if _logs(held):
        worker = str(held.user_attrs.get(attributes.WORKER, "another machine")).partition(":")[0]
        raise ExperimentError(f"{what}: it was trained on {worker}; a shared --checkpoint-dir makes logs readable")
    raise ExperimentError(
        f"{what}: a program's output and run.log(…) make one; what other code prints is in the logs of the workers, in "
        f"{settings.home_path / 'logs'}"
    )


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
