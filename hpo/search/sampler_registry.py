"""The samplers that a study file may name: the table and their options.

Every sampler is built anew for each ask with a seed derived from the study's seed and the lineage. Then

- ``random`` and ``random_2x``: the draw depends on that seed alone;
- ``grid``: nothing is drawn, a lineage is a cell of :meth:`hpo.search.space.Space.grid`;
- ``qmc``: the draw depends on the study's seed and the lineage's number alone;
- ``tpe``, ``cmaes``, ``gp``: the draw depends on that seed and on the trials that the asking worker sees, so one worker
  draws the same again, and several do as far as they finish trials in the same order. Start-up trials are random.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from hpo.search.context import SearchContext
from hpo.search.pruner_registry import Options

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler as a study file names it; ``label`` names its studies, ``options`` are complete."""

    name: str
    label: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplerEntry:
    """One row of the table of samplers. ``budget_factor`` multiplies the study file's budget."""

    name: str
    description: str
    options: type[Options]
    build: Callable[[Any, SearchContext, int], "BaseSampler"]
    budget_factor: int = 1


class TPEOptions(Options):
    n_startup_trials: int = pydantic.Field(10, ge=0, description="random trials before the model is used")
    n_ei_candidates: int = pydantic.Field(24, ge=1, description="candidates of which the best is taken")
    multivariate: bool = pydantic.Field(True, description="model unconditional parameters jointly")
    group: bool = pydantic.Field(False, description="also model jointly what is active together; needs multivariate")
    constant_liar: bool = pydantic.Field(True, description="keep away from trials that are still running")
    max_observations: int = pydantic.Field(
        1000, ge=100, description="past so many, the worse trials are represented by a random part"
    )

    @pydantic.model_validator(mode="after")
    def _group_is_multivariate(self) -> "TPEOptions":
        if self.group and not self.multivariate:
            raise ValueError("group needs multivariate = true")
        return self


class QMCOptions(Options):
    qmc_type: Literal["sobol", "halton"] = pydantic.Field("sobol", description="the sequence")
    scramble: bool = pydantic.Field(True, description="randomize it; without, every repeat is the same")


class CmaEsOptions(Options):
    n_startup_trials: int = pydantic.Field(1, ge=0, description="random trials before the first generation")
    popsize: int | None = pydantic.Field(None, ge=4, description="trials of a generation; default 4 + 3 ln(dimensions)")
    sigma0: float | None = pydantic.Field(None, gt=0, le=1, description="first spread, as a part of the range; 1/6")
    consider_pruned_trials: bool = pydantic.Field(False, description="learn from a pruned trial's last report too")
    lr_adapt: bool = pydantic.Field(False, description="adapt the learning rate, for noisy or multimodal objectives")


class GPOptions(Options):
    n_startup_trials: int = pydantic.Field(10, ge=1, description="random trials before the model is used")
    deterministic_objective: bool = pydantic.Field(False, description="assume no noise")


def _random(options: Options, context: SearchContext, seed: int) -> "BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed)


def _tpe(options: TPEOptions, context: SearchContext, seed: int) -> "BaseSampler":
    from hpo.search.pruners import accept_experimental
    from hpo.search.samplers import StaticTPESampler, ThinnedTPESampler

    if not options.group:
        return StaticTPESampler(context.space.unconditional, seed=seed, **options.model_dump(exclude={"group"}))
    with accept_experimental():
        return ThinnedTPESampler(seed=seed, **options.model_dump())


def _qmc(options: QMCOptions, context: SearchContext, seed: int) -> "BaseSampler":
    from hpo.search.samplers import QMCSampler

    return QMCSampler(
        context.space.distributions(),
        seed,
        study_seed=context.seed,
        experiment=context.experiment,
        num_first=context.num_first,
        **options.model_dump(),
    )


def _cmaes(options: CmaEsOptions, context: SearchContext, seed: int) -> "BaseSampler":
    from hpo.search.samplers import CmaEsSampler

    return CmaEsSampler(context.space.unconditional, seed, **options.model_dump())


def _gp(options: GPOptions, context: SearchContext, seed: int) -> "BaseSampler":
    from hpo.search.pruners import accept_experimental
    from hpo.search.samplers import StaticGPSampler

    with accept_experimental():
        return StaticGPSampler(
            context.space.unconditional, seed=seed, warn_independent_sampling=False, **options.model_dump()
        )


SAMPLERS: dict[str, SamplerEntry] = {
    entry.name: entry
    for entry in (
        SamplerEntry("grid", "every combination of the grid values, once", Options, _random),
        SamplerEntry("random", "independent draws", Options, _random),
        SamplerEntry("random_2x", "random search with twice the budget, as a yardstick", Options, _random, 2),
        SamplerEntry("tpe", "tree-structured Parzen estimator, Optuna's default", TPEOptions, _tpe),
        SamplerEntry("qmc", "points of a low-discrepancy sequence (Sobol or Halton)", QMCOptions, _qmc),
        SamplerEntry("cmaes", "CMA-ES, for numbers without conditions", CmaEsOptions, _cmaes),
        SamplerEntry("gp", "Gaussian process with expected improvement, for few and costly trials", GPOptions, _gp),
    )
}


def build_sampler(spec: SamplerSpec, context: SearchContext, seed: int) -> "BaseSampler":
    """The sampler for one ask; ``seed`` in [0, 2**32) is derived from the study and the lineage."""
    entry = SAMPLERS[spec.name]
    return entry.build(entry.options.model_validate(spec.options), context, seed)
