"""What a study may spend and what it has given out: trials, epochs and time, and what may begin with what is left.

A budget in epochs is kept by reservations (``hpo_trials.reserved``): what is spent and what running and waiting trials
have reserved are never more than the budget. A trial that begins reserves what trials have spent on average, because
a pruner ends most of them early, and asks for a whole training if it goes on beyond that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from hpo.database import search_clock
from hpo.database.trial_writes import KEEPS_CONSTRAINTS, execute

KNOWN_TRIALS = 4
"""Finished trials from which the average that a trial spends is known."""

SPARE_TRAININGS, SPARE_FOR_EACH = 1.5, 0.1
"""With fewer whole trainings left than this, and so many for each trial that runs, the next one reserves a whole one.

Simulated with ASHA, 540 epochs of 27, 16 slots in step, 100 seeds: 65 steps in place of 127 with random search, and 62
if later trials are better, as with a sampler that learns. 0.07 and 0.16 trials are left at the end that were begun and
have no epochs to go on with; without the second number 59 and 57 steps, 0.25 and 0.57 trials.
"""


@dataclass(frozen=True)
class StudyBudget:
    """What a study may spend and what it has given out, in lineages, epochs and seconds.

    Attributes:
        running, waiting: trials of ours that run or wait for a worker.
        reserved: epochs that these have reserved.
        least_needed: of those that wait, the fewest epochs beside what it has reserved with which one can go on.
        enqueued: trials that a person has enqueued and that have no place in the budget yet.
        reached: whether a trial has reached the value that ends the search, so that no further one begins.
        num_seconds, seconds_spent: the time in which trials of the study may run, and for how long some have run; in
            seconds of GPUs if ``gpus`` is not None.
        trial_seconds: what its finished trials took of that on average; None before the first has finished.
        gpus: GPUs of a trial, if their time counts.
        rate: seconds of the budget that pass in a second now.
        running_seconds: for how long its running trials have run, in all.
        seeds: trainings of a trial, which end their epochs together; all their epochs count.
        halt: ``"paused"`` or ``"stopped"`` if a person has it so: then nothing is claimed.
    """

    study_id: int
    num_lineages: int | None
    num_epochs: int | None
    epochs_per_trial: int
    next_lineage: int
    epochs_spent: int
    running: int
    waiting: int
    enqueued: int = 0
    reached: bool = False
    num_seconds: float | None = None
    seconds_spent: float = field(default=0.0, compare=False)  # goes on while nothing changes
    trial_seconds: float | None = None
    reserved: int = 0
    least_needed: int = 0
    gpus: int | None = None
    rate: float = field(default=1.0, compare=False)
    running_seconds: float = field(default=0.0, compare=False)
    halt: str | None = None
    seeds: int = 1

    @property
    def units(self) -> dict[str, float]:
        """The budget as ``trials``, ``epochs`` and ``seconds`` or ``gpu_seconds``, those that there are."""
        time = "seconds" if self.gpus is None else "gpu_seconds"
        units = {"trials": self.num_lineages, "epochs": self.num_epochs, time: self.num_seconds}
        return {unit: count for unit, count in units.items() if count is not None}

    @property
    def seconds_left(self) -> float | None:
        """Of the budget; None if time ends nothing."""
        return None if self.num_seconds is None else max(0.0, self.num_seconds - self.seconds_spent)

    @property
    def clock_seconds_left(self) -> float | None:
        """Seconds of the clock until the time is over, if trials run on as they do; None if time ends nothing."""
        if (left := self.seconds_left) is None or self.gpus is None:
            return left
        return left / (self.rate or self.gpus)

    @property
    def seconds_expected(self) -> float:
        """Of the budget, what a trial that begins now needs, and what the running ones still need if GPUs count."""
        mean = self.trial_seconds or 0.0
        if self.gpus is None or not self.running:
            return mean
        return mean + max(0.0, self.running * mean - self.running_seconds * self.rate / self.running)

    @property
    def is_out_of_time(self) -> bool:
        return self.seconds_left == 0.0

    @property
    def may_continue(self) -> bool:
        """Whether a trial waits that may be claimed: when the time or the epochs are over, it waits for more."""
        return self.waiting > 0 and not self.is_out_of_time and self.least_needed <= self.epochs_left

    @property
    def epochs_left(self) -> float:
        """Epochs that nobody has spent or reserved; infinite if epochs end nothing."""
        return math.inf if self.num_epochs is None else self.num_epochs - self.epochs_spent - self.reserved

    @property
    def mean_epochs(self) -> float | None:
        """Epochs that finished trials have spent on average; None while too few have finished."""
        finished = self.next_lineage - self.running - self.waiting
        return self.epochs_spent / finished if finished >= KNOWN_TRIALS else None

    @property
    def epochs_to_reserve(self) -> int:
        """What a trial that begins now reserves: the average of the others, a whole training near the end."""
        spare = SPARE_TRAININGS + SPARE_FOR_EACH * self.running
        if self.mean_epochs is None or self.epochs_left < spare * self.epochs_per_trial:
            return self.epochs_per_trial
        return min(self.epochs_per_trial, self.seeds * max(1, math.ceil(self.mean_epochs / self.seeds)))

    @property
    def has_capacity(self) -> bool:
        """Whether one more lineage may begin: neither trials nor epochs can then exceed the budget, nor, as far as is
        known, the time."""
        if self.reached:
            return False
        if (left := self.seconds_left) is not None and (left == 0.0 or left < self.seconds_expected):
            return False
        is_left = self.num_lineages is None or self.next_lineage < self.num_lineages
        return is_left and self.epochs_left >= self.epochs_per_trial

    @property
    def finished(self) -> bool:
        """Whether nothing runs, may be continued or may begin.

        An enqueued trial without a place in the budget does not count, nor one that was given back when the time was
        over.
        """
        return not self.running and not self.may_continue and not self.has_capacity

    @property
    def progress(self) -> float:
        """Share of the budget that has been given out, in [0, 1]."""
        if self.num_epochs is not None:
            return min(1.0, (self.epochs_spent + self.reserved) / max(1, self.num_epochs))
        if self.num_lineages is None and self.num_seconds is not None:
            # Trials that run have a share, so that studies of one experiment get workers alike.
            expected = self.num_seconds / 100 if self.trial_seconds is None else self.trial_seconds
            return min(1.0, (self.seconds_spent + self.running * expected) / self.num_seconds)
        return self.next_lineage / max(1, self.num_lineages or 0)

    def after_claim(self) -> "StudyBudget":
        """The budget once one more trial has been claimed."""
        if self.may_continue:
            reserved = self.reserved + self.least_needed
            return replace(self, waiting=self.waiting - 1, running=self.running + 1, reserved=reserved)
        return replace(
            self,
            next_lineage=self.next_lineage + 1,
            running=self.running + 1,
            reserved=self.reserved + self.epochs_to_reserve,
            enqueued=max(0, self.enqueued - 1),
        )


NEEDED = """CASE WHEN h.progress < coalesce(h.reserved, s.epochs_per_trial) THEN 0
  ELSE s.epochs_per_trial - coalesce(h.reserved, s.epochs_per_trial) END"""
"""Epochs that a trial of ours needs beside those that it has reserved, so that it can go on."""

BUDGETS = f"""
SELECT s.study_id, s.num_lineages, s.num_epochs, s.epochs_per_trial, s.next_lineage, s.epochs_spent,
  count(h.trial_id) FILTER (WHERE t.state = 'RUNNING'), count(h.trial_id) FILTER (WHERE t.state = 'WAITING'),
  count(t.trial_id) FILTER (WHERE t.state = 'WAITING' AND h.trial_id IS NULL), s.reached, s.num_seconds,
  s.seconds_spent + coalesce(CAST(extract(epoch FROM now() AT TIME ZONE 'UTC' - greatest(s.seen_at, least(
    min(b.heartbeat) FILTER (WHERE t.state = 'RUNNING' AND h.trial_id IS NOT NULL AND {search_clock.IS_ALIVE}),
    now() AT TIME ZONE 'UTC'))) AS float8), 0) * {search_clock.RATE},
  s.timed_seconds / nullif(s.timed_trials, 0),
  coalesce(sum(coalesce(h.reserved, s.epochs_per_trial)) FILTER (WHERE h.trial_id IS NOT NULL), 0),
  coalesce(min({NEEDED}) FILTER (WHERE t.state = 'WAITING' AND h.trial_id IS NOT NULL), 0),
  s.gpus, CAST({search_clock.RATE} AS float8),
  CAST(coalesce(sum(extract(epoch FROM now() AT TIME ZONE 'UTC' - t.datetime_start))
    FILTER (WHERE t.state = 'RUNNING' AND h.trial_id IS NOT NULL AND s.gpus IS NOT NULL), 0) AS float8), s.halt, s.seeds
