"""Samplers that look at the results of two objectives: Optuna's TPE for several objectives, and NSGA-II.

Both see a search without pruned trials: no pruner compares trials of two objectives. A trial that diverged has no
values; for TPE it counts as one whose configuration does not work, for NSGA-II it does not count.
"""

import math
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hpo.search.history import history_of, is_infeasible
from hpo.search.optuna_internals import CONSTRAINT_PREFIX, study_with_trials, with_system_attrs
from hpo.search.tpe import CANDIDATES_IF_INFEASIBLE, LARGEST_BETTER_GROUP, StaticTPE

Distributions = dict[str, BaseDistribution]


class TwoObjectiveTPE(StaticTPE):
    """TPE whose better group is the first fronts, and of the last of them the trials that dominate most (Ozaki et al.
    2022, "Multiobjective Tree-Structured Parzen Estimator").

    Past ``max_observations`` trials it is estimated from the front and a random part of the others. The option
    ``group`` is not used: conditional parameters are modelled one by one.
    """

    def __init__(self, unconditional: Distributions, *, group: bool = False, **options: Any) -> None:
        super().__init__(unconditional, **options)

    def _visible(self, study: Study) -> Study | None:
        with history_of(study) as history:
            trials = [_as_infeasible_if_diverged(trial) for trial in history.in_order()]
            num_finished = len(history.finished)
        complete = [t for t in trials if t.state is TrialState.COMPLETE and not is_infeasible(t)]
        if len(complete) < self._num_startup:
            return None
        if any(is_infeasible(trial) for trial in trials):
            self.set_num_candidates(CANDIDATES_IF_INFEASIBLE * self._num_candidates)
        if num_finished > self._max_observations + LARGEST_BETTER_GROUP:
            best = {trial.number for trial in study.best_trials}
            ended = [trial for trial in trials if trial.state.is_finished() and trial.number not in best]
            chosen = self._thinning.choice(len(ended), min(len(ended), self._max_observations), replace=False)
            drawn = {ended[place].number for place in chosen.tolist()}
            trials = [t for t in trials if not t.state.is_finished() or t.number in best or t.number in drawn]
        return study_with_trials(study, trials)


def _as_infeasible_if_diverged(trial: FrozenTrial) -> FrozenTrial:
    has_values = trial.state is TrialState.COMPLETE and all(map(math.isfinite, trial.values or [math.nan]))
    if not trial.state.is_finished() or has_values or is_infeasible(trial):
        return trial
    return with_system_attrs(trial, {**trial.system_attrs, CONSTRAINT_PREFIX + "finite": 1.0})


class NSGAII(NSGAIISampler):
    """NSGA-II (Deb et al. 2002) over the unconditional parameters; conditional ones are drawn at random.

    Optuna takes the parameters that all finished trials have, here they are the study file's. A generation is as many
    complete trials as the population; what finishes late counts for the generation that it was drawn in.
    """

    def __init__(self, unconditional: Distributions, **options: Any) -> None:
        super().__init__(**options)
        self._distributions = {name: d for name, d in unconditional.items() if not d.single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        return dict(self._distributions)
