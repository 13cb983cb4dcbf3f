"""Where a worker's next trials come from: claimed and prepared on the database thread, ahead of time if it is slow.

Prefetching a trial means that the sampler has not seen the current trial's result. So a trial is prefetched only if
claiming and sampling take more than 5 % of a trial; a Gaussian process, to which one result less makes little
difference, draws the next trial beside training whenever that takes long enough to be worth it.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future

from hpo.database import claims
from hpo.database.claims import Claim
from hpo.experiment.experiment import Experiment
from hpo.search.pruned_budget import trials_for
from hpo.search.sampler_registry import SamplerSpec
from hpo.studyfile.model import StudyFile
from hpo.worker.db_thread import DatabaseThread
from hpo.worker.running_trial import RunningTrial
from hpo.worker.study_runner import StudyRunner

PREFETCH_SHARE = 0.05
SLOW_SECONDS = 0.05
"""A claim of a sampler that draws ahead which takes longer than this is prefetched, whatever a trial takes."""


class ClaimQueue:
    """Claims trials in the name of ``worker``; ``running`` returns the trials in its ``capacity`` slots.

    ``prepare_ahead`` is called with each trial as soon as its configuration is settled, on the database thread.

    Attributes:
        finished: nothing is left to claim, and nobody else runs a trial that could come back.
        recorded: is done when the configurations that :meth:`take` has returned are on record.
    """

    def __init__(
        self,
        experiment: Experiment,
        runners: Mapping[int, StudyRunner],
        db_thread: DatabaseThread,
        worker: str,
        running: Callable[[], Iterable[RunningTrial]],
        capacity: int = 1,
        prepare_ahead: Callable[[RunningTrial], None] = lambda trial: None,
    ) -> None:
        self.finished = False
        self.recorded: Future[None] | None = None
        self._experiment = experiment
        self._runners = runners
        self._db_thread = db_thread
        self._worker = worker
        self._running = running
        self._is_single = capacity == 1
        self._prepare_ahead = prepare_ahead
        self._draws_ahead = all(study.sampler.entry.draws_ahead for study in experiment.studies)
        self._most_running = {
            study.study_id: _most_running(experiment.study_file, study.sampler) for study in experiment.studies
        }
        self._prepared: list[RunningTrial] = []
        self._request: Future[list[RunningTrial]] | None = None
        self._claims: list[Claim] = []  # claimed and not prepared yet
        self._not_before = 0.0
        self._claim_seconds = 0.0

    def take(self, free: int, *, wait: bool = True) -> RunningTrial | None:
        """The next trial for one of ``free`` slots; None if there is none now.

        Without ``wait`` also None while trials are claimed and prepared; :meth:`is_ready` says when that is done.
        """
        if not self._prepared:
            if self._request is None and not self.prefetch(free):
                return None
            assert self._request is not None
            if not wait and not self._request.done():
                return None
            self._prepared = self._request.result()
            self._request = None
            # Nothing can be claimed now: a retry may come, but not at once.
            self._not_before = 0.0 if self._prepared else time.monotonic() + 0.5
        return self._prepared.pop(0) if self._prepared else None

    def prefetch(self, limit: int = 1) -> bool:
        """Has up to ``limit`` trials claimed and prepared; does not wait. Returns False if that is of no use now."""
        if self._prepared or self._request is not None or self.finished or time.monotonic() < self._not_before:
            return False
        if not self._is_single and any(trial.claim.apart for trial in self._running()):
            return False
        self._request = self._db_thread.submit(self._claim, limit)
        return True

    def is_ready(self) -> bool:
        """Whether trials were claimed that :meth:`take` has not returned yet."""
        return bool(self._prepared) or (self._request is not None and self._request.done())

    def prefetch_if_slow(self, trial_seconds: float) -> None:
        """Prefetches the next trial if waiting for it would cost too much of a trial's ``trial_seconds``."""
        is_slow = self._draws_ahead and self._claim_seconds > SLOW_SECONDS
        if is_slow or self._claim_seconds > PREFETCH_SHARE * trial_seconds:
            self.prefetch()

    def slot_is_free(self) -> None:
        """A slot is free again, so that a claim may succeed."""
        self._not_before = 0.0

    def _claim(self, limit: int) -> list[RunningTrial]:
        started = time.monotonic()
        if not self._claims:  # else the database went away after it had given them to us
            self._claims, self.finished = claims.claim(
                self._experiment.storage.engine,
                self._experiment.study_ids,
                self._worker,
                limit,
                num_held=len(list(self._running())),
                most_running=self._most_running,
                single=self._is_single,
                num_first=len(self._experiment.study_file.first_configurations),
            )
        prepared = []
        for claim in self._claims:
            trial = self._runners[claim.study_id].prepare(claim)
            self._prepare_ahead(trial)
            prepared.append(trial)
        self._claims = []
        if prepared:
            seconds = (time.monotonic() - started) / len(prepared)
            self._claim_seconds = 0.7 * self._claim_seconds + 0.3 * seconds if self._claim_seconds else seconds
            self.recorded = self._db_thread.write()
        return prepared


def _most_running(study_file: StudyFile, sampler: SamplerSpec) -> int:
    """How many trials of a study many slots may run at once, so that three quarters of it can learn from the rest.

    There is no such limit if nothing is learnt: no pruner, and a sampler that looks at no results.
    """
    if not study_file.pruner.prunes and not sampler.entry.learns:
        return 2**31
    budget = study_file.budget_for(sampler)
    if budget.trials is None and budget.epochs is None:
        return 2**31  # how many there will be is not known
    if budget.trials is not None:
        return max(1, budget.trials // claims.LEARNING_SHARE)
    epochs, max_epochs = (budget.epochs or 0) // study_file.num_seeds, study_file.max_epochs() or 1
    whole = epochs // max_epochs
    # Most trials of some pruners end early. Until their average is known each reserves a whole training, so half of the
    # budget is left for other workers.
    expected = min(trials_for(study_file.pruner, epochs, max_epochs) or whole, claims.LEARNING_SHARE * whole // 2)
    return max(1, expected // claims.LEARNING_SHARE)