FROM hpo_studies s LEFT JOIN trials t ON t.study_id = s.study_id AND t.state IN ('RUNNING', 'WAITING')
LEFT JOIN hpo_trials h ON h.trial_id = t.trial_id
LEFT JOIN trial_heartbeats b ON b.trial_id = t.trial_id AND s.num_seconds IS NOT NULL
WHERE s.study_id = ANY(:study_ids) GROUP BY s.study_id ORDER BY s.study_id
"""


def read_budgets(connection: sa.Connection, study_ids: Sequence[int]) -> list[StudyBudget]:
    """The budget of each of the studies, in the order of their ids; deleted ones are missing."""
    return [StudyBudget(*row) for row in execute(connection, BUDGETS, study_ids=list(study_ids))]


REACHED = f"""
UPDATE hpo_studies s SET reached = EXISTS (
  SELECT 1 FROM trials t JOIN hpo_trials h USING (trial_id) JOIN trial_values v USING (trial_id)
  WHERE t.study_id = s.study_id AND t.state = 'COMPLETE' AND v.objective = 0 AND v.value_type = 'FINITE'
    AND {KEEPS_CONSTRAINTS.format("t.trial_id")}
    AND CASE WHEN s.maximize THEN v.value >= s.stop_at ELSE v.value <= s.stop_at END)
