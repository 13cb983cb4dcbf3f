"""The slots of a worker's trainer: how trials enter them, what of the worker's time each trial is charged, how they
leave."""

import logging
import time

from hpo.trainers.protocol import Trainer
from hpo.worker.run_context import attach_log
from hpo.worker.running_trial import RunningTrial
from hpo.worker.slot_time import SlotTime

log = logging.getLogger("hpo")


class Slots:
    """The running trials of one worker; used by the thread that trains.

    Attributes:
        running: the trials in slots by their ids.
        num_started: how many trials this process has started.
        has_many: whether trials train side by side.
        time: how much of the slots' time the trainer computes.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.running: dict[int, RunningTrial] = {}
        self.num_started = 0
        self.time = SlotTime(lambda: getattr(trainer, "host_seconds", 0.0))
        self._trainer = trainer
        self.has_many = trainer.capacity > 1
        self._charged_until = time.monotonic()

    @property
    def num_free(self) -> int:
        """The number of empty slots."""
        return self._trainer.capacity - len(self.running)

    def names(self) -> list[str]:
        """The running trials, such as ``tpe/0 #17``; also asked by other threads, while trials come and go."""
        return [f"{t.study.sampler.label}/{t.study.repeat} #{t.claim.number}" for t in list(self.running.values())]

    def put(self, trial: RunningTrial) -> None:
        """Starts a trial, whose ``run`` is made, in a free slot."""
        assert trial.run is not None
        trial.shared = self.num_started > 0
        for other in self.running.values():
            other.shared = True
        self.num_started += 1
        self.charge_time()
        trial.started = time.monotonic()
        after = f" again after epoch {trial.run.start_epoch}" if trial.run.start_epoch else ""
        log.info("trial %d of %s begins%s", trial.claim.number, trial.study.name, after)
        self.time.start(trial.trial_id)
        self.running[trial.trial_id] = trial
        self._trainer.start(trial.trial_id, trial.config, trial.run)

    def charge_time(self) -> None:
        """Shares the time since the last call among the running trials: their sum is never more than the clock's."""
        now = time.monotonic()
        if self.running:
            share = (now - self._charged_until) / len(self.running)
            for trial in self.running.values():
                trial.worker_seconds += share
        self._charged_until = now

    def stop(self, trial: RunningTrial) -> None:
        """Has the trainer stop the trial, and frees its slot."""
        self._trainer.stop(trial.trial_id)
        if trial.run is not None:
            attach_log(trial.run)
        self.release(trial)

    def release(self, trial: RunningTrial) -> None:
        """Frees the slot of a trial that the trainer has stopped by itself."""
        self.charge_time()
        del self.running[trial.trial_id]
        slot_seconds = self.time.end(trial.trial_id)
        trial.slot_seconds = slot_seconds if self.has_many else None
