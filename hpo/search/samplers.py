"""Samplers whose draws derive from the given seed and the study's finished trials only; TPE is in ``tpe.py``.

- Optuna infers the joint search space from finished trials; we take it from the study file, so that it does not change
  when a trial with a conditional parameter finishes.
- ``QMCSampler`` takes the point with the lineage's number. Optuna's counts points in the study's attributes, so that
  two workers take the same point, and a retry takes another one.
- ``CmaEsSampler`` makes the optimizer anew from the finished trials. Optuna's pickles the optimizer into a trial's
  attributes: it is lost if that trial fails, and unpickling runs whatever somebody has written there.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import datetime
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.database import attributes
from hpo.search.history import history_of, is_infeasible
from hpo.search.optuna_internals import (
    CONSTRAINT_PREFIX,
    FIXED_PARAMS,
    GPWithKernel,
    UnitCube,
    set_mark,
    study_with_trials,
    with_end,
    with_system_attrs,
)
from hpo.search.seeds import derive_seed

if TYPE_CHECKING:
    import cmaes  # type: ignore[import-untyped]

Distributions = dict[str, BaseDistribution]
GENERATION = "hpo:cmaes_generation"
"""Trial system attribute: the generation of CMA-ES that a trial was drawn in."""


class StaticGPSampler(GPWithKernel):
    """A Gaussian process over the unconditional parameters; conditional ones are drawn at random.

    A second process models which configurations are refused: Optuna's constrained acquisition function then multiplies
    the expected improvement by the probability that a configuration is feasible. ``examples`` are trials with
    configurations that are known to be infeasible beforehand.
    """

    def __init__(self, unconditional: Distributions, examples: Sequence[FrozenTrial] = (), **options: Any) -> None:
        super().__init__(**options)
        self._unconditional = unconditional
        self._examples = examples

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        return dict(self._unconditional)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        with history_of(study) as history:
            trials = history.in_order()
        return super().sample_relative(
            study_with_trials(study, _with_feasibility([*trials, *self._examples])), trial, search_space
        )


def _with_feasibility(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials as Optuna's constrained optimization reads them, if a configuration was refused.

    It wants a value and a constraint of every trial. A refused configuration has no value and gets the mean of the
    others, so that it says nothing about the objective; the constraint is 1 for it and -1 for the others.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    measured = {frozenset(trial.constraints) for trial in complete}
    if len(measured) == 1 and frozenset() not in measured and not any("feasible" in t.constraints for t in trials):
        return list(trials)  # measured constraints have numbers of their own, and what violates them has a value
    values = [trial.values[0] for trial in complete if not is_infeasible(trial)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite or not any(is_infeasible(trial) for trial in trials):
        return list(trials)
    changed = []
    for trial in trials:
        if trial.state is TrialState.COMPLETE or (trial.state is TrialState.PRUNED and is_infeasible(trial)):
            violated = is_infeasible(trial)
            if violated:
                trial = with_end(trial, TrialState.COMPLETE, float(np.mean(finite)))
            kept = {key: v for key, v in trial.system_attrs.items() if not key.startswith(CONSTRAINT_PREFIX)}
            trial = with_system_attrs(trial, {**kept, CONSTRAINT_PREFIX + "feasible": 1.0 if violated else -1.0})
        changed.append(trial)
    return changed


class _SeededSampler(BaseSampler):
    """What is not drawn together is drawn at random from the seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = RandomSampler(seed)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        self._random.reseed_rng()


