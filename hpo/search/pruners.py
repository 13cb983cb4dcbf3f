"""Pruners of our own, beside Optuna's. A step is a number of finished epochs, counted from 1."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.database import attributes
from hpo.search.history import history_of
from hpo.search.optuna_internals import HyperbandByNumber, set_mark


@contextlib.contextmanager
def accept_experimental() -> Iterator[None]:
    """Silences Optuna's warning about an option that the user has asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


class FirstEpochTopKPruner(BasePruner):
    """One epoch for all, then only the best ``k`` go on (Egele et al., "Is One Epoch All You Need For Multi-Fidelity
    Hyperparameter Optimization?", ESANN 2023).

    There, every configuration is trained for one epoch, and once all have been, the best k are trained to the end. A
    pruner decides on a trial once, at its first epoch, when later trials have not begun, and cannot wake a trial that
    it stopped. So here a trial goes on if and only if fewer than k of the trials that have reported ``epoch`` so far
    were better there (of equal ones the earlier is better). The k of the paper are always among those that go on,
    with the earlier ones that were overtaken later: in random order k (1 + 1/(k+1) + … + 1/n) of n trials on
    average, 9.5 of 30 for k = 3, where the paper has k.
    """

    def __init__(self, k: int, epoch: int = 1) -> None:
        self._k = k
        self._epoch = epoch

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Decides after ``epoch`` epochs; before and after that, a trial goes on."""
        if trial.last_step != self._epoch:
            return False
        value = trial.intermediate_values[self._epoch]
        if math.isnan(value):
            return True
        sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
        # A failed trial is an attempt whose retry reports the same again.
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        others = [
            (sign * other.intermediate_values[self._epoch], other.number)
            for other in study.get_trials(deepcopy=False, states=states)
            if other.number != trial.number and self._epoch in other.intermediate_values
        ]
        return sum(other < (sign * value, trial.number) for other in others) >= self._k


class AshaPruner(BasePruner):
    """Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020),
    deciding as Optuna's ``SuccessiveHalvingPruner`` does and leaving the same marks, with a tenth of its work where
    thousands of trials have passed a rung.

    A trial that reaches a rung (``min_epochs * reduction_factor ** (min_early_stopping_rate + rung)`` epochs) goes on
    if it is among the best ``1 / reduction_factor`` of those that have reached it so far, or the best of them while
    they are fewer than ``reduction_factor``.
    """

    def __init__(
        self, min_epochs: int, reduction_factor: int, min_early_stopping_rate: int, bootstrap_count: int
    ) -> None:
        self._first = min_epochs * reduction_factor**min_early_stopping_rate
        self._reduction_factor = reduction_factor
        self._bootstrap_count = bootstrap_count

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Decides for every rung that the trial has reached and that it was not judged at before."""
        step = trial.last_step
        if step is None:
            return False
        value, passed = trial.intermediate_values[step], trial.system_attrs
        sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
        rung = 0
        while f"completed_rung_{rung}" in passed:
            rung += 1
        while step >= self._first * self._reduction_factor**rung:
            if math.isnan(value):
                return True
            key = f"completed_rung_{rung}"
            by_mark = ByMark(key, sign)
            with history_of(study) as history:
                ranking = history.ranking(by_mark)
                running = [by_mark(other) for other in history.open.values() if other.number != trial.number]
                num_others = len(ranking) + sum(mark is not None for mark in running)
                num_better = ranking.num_below(sign * value)
                num_better += sum(mark is not None and mark < sign * value for mark in running)
            set_mark(study, trial, key, value)
            if num_others < self._bootstrap_count:
                return True
            if num_better >= max(1, (num_others + 1) // self._reduction_factor):
                return True
            rung += 1
        return False


@dataclass(frozen=True)
class ByMark:
    """Trials that have passed a rung, by the value that they had there; ``sign`` is -1 for a study that maximizes."""

    key: str
    sign: int

    def __call__(self, trial: FrozenTrial) -> float | None:
        mark = trial.system_attrs.get(self.key)
        return None if mark is None else self.sign * mark


class LineageHyperbandPruner(HyperbandByNumber):
    """Hyperband whose brackets belong to lineages: a retry stays in the bracket of the attempt before it.

    Optuna draws the bracket from the trial's number. A retry has a new number, and the rungs that it had passed would
    then be those of another bracket. A trial without a lineage is drawn by its number.
    """

    def __init__(self, min_epochs: int, max_epochs: int, reduction_factor: int, num_brackets: int) -> None:
        super().__init__(min_epochs, max_epochs, reduction_factor, num_brackets, _lineage_or_number)


def _lineage_or_number(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(attributes.LINEAGE, trial.number))
