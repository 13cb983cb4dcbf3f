"""Writes the checkpoint of an epoch, once the trial's configuration is on record."""

from hpo.files.checkpoints import Checkpoint, CheckpointFolder
from hpo.trainers.protocol import EpochEnd
from hpo.worker.leases import Leases
from hpo.worker.running_trial import RunningTrial


def save_checkpoint(trial: RunningTrial, event: EpochEnd, folder: CheckpointFolder, leases: Leases) -> Exception | None:
    """Saves what the trainer offers after an epoch, if anything.

    Returns the error if the trainer cannot make it or makes something that cannot be saved: that is the trial's.

    Raises:
        CheckpointError: if the file cannot be written.
    """
    if event.snapshot is None or not _is_recorded(trial, leases):
        return None
    try:
        state = event.snapshot()
    except Exception as error:
        return error
    try:
        folder.save(trial.claim.lineage, Checkpoint(event.epoch, state, trial.history))
    except TypeError as error:
        return error
    return None


def _is_recorded(trial: RunningTrial, leases: Leases) -> bool:
    """Waits until the trial's configuration is on record; returns False if the trial was lost meanwhile.

    Without it there must be no checkpoint: a retry would draw another configuration, and go on from what this one had
    trained.
    """
    if trial.recorded is not None:
        trial.recorded.result()
        trial.recorded = None
    return not leases.is_lost(trial.trial_id)
