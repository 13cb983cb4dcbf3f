"""Where a worker's next trials come from: claimed and proposed on the recorder's thread, early where an ask takes long.

An ask that is made while the trial before it still trains costs the sampler one result, so it is made early only where
waiting for it would cost more than a twentieth of a trial.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from hpo.database import claims
from hpo.database.claims import Claim
from hpo.experiment.experiment import Experiment
from hpo.search.sampler_registry import SamplerSpec
from hpo.studyfile.model import StudyFile
from hpo.worker.db_thread import Recorder
from hpo.worker.study_runner import Proposal, StudyDesk

ASK_AHEAD_SHARE = 0.05


class Intake:
    """Claims trials in the name of ``worker``; ``num_held`` tells how many it holds.

    Attributes:
        finished: whether nothing is left to claim and nobody else runs a trial that could come back.
        recorded: is done when the configurations that :meth:`next` has handed out are on record.
    """

    def __init__(
        self,
        experiment: Experiment,
        desks: Mapping[int, StudyDesk],
        recorder: Recorder,
        worker: str,
        num_held: Callable[[], int],
    ) -> None:
        self.finished = False
        self.recorded: Future[None] | None = None
        self._experiment = experiment
        self._desks = desks
        self._recorder = recorder
        self._worker = worker
        self._num_held = num_held
        self._most_running = {
            study.study_id: _most_running(experiment.study_file, study.sampler) for study in experiment.studies
        }
        self._ahead: list[Proposal] = []
        self._asking: Future[list[Proposal]] | None = None
        self._claims: list[Claim] = []  # claimed, not proposed yet
        self._ask_after = 0.0
        self._ask_seconds = 0.0

    def next(self, free: int) -> Proposal | None:
        """The next trial for one of ``free`` slots; None where there is none now."""
        if not self._ahead:
            if self._asking is None and not self.ask(free):
                return None
            assert self._asking is not None
            self._ahead = self._asking.result()
            self._asking = None
            # Nothing to be had now: a retry may come, but not at once.
            self._ask_after = 0.0 if self._ahead else time.monotonic() + 0.5
        return self._ahead.pop(0) if self._ahead else None

    def ask(self, limit: int = 1) -> bool:
        """Has up to ``limit`` trials claimed and proposed; does not wait. False where there is no use in it now."""
        if self._ahead or self._asking is not None or self.finished or time.monotonic() < self._ask_after:
            return False
        self._asking = self._recorder.submit(lambda: self._claim(limit))
        return True

    def ask_early(self, trial_seconds: float) -> None:
        """Asks for the next trial where waiting for it would cost too much of a trial's ``trial_seconds``."""
        if self._ask_seconds > ASK_AHEAD_SHARE * trial_seconds:
            self.ask()

    def slot_is_free(self) -> None:
        """There is room again, so asking is of use."""
        self._ask_after = 0.0

    def _claim(self, limit: int) -> list[Proposal]:
        started = time.monotonic()
        if not self._claims:  # else the database went away after it had given them to us
            self._claims, self.finished = claims.claim(
                self._experiment.storage.engine,
                self._experiment.study_ids,
                self._worker,
                limit,
                held=self._num_held(),
                most_running=self._most_running,
            )
        proposals = [self._desks[claim.study_id].propose(claim) for claim in self._claims]
        self._claims = []
        if proposals:
            seconds = (time.monotonic() - started) / len(proposals)
            self._ask_seconds = 0.7 * self._ask_seconds + 0.3 * seconds if self._ask_seconds else seconds
            self.recorded = self._recorder.write()
        return proposals


def _most_running(study_file: StudyFile, sampler: SamplerSpec) -> int:
    """How many trials of a study many slots may run at once, so that three quarters of it can learn from the rest.

    Where nothing is learnt (no pruner, and a sampler that looks at no results) there is no such limit.
    """
    if not study_file.pruner.prunes and not sampler.entry.learns:
        return 2**31
    budget = study_file.budget_for(sampler)
    trials = budget.trials or (budget.epochs or 0) // (study_file.max_epochs() or 1)
    return max(1, trials // 4)
