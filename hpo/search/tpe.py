"""The tree-structured Parzen estimator, with a rule of its own for pruned trials and a bounded cost.

Optuna's TPE calls a tenth of all finished trials good and fills that group with complete trials first. Under a pruner
most trials are pruned, so the group has room for every trial that completed, also for the first ones, which a pruner
lets through whatever they are worth; TPE then imitates what was not pruned. Here complete trials alone are counted, for
the size of the better group and for the start-up; pruned trials are part of the worse group, whatever they reported.

Configurations that were refused teach both rules which candidates not to take: see ``feasibility.py``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.search.feasibility import estimate
from hpo.search.history import History, history_of, is_infeasible
from hpo.search.optuna_internals import TPEWithScores, UnitCube, set_better_group_size, study_with_trials, with_end

Distributions = dict[str, BaseDistribution]

LARGEST_BETTER_GROUP = 25
"""TPE's better group never has more trials than this (Optuna's default gamma)."""

LIKELY = 0.9
"""A candidate with at least this probability of being feasible may be taken, if there is one."""

CANDIDATES_IF_INFEASIBLE = 4
"""So many times more candidates are drawn once a configuration was refused."""

PrunedRule = Literal["worse", "optuna"]


@dataclass(frozen=True)
class ByValue:
    """Complete trials with a finite value, the best first; ``sign`` is -1 for a study that maximizes."""

    sign: float

    def __call__(self, trial: FrozenTrial) -> float | None:
        counts = trial.state is TrialState.COMPLETE and not is_infeasible(trial) and math.isfinite(trial.values[0])
        return self.sign * trial.values[0] if counts else None


@dataclass(frozen=True)
class AsOptuna:
    """Optuna's order: complete trials by value, then pruned trials by their last step, then infeasible trials."""

    sign: float

    def __call__(self, trial: FrozenTrial) -> tuple[float, float] | None:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return None
        if violation := sum(value for value in trial.constraints.values() if value > 0):
            return math.inf, violation
        if trial.state is TrialState.COMPLETE:
            return -math.inf, self.sign * trial.values[0]
        if (step := trial.last_step) is None:
            return 1.0, 0.0
        value = trial.intermediate_values[step]
        return -step, math.inf if math.isnan(value) else self.sign * value


def better_group_size(num_complete: int) -> int:
    """A tenth of the complete trials, at most LARGEST_BETTER_GROUP."""
    return min(math.ceil(0.1 * num_complete), LARGEST_BETTER_GROUP)