WHERE s.study_id = :s
"""


def set_budget(
    connection: sa.Connection,
    study_id: int,
    num_lineages: int | None,
    num_epochs: int | None,
    epochs_per_trial: int,
    *,
    seeds: int = 1,
    num_seconds: float | None = None,
    gpus: int | None = None,
    stop_at: float | None = None,
    maximize: bool = False,
) -> None:
    """Writes a study's budget, or a larger one over it; may be repeated.

    ``epochs_per_trial``: over all ``seeds`` of a trial, which train as many epochs each.
    ``gpus``: GPUs of a trial, whose time is counted; None for that of the clock.
    ``stop_at``: the value that ends the search as soon as a complete trial has it, at least or at most.
    """
    execute(
        connection,
        """
        INSERT INTO hpo_studies (
            study_id, num_lineages, num_epochs, epochs_per_trial, seeds, num_seconds, gpus, stop_at, maximize)
        VALUES (:s, :n, :e, :p, :seeds, :seconds, :gpus, :stop_at, :maximize)
        ON CONFLICT (study_id) DO UPDATE SET num_lineages = :n, num_epochs = :e, epochs_per_trial = :p, seeds = :seeds,
            num_seconds = :seconds, gpus = :gpus, stop_at = :stop_at, maximize = :maximize
        """,
        s=study_id,
        n=num_lineages,
        e=num_epochs,
        p=epochs_per_trial,
        seeds=seeds,
        seconds=num_seconds,
        gpus=gpus,
        stop_at=stop_at,
        maximize=maximize,
    )
    execute(connection, REACHED, s=study_id)
