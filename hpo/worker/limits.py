"""What a running trial may still take: the time of its search, its share of the epochs, and its own time."""

import dataclasses
import time

import sqlalchemy as sa

from hpo.database import claims
from hpo.studyfile.model import StudyFile
from hpo.worker.db_thread import DatabaseThread
from hpo.worker.heartbeat import set_deadline
from hpo.worker.running_trial import RunningTrial


class Limits:
    """Asked at the end of each epoch, from the thread that trains.

    Attributes:
        deadlines: study id -> when its time of GPUs is over, on the monotonic clock; others' trials change it.
    """

    def __init__(self, study_file: StudyFile, engine: sa.Engine, db_thread: DatabaseThread) -> None:
        self._study_file = study_file
        self._engine = engine
        self._db_thread = db_thread
        self.deadlines: dict[int, float] = {}

    def is_time_over(self, trial: RunningTrial) -> bool:
        """Whether the time of the trial's search is over."""
        study_id, deadline = trial.claim.study_id, trial.claim.deadline
        if deadline is None or time.monotonic() < self.deadlines.get(study_id, deadline):
            return False
        if not self._study_file.budget.counts_gpus:
            return True
        # GPUs that train no longer leave the others more time than was expected.
        self._db_thread.run(set_deadline, self._engine, self.deadlines, study_id)
        return time.monotonic() >= self.deadlines.get(study_id, deadline)

    def has_epochs(self, trial: RunningTrial, epoch: int) -> bool:
        """Whether the trial may have another epoch; asks for a whole training once it has had what it has reserved."""
        claim = trial.claim
        if claim.reserved is None or epoch * self._study_file.num_seeds < claim.reserved:
            return True
        if not self._db_thread.run(claims.reserve_all, self._engine, claim.study_id, claim.trial_id):
            return False
        trial.claim = dataclasses.replace(claim, reserved=None)
        return True

    def is_out_of_time(self, trial: RunningTrial) -> bool:
        """Whether the trial has run for the study file's ``trial_timeout_seconds``."""
        limit = self._study_file.trial_timeout_seconds
        return limit is not None and time.monotonic() - trial.started > limit