class TPE(TPEWithScores):
    """TPE for one trial.

    Args:
        pruned: ``"worse"`` counts complete trials only, as above; a trial whose value is not finite is not counted
            either. ``"optuna"`` is Optuna's own rule.
        rules_out: whether values are forbidden, whatever the other parameters are.
        max_observations: past so many trials, the worse group is estimated from a random part of them, drawn with the
            seed, so that the cost of a draw does not grow with the study.
        n_startup_trials: so many trials are drawn at random; under ``"worse"`` only complete trials are counted.
        options: Optuna's.
    """

    def __init__(
        self,
        *,
        pruned: PrunedRule,
        rules_out: Callable[[Mapping[str, Any]], bool] = lambda values: False,
        max_observations: int,
        n_startup_trials: int,
        seed: int,
        n_ei_candidates: int = 24,
        **options: Any,
    ) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials, n_ei_candidates=n_ei_candidates, **options)
        self._counts_complete = pruned == "worse"
        self._num_candidates = n_ei_candidates
        self._rules_out = rules_out
        self._max_observations = max_observations
        self._num_startup = n_startup_trials
        self._startup = RandomSampler(seed)
        self._startup_points = np.random.default_rng([seed, 1])
        self._thinning = np.random.default_rng(seed)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        visible = self._visible(study)
        if visible is None:
            return self._random_but_feasible(study, search_space)
        return super().sample_relative(visible, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        visible = self._visible(study)
        if visible is None:
            return self._startup.sample_independent(study, trial, param_name, param_distribution)
        return super().sample_independent(visible, trial, param_name, param_distribution)

    def scores(
        self,
        study: Study,
        trial: FrozenTrial,
        space: Distributions,
        candidates: list[dict[str, Any]],
        scores: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Rules out candidates that are forbidden or likely to be refused, given what the trial has already."""
        fixed = {name: value for name, value in trial.params.items() if name not in space}
        forbidden = np.array([self._rules_out({**fixed, **candidate}) for candidate in candidates])
        if forbidden.any() and not forbidden.all():
            scores = np.where(forbidden, -math.inf, scores)
        known = {name: trial.distributions[name] for name in fixed}
        trials = study.get_trials(deepcopy=False)
        model = estimate({**known, **space}, trials) or estimate(space, trials)
        if model is None:
            return scores
        probabilities = model.probabilities([{**fixed, **candidate} for candidate in candidates])
        likely = (probabilities >= LIKELY) & ~forbidden
        return np.where(likely, scores, -math.inf) if likely.any() else np.where(forbidden, -1.0, probabilities)

    def _random_but_feasible(self, study: Study, space: Distributions) -> dict[str, Any]:
        """A random point that is likely to be feasible, once there are trials enough to tell; {} before.

        Under a pruner the start-up can be long, as few trials complete.
        """
        if not space or (model := estimate(space, study.get_trials(deepcopy=False), 2 * self._num_startup)) is None:
            return {}
        cube = UnitCube(space)
        candidates = [cube.values(self._startup_points.uniform(size=len(cube.bounds))) for _ in range(32)]
        probabilities = model.probabilities(candidates)
        likely = np.flatnonzero(probabilities >= LIKELY)
        return candidates[likely[0] if len(likely) else int(probabilities.argmax())]

    def _visible(self, study: Study) -> Study | None:
        """The study with the trials that the model is made of; None if they are too few for a model."""
        sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        with history_of(study) as history:
            ranking = history.ranking(ByValue(sign) if self._counts_complete else AsOptuna(sign))
            if self._counts_complete:
                if len(ranking) < self._num_startup:
                    return None
                set_better_group_size(self, better_group_size(len(ranking)))
            if any(is_infeasible(trial) for trial in history.finished):
                self.set_num_candidates(CANDIDATES_IF_INFEASIBLE * self._num_candidates)
            if len(history.finished) <= self._max_observations + LARGEST_BETTER_GROUP:
                trials = history.in_order()
            else:
                trials = self._thinned(history, ranking.first(LARGEST_BETTER_GROUP))
        if self._counts_complete:
            trials = [_not_complete_unless_finite(trial) for trial in trials]
        return study_with_trials(study, trials)

    def _thinned(self, history: History, best: list[FrozenTrial]) -> list[FrozenTrial]:
        """The best trials, a random part of the other finished ones, and all that run."""
        kept = {trial.number: trial for trial in best}
        for place in self._thinning.choice(len(history.finished), self._max_observations, replace=False).tolist():
            kept.setdefault(history.finished[place].number, history.finished[place])
        return [*kept.values(), *history.open.values()]


class StaticTPE(TPE):
    """TPE that models the unconditional parameters jointly, and each conditional one by itself if it is active.

    Optuna infers the joint search space from the finished trials; here it is the study file's.
    """

    def __init__(self, unconditional: Distributions, *, multivariate: bool, **options: Any) -> None:
        super().__init__(multivariate=multivariate, **options)
        self._joint = unconditional if multivariate else {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        return dict(self._joint)


def _not_complete_unless_finite(trial: FrozenTrial) -> FrozenTrial:
    """A trial without a finite value goes to the worse group, as a pruned one."""
    if trial.state is TrialState.COMPLETE and not math.isfinite(trial.values[0]):
        return with_end(trial, TrialState.PRUNED, None)
    return trial