class QMCSampler(_SeededSampler):
    """Points of one low-discrepancy sequence over all parameters, of which inactive ones go unused.

    The scrambling derives from the study, the point's index from the trial's lineage, counted after ``num_first``
    lineages that have known configurations: no point is taken twice and none is left out.

    Args:
        distributions: of all parameters of the space.
        study_seed: the study file's seed.
        experiment: the study file's name; a study's name without it says which sampler and repeat it is.
    """

    def __init__(
        self,
        distributions: Distributions,
        seed: int,
        *,
        study_seed: int,
        experiment: str,
        num_first: int,
        qmc_type: str,
        scramble: bool,
    ) -> None:
        super().__init__(seed)
        self._distributions = {name: d for name, d in distributions.items() if not d.single()}
        self._study_seed = study_seed
        self._experiment = experiment
        self._num_first = num_first
        self._qmc_type = qmc_type
        self._scramble = scramble

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        lineage = trial.user_attrs.get(attributes.LINEAGE, trial.number)
        return dict(self._distributions) if lineage >= self._num_first else {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        if not search_space:
            return {}
        lineage = trial.user_attrs.get(attributes.LINEAGE, trial.number)
        which = study.study_name.removeprefix(f"{self._experiment}/")
        point = self._point(len(search_space), lineage - self._num_first, derive_seed(self._study_seed, which, "qmc"))
        return {
            name: _at(distribution, float(share))
            for (name, distribution), share in zip(search_space.items(), point, strict=True)
        }

    def _point(self, dimensions: int, index: int, seed: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
        from scipy.stats import qmc  # type: ignore[import-untyped]

        kind = qmc.Sobol if self._qmc_type == "sobol" else qmc.Halton
        engine = kind(dimensions, scramble=self._scramble, seed=seed)
        if index > 0:
            engine.fast_forward(index)
        point: np.ndarray[Any, np.dtype[np.float64]] = engine.random(1)[0]
        return point


def _at(distribution: BaseDistribution, share: float) -> Any:
    """The value that lies at ``share`` in [0, 1) of a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[min(int(share * len(distribution.choices)), len(distribution.choices) - 1)]
    return UnitCube({"value": distribution}).values(np.array([share]))["value"]


class CmaEsSampler(_SeededSampler):
    """CMA-ES over the unconditional numbers; choices and conditional parameters are drawn at random.

    A generation is the first ``popsize`` trials drawn from it that have finished, in the order in which they did. The
    optimizer is a function of those and of ``optimizer_seed``, so it is made anew at every ask.
    """

    def __init__(
        self,
        unconditional: Distributions,
        seed: int,
        *,
        n_startup_trials: int,
        popsize: int | None,
        sigma0: float | None,
        consider_pruned_trials: bool,
        lr_adapt: bool,
    ) -> None:
        super().__init__(seed)
        self._numbers = {
            name: d for name, d in unconditional.items() if isinstance(d, FloatDistribution | IntDistribution)
        }
        self._n_startup_trials = n_startup_trials
        self._popsize = popsize
        self._sigma0 = sigma0
        self._consider_pruned_trials = consider_pruned_trials
        self._lr_adapt = lr_adapt

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        return {} if FIXED_PARAMS in trial.system_attrs else dict(self._numbers)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        finished = self._finished(study) if search_space else []
        if not search_space or len(finished) < self._n_startup_trials:
            return {}
        cube = UnitCube(search_space)
        optimizer = self._replay(finished, cube, study.direction)
        optimizer.reseed_rng(self._seed)
        set_mark(study, trial, GENERATION, optimizer.generation)
        return cube.values(optimizer.ask())

    def _finished(self, study: Study) -> list[tuple[FrozenTrial, float]]:
        """Trials that have a value, in the order in which they finished; a pruned one's is its last report."""
        finished = []
        for trial in study.get_trials(deepcopy=False):
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                finished.append((trial, trial.value))
            elif trial.state == TrialState.PRUNED and self._consider_pruned_trials and trial.intermediate_values:
                value = trial.intermediate_values[max(trial.intermediate_values)]
                if np.isfinite(value):
                    finished.append((trial, value))
        return sorted(finished, key=lambda item: (item[0].datetime_complete or datetime.datetime.max, item[0].number))

    def _replay(
        self, finished: Sequence[tuple[FrozenTrial, float]], cube: UnitCube, direction: StudyDirection
    ) -> "cmaes.CMA":
        import cmaes

        optimizer = cmaes.CMA(
            mean=np.full(len(cube.bounds), 0.5),
            sigma=self._sigma0 or 1 / 6,
            bounds=cube.bounds,
            n_max_resampling=10 * len(cube.bounds),
            seed=self._seed,
            population_size=self._popsize,
            lr_adapt=self._lr_adapt,
        )
        sign = 1 if direction == StudyDirection.MINIMIZE else -1
        while True:
            drawn = [
                (cube.point({name: trial.params[name] for name in self._numbers}), sign * value)
                for trial, value in finished
                if trial.system_attrs.get(GENERATION) == optimizer.generation
            ]
            if len(drawn) < optimizer.population_size:
                return optimizer
            optimizer.tell(drawn[: optimizer.population_size])
