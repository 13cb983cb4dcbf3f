"""Which hyperparameters mattered to each sampler: Optuna's PED-ANOVA over all its repeats together.

PED-ANOVA (Watanabe et al. 2023) compares where the best tenth of the trials lies with where all of them lie. Below 20
complete trials that tenth is a single trial, and the answer is left out.
"""

import warnings
from collections.abc import Container, Sequence

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.compare.records import StudyRecord
from hpo.search.optuna_internals import renumber

FEWEST_TRIALS = 20


class _Fixed(InMemoryStorage):
    """Holds trials as they are; adding 10,000 to an ordinary study copies each one and takes 1.5 s."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        for number, trial in enumerate(trials):
            renumber(trial, number)
        self._fixed = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._fixed


def importance(studies: Sequence[StudyRecord]) -> dict[str, float]:
    """Share of each parameter, largest first, adding up to 1; {} where the trials are too few or all alike."""
    trials = [
        optuna.trial.create_trial(value=t.value, params=dict(t.params), distributions=dict(t.distributions))
        for study in studies
        for t in study.last_attempts()
        if t.state == "complete" and t.value is not None and t.params and t.distributions.keys() == t.params.keys()
    ]
    if len(trials) < FEWEST_TRIALS:
        return {}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        pooled = optuna.create_study(
            storage=_Fixed(trials), direction=studies[0].direction, sampler=optuna.samplers.RandomSampler(0)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that conditional parameters have few trials, parameter by parameter
            raw = optuna.importance.PedAnovaImportanceEvaluator().evaluate(pooled)
    finally:
        optuna.logging.set_verbosity(verbosity)
    total = sum(raw.values())
    if total <= 0:
        return {}
    return {name: value / total for name, value in sorted(raw.items(), key=lambda item: (-item[1], item[0]))}
