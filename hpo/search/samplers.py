"""Samplers whose every draw derives from the given seed and the study's history, whoever asks.

- What Optuna infers from finished trials, the parameters that all trials share, is told by the study file: it does not
  change from one ask to the next because a trial with a conditional parameter happened to finish first.
- ``QMCSampler`` takes the point with the lineage's number: Optuna's counts points in the study's attributes, so two
  workers take the same point, and a retry takes another one.
- ``CmaEsSampler`` plays the finished trials back into a fresh optimizer: Optuna's pickles the optimizer into a trial's
  attributes, which is lost when that trial fails, and runs as code whatever somebody writes there.
"""

import datetime
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.database import attributes
from hpo.search.history import history_of
from hpo.search.optuna_internals import ThinnedStudy
from hpo.search.seeds import derive_seed

if TYPE_CHECKING:
    import cmaes  # type: ignore[import-untyped]

Distributions = dict[str, BaseDistribution]
GENERATION = "hpo:cmaes_generation"
"""Trial system attribute: the generation of CMA-ES that a trial was drawn in."""


MOST_BELOW = 25
"""TPE's better group never has more trials than this (Optuna's default gamma)."""


def _rank(trial: FrozenTrial, sign: float) -> tuple[float, float] | None:
    """TPE's order: complete trials by value, then pruned ones by how far they came; the others do not count."""
    if trial.state is TrialState.COMPLETE:
        return -math.inf, sign * trial.values[0]
    if trial.state is not TrialState.PRUNED:
        return None
    if (step := trial.last_step) is None:
        return 1.0, 0.0
    value = trial.intermediate_values[step]
    return -step, math.inf if math.isnan(value) else sign * value


class ThinnedTPESampler(TPESampler):
    """TPE whose cost does not grow with the study: past ``max_observations`` the worse trials are a random part.

    The density of what is not among the best is then estimated from that many of them, drawn anew for each ask from
    its seed; up to that number it is Optuna's sampler exactly.
    """

    def __init__(self, *, max_observations: int, seed: int, **options: Any) -> None:
        super().__init__(seed=seed, **options)
        self._max_observations = max_observations
        self._thinning = np.random.default_rng(seed)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        return super().sample_relative(self._thinned(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return super().sample_independent(self._thinned(study), trial, param_name, param_distribution)

    def _thinned(self, study: Study) -> Study:
        sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        with history_of(study) as history:
            num_finished = len(history.finished)
            if num_finished <= self._max_observations + MOST_BELOW:
                return study
            kept = history.ranking("tpe", lambda trial: _rank(trial, sign)).first(MOST_BELOW)
            best = {trial.number for trial in kept}
            places = self._thinning.choice(num_finished, self._max_observations, replace=False).tolist()
            kept += [history.finished[i] for i in places if history.finished[i].number not in best]
            kept += history.open.values()
        return cast(Study, ThinnedStudy(study, kept))


class StaticTPESampler(ThinnedTPESampler):
    """TPE that models the unconditional parameters jointly, and each conditional one by itself when it is active."""

    def __init__(self, unconditional: Distributions, **options: Any) -> None:
        super().__init__(**options)
        self._unconditional = unconditional

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        return dict(self._unconditional) if self._is_multivariate(study) else {}


class StaticGPSampler(GPSampler):
    """A Gaussian process over the unconditional parameters; conditional ones are drawn at random."""

    def __init__(self, unconditional: Distributions, **options: Any) -> None:
        super().__init__(**options)
        self._unconditional = unconditional

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        return dict(self._unconditional)


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
    transform = _SearchSpaceTransform({"value": distribution}, transform_0_1=True)
    return transform.untransform(np.array([share]))["value"]


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
        return {} if "fixed_params" in trial.system_attrs else dict(self._numbers)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        finished = self._finished(study) if search_space else []
        if not search_space or len(finished) < self._n_startup_trials:
            return {}
        transform = _SearchSpaceTransform(search_space, transform_0_1=True)
        optimizer = self._play_back(finished, transform, study.direction)
        optimizer.reseed_rng(self._seed)
        study._storage.set_trial_system_attr(trial._trial_id, GENERATION, optimizer.generation)
        return transform.untransform(optimizer.ask())

    def _finished(self, study: Study) -> list[tuple[FrozenTrial, float]]:
        """Trials that have a value, in the order in which they finished; a pruned one's is its last report."""
        found = []
        for trial in study._get_trials(deepcopy=False, use_cache=True):
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                found.append((trial, trial.value))
            elif trial.state == TrialState.PRUNED and self._consider_pruned_trials and trial.intermediate_values:
                value = trial.intermediate_values[max(trial.intermediate_values)]
                if np.isfinite(value):
                    found.append((trial, value))
        return sorted(found, key=lambda item: (item[0].datetime_complete or datetime.datetime.max, item[0].number))

    def _play_back(
        self, finished: Sequence[tuple[FrozenTrial, float]], transform: _SearchSpaceTransform, direction: StudyDirection
    ) -> "cmaes.CMA":
        import cmaes

        optimizer = cmaes.CMA(
            mean=np.full(len(transform.bounds), 0.5),
            sigma=self._sigma0 or 1 / 6,
            bounds=transform.bounds,
            n_max_resampling=10 * len(transform.bounds),
            seed=self._seed,
            population_size=self._popsize,
            lr_adapt=self._lr_adapt,
        )
        sign = 1 if direction == StudyDirection.MINIMIZE else -1
        while True:
            drawn = [
                (transform.transform({name: trial.params[name] for name in self._numbers}), sign * value)
                for trial, value in finished
                if trial.system_attrs.get(GENERATION) == optimizer.generation
            ]
            if len(drawn) < optimizer.population_size:
                return optimizer
            optimizer.tell(drawn[: optimizer.population_size])
