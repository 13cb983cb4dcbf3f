"""Studies and trials as plain dataclasses, the input of every statistic; they hold no connection to a storage."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hpo.experiment.results import Outcome, ranked
from hpo.experiment.status import State
from hpo.search.objectives import Objective, objectives_of
from hpo.trainers.protocol import Direction

Axis = Literal["trials", "epochs", "seconds", "wall"]

AXES: dict[Axis, str] = {
    "trials": "finished trials",
    "epochs": "epochs trained",
    "seconds": "worker-seconds",
}
"""What a search spends: costs add up over workers."""

CURVE_AXES: dict[Axis, str] = {**AXES, "wall": "seconds of wall-clock time since the first trial began"}
"""What a curve can be drawn over; wall-clock time depends on the number of workers and is no cost."""


@dataclass(frozen=True)
class TrialRecord:
    """One attempt at one unit of a study's budget.

    Attributes:
        number: Optuna's number in the study.
        lineage: the unit of the budget; the attempts of a lineage share it, and the last of them counts.
        attempt: from 0.
        state: how it stands.
        value: the final value of a complete trial; of a pruned one the last reported value; None if it has none, or
            one that is not finite.
        second: the value of the second objective, if there is one.
        violates: whether it violates a measured constraint, so that it is no candidate for the best.
        params: what the sampler chose.
        distributions: what each parameter was chosen from (``optuna.distributions``); only the importance looks at it.
        config: the whole configuration, or {} if none was stored.
        epochs: epochs that the lineage had finished when this attempt ended.
        start_epoch: epochs that it had finished before this attempt.
        given: the configuration as it was given to the trainer; {} for trials of older versions.
        seconds: worker-seconds of this attempt: in a pack, its share of the worker's time.
        source: the version of the trainer's code, see :mod:`hpo.experiment.trainer_version`; None if not recorded.
        counts_slots: whether ``seconds`` is the whole time in a slot of a pack instead, as older versions recorded it.
        start, end: POSIX timestamps, or None.
        intermediate: value by epoch.
        reason: why it was pruned or failed.
        worker, log: the worker that trained it, and host and path of its log; None if not recorded.
        audited: the epoch after which it would have been pruned, had it not been continued for the audit.
        seed: the training seed, or None.
        start_from: where its configuration comes from, if it was taken from elsewhere (:mod:`hpo.experiment.starts`).
        seed_values: the values with its seeds, whose mean its value is; () if one seed trained it.
        trial_id: the storage's own identity, or None.
    """

    number: int
    lineage: int
    state: State
    value: float | None = None
    second: float | None = None
    violates: bool = False
    attempt: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    distributions: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 0
    start_epoch: int = 0
    seconds: float = 0.0
    source: str | None = None
    counts_slots: bool = False
    start: float | None = None
    end: float | None = None
    intermediate: Mapping[int, float] = field(default_factory=dict)
    reason: str | None = None
    worker: str | None = None
    log: str | None = None
    audited: int | None = None
    seed: int | None = None
    start_from: Mapping[str, Any] = field(default_factory=dict)
    seed_values: tuple[float, ...] = ()
    trial_id: int | None = None

    @property
    def trained_epochs(self) -> int:
        """Epochs that this attempt itself trained."""
        return max(0, self.epochs - self.start_epoch)

    @property
    def finished(self) -> bool:
        return self.state in ("complete", "pruned")

    def identity(self) -> str:
        """Equal for two trials that trained the same configuration, whatever their seeds."""
        return json.dumps(self.given or self.config or self.params, sort_keys=True, default=str)


@dataclass(frozen=True)
class StudyRecord:
    """One repeat of one sampler in one experiment.

    Attributes:
        budget: ``trials``, ``epochs`` and ``seconds``, those that there are; {} if it is not recorded.
        metric: what is optimized, as the study file calls it.
        study_file: the stored study file as JSON; {} if there is none.
        trials: all attempts of ours, by number.
        finished: whether its budget is spent and nothing runs or waits, as :mod:`hpo.experiment.status` has it.
        imported: finished trials that a person added; they are none of the ``trials``.
        infeasible: draws that were refused; they are none of the ``trials``.
        knowledge: finished trials of elsewhere that its sampler knew; they are none of the ``trials``.
        study_id: the storage's own identity, or None.
        epochs_per_trial: most epochs that one trial can take.
        retrained: what came of training one of its trials again: ``trial``, ``seeds``, and ``validation`` and ``test``
            values (None if there are none) for each seed; {} if that was not done.
    """

    experiment: str
    sampler: str
    repeat: int
    direction: Direction
    trials: tuple[TrialRecord, ...] = ()
    budget: Mapping[str, float] = field(default_factory=dict)
    metric: str = "value"
    study_file: Mapping[str, Any] = field(default_factory=dict)
    study_id: int | None = None
    name: str = ""
    epochs_per_trial: int = 1
    retrained: Mapping[str, Any] = field(default_factory=dict)
    finished: bool = True
    imported: int = 0
    infeasible: int = 0
    knowledge: int = 0

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The one or two metrics that are optimized."""
        if self.study_file.get("second_metric") is None:
            return (Objective(self.metric, self.direction),)
        return objectives_of(self.study_file)

    @property
    def maximize(self) -> bool:
        return self.direction == "maximize"

    def last_attempts(self) -> list[TrialRecord]:
        """The attempt that counts of each lineage, in order of the lineages."""
        return list(self._last_attempts)

    @functools.cached_property
    def _last_attempts(self) -> tuple[TrialRecord, ...]:
        last: dict[int, TrialRecord] = {}
        for trial in self.trials:
            known = last.get(trial.lineage)
            if known is None or (trial.attempt, trial.number) > (known.attempt, known.number):
                last[trial.lineage] = trial
        return tuple(last[lineage] for lineage in sorted(last))

    def outcomes(self) -> list[Outcome]:
        """Its candidates for the best configuration."""
        return [
            Outcome(
                t.trial_id or 0,
                self.study_id or 0,
                t.number,
                t.value,
                self._configuration_key(t),
                t.seed,
                t.second,
                t.seed_values,
            )
            for t in self.last_attempts()
            if t.state == "complete" and t.value is not None and not t.violates
        ]

    def _configuration_key(self, trial: TrialRecord) -> str:
        is_known = trial.given or trial.config or trial.params
        return trial.identity() if is_known else f"{self.sampler}/{self.repeat}/{trial.number}"

    def best(self) -> TrialRecord | None:
        """The trial of its best configuration, see :func:`hpo.experiment.results.ranked`; None if none is complete."""
        found = ranked(self.outcomes(), self.maximize)
        return self.trial(found[0].outcome.number) if found else None

    def trial(self, number: int) -> TrialRecord:
        return next(trial for trial in self.trials if trial.number == number)
