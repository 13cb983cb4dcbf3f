"""Which hyperparameters mattered to each sampler: Optuna's PED-ANOVA over all its repeats together.

PED-ANOVA (Watanabe et al. 2023) compares where the best tenth of the trials lies with where all of them lie. Below 20
complete trials that tenth is a single trial, and the answer is left out.
"""

import warnings
from collections.abc import Sequence

import optuna

from hpo.compare.records import StudyRecord

FEWEST_TRIALS = 20


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
        pooled = optuna.create_study(direction=studies[0].direction, sampler=optuna.samplers.RandomSampler(0))
        pooled.add_trials(trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that conditional parameters have few trials, parameter by parameter
            raw = optuna.importance.PedAnovaImportanceEvaluator().evaluate(pooled)
    finally:
        optuna.logging.set_verbosity(verbosity)
    total = sum(raw.values())
    if total <= 0:
        return {}
    return {name: value / total for name, value in sorted(raw.items(), key=lambda item: (-item[1], item[0]))}
