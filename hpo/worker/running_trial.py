"""A trial from its claim to its end, as one worker sees it."""

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import TrialState

from hpo.database.claims import Claim
from hpo.experiment.experiment import StudyHandle
from hpo.trainers.objective_trial import ObjectiveTrial
from hpo.trainers.protocol import Run
from hpo.trainers.registry import TrainerEntry


@dataclass(frozen=True)
class Outcome:
    """How a trial ended by itself; ``epochs`` is the number of epochs that its lineage has trained, over all seeds,
    ``second`` the value of the second objective, if there is one."""

    state: TrialState
    value: float | None
    epochs: int
    second: float | None = None


@dataclass
class RunningTrial:
    """A claimed trial, its configuration and what it has done so far.

    Attributes:
        config: the trainer's configuration; None if there is none, see ``error`` and ``refusal``.
        is_new: no earlier attempt was made with this configuration.
        draw: number of configurations of its lineage that were refused before this one.
        error: with which the sampler or the configuration failed.
        refusal: why the values of an enqueued trial cannot be used.
        optuna_trial: what an Optuna objective gets, which suggests its parameters itself.
        run: what its trainer got; None until it is started.
        started: when it got its slot, on the monotonic clock.
        worker_seconds: its share of the worker's time.
        slot_seconds: how long its slot was empty before it and its own, and how much of it the trainer computed; None
            until it has left its slot.
        history: the metrics of each epoch that its lineage has finished.
        final: the metrics that the trainer returned at the end, if they give the value and not an epoch's.
        audited: the pruner would have pruned it, and it goes on to show what pruning costs.
        shared: other trials were trained in its process before or beside it.
        has_neighbours: other trials are in slots beside it.
        can_be_redrawn: another configuration can be drawn in its place; False for a cell of a grid.
        recorded: is done when its configuration is on record.
        outcome: None until it has ended by itself.
    """

    claim: Claim
    study: StudyHandle
    seed: int
    config: Any = None
    is_new: bool = True
    draw: int = 0
    error: Exception | None = None
    refusal: str | None = None
    optuna_trial: ObjectiveTrial | None = None
    run: Run | None = None
    started: float = field(default_factory=time.monotonic)
    worker_seconds: float = 0.0
    slot_seconds: tuple[float, float] | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    final: dict[str, float] | None = None
    audited: bool = False
    shared: bool = False
    has_neighbours: bool = False
    can_be_redrawn: bool = True
    recorded: "Future[None] | None" = None
    outcome: Outcome | None = None

    @property
    def trial_id(self) -> int:
        return self.claim.trial_id

    def last_epoch(self, entry: TrainerEntry) -> int | None:
        """The number of its last epoch, if the trainer or the configuration says how many there are."""
        if isinstance(entry.max_epochs, int):
            return entry.max_epochs
        name = entry.epochs_field or ""
        epochs = self.config.get(name) if isinstance(self.config, dict) else getattr(self.config, name, None)
        return epochs if isinstance(epochs, int) and not isinstance(epochs, bool) else None
