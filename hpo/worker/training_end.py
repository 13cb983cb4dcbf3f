"""What a trial is whose training has ended: complete, pruned for a number that is not finite, or failed, and why."""

import math
from collections.abc import Sequence

from optuna.trial import TrialState

from hpo.studyfile.model import StudyFile
from hpo.trainers.metrics import checked_metrics, missing_objective, value_epoch, with_latest
from hpo.trainers.protocol import Metrics
from hpo.worker.running_trial import RunningTrial

History = Sequence[dict[str, float]]


def end_of_training(
    study_file: StudyFile, trial: RunningTrial, final: Metrics | None
) -> tuple[TrialState, str | None] | Exception:
    """The state and the reason of a trial whose trainer has ended, or the error with which it fails.

    It is complete if it returned (``final``, which becomes ``trial.final``), or reported, a finite value.
    """
    objective = study_file.metric
    if final is not None:
        try:
            trial.final = checked_metrics(final, objective)
        except TypeError as error:
            return error
        bad = [f"{name} is {value}" for name, value in trial.final.items() if not math.isfinite(value)]
        return TrialState.PRUNED if bad else TrialState.COMPLETE, "; ".join(bad) or None
    chosen = value_epoch(trial.history, objective, study_file.value, study_file.direction)
    if not trial.history:
        return ValueError("the trainer ended without yielding metrics of an epoch")
    if chosen is None:
        return missing_objective(trial.history, objective)
    if not math.isfinite(trial.history[chosen][objective]):
        return TrialState.PRUNED, f"{objective} was never a finite number"
    second = study_file.second_metric
    if (absent := _absent(study_file, trial.history)) is not None:
        return missing_objective(trial.history, absent)
    if second is not None and not math.isfinite(other := with_latest({}, trial.history, chosen, second)[second]):
        return TrialState.PRUNED, f"{second} is {other}"
    return TrialState.COMPLETE, None


def _absent(study_file: StudyFile, history: History) -> str | None:
    """A metric that the study file names beside the first, as second objective or constraint, and that no epoch has."""
    second = study_file.second_metric
    names = [*(study_file.constraints or ()), *([] if second is None else [second])]
    return next((name for name in names if not any(name in metrics for metrics in history)), None)
