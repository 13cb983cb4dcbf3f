"""The samplers that a study file may name: one row each, with everything that the service must know about a sampler.

To add a sampler, write its options model, its builder and its row here; nothing else in the service names a sampler.

A worker builds a sampler for each trial, with a seed derived from the study's seed and the trial's lineage:

- ``random`` and ``random_2x``: the draw depends on that seed alone;
- ``grid``: nothing is drawn; a lineage is a cell of :meth:`hpo.search.space.Space.grid`;
- ``qmc``: the draw depends on the study's seed and the lineage's number alone;
- ``auto``: as ``tpe`` or ``gp``; which of them depends also on how long trials and draws take;
- ``tpe``, ``cmaes``, ``gp``, ``nsgaii``: the draw depends on that seed and on the finished trials that the worker has
  read. One worker draws the same again; several do if they finish trials in the same order. Start-up trials are random.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from hpo.search.context import Options, SearchContext, Unmet
from hpo.search.space import Categorical, Choice, GridTooLargeError, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Cells = list[dict[str, Choice]]


@dataclass(frozen=True)
class SamplerEntry:
    """One row of the table of samplers.

    Attributes:
        options: the model of its options; unknown options are refused.
        build: makes the sampler for one trial of options, context and a seed in [0, 2**32).
        learns: whether its draws depend on the results of earlier trials.
        draws_ahead: whether the next trial is drawn while others train, because a draw takes tenths of a second and
            loses little if the last results are not known yet.
        learns_from_any: whether trials that it did not draw itself teach it too.
        budget_factor: multiplies the study file's budget.
        cells: for a sampler that draws nothing: all its configurations, of which a lineage trains the one with its
            index. They are the study's budget then.
        needs: what it needs of the space and the space lacks.
        two_objectives: whether it can search the Pareto front of two metrics.
    """

    name: str
    description: str
    options: type[Options]
    build: Callable[[Any, SearchContext, int], "BaseSampler"]
    learns: bool = True
    draws_ahead: bool = False
    learns_from_any: bool = True
    budget_factor: int = 1
    cells: Callable[[Space], Cells] | None = None
    needs: Callable[[Any, Space], list[Unmet]] = lambda options, space: []
    two_objectives: bool = True


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler as a study file names it, with validated options; ``label`` names its studies."""

    name: str
    label: str
    options: Options = field(default_factory=Options)

    @property
    def entry(self) -> SamplerEntry:
        return SAMPLERS[self.name]

    @property
    def takes_imported(self) -> bool:
        """Whether finished trials of elsewhere are of use to it."""
        return self.entry.learns and self.entry.learns_from_any

    def cells(self, space: Space) -> Cells | None:
        """All its configurations in the order of their lineages; None for a sampler that draws."""
        return None if self.entry.cells is None else self.entry.cells(space)

    def as_table(self) -> dict[str, Any]:
        """The study file's table, every option written out."""
        return {"name": self.name, "label": self.label, **self.options.as_table()}


class TPEOptions(Options):
    n_startup_trials: int = pydantic.Field(10, ge=0, description="random trials before the model is used")
    n_ei_candidates: int = pydantic.Field(24, ge=1, description="candidates of which the best is taken")
    multivariate: bool = pydantic.Field(True, description="model unconditional parameters jointly")
    group: bool = pydantic.Field(False, description="also model jointly what is active together; needs multivariate")
    constant_liar: bool = pydantic.Field(True, description="keep away from trials that are still running")
    max_observations: int = pydantic.Field(
        1000, ge=100, description="past so many, the worse trials are represented by a random part"
    )
    pruned: Literal["worse", "optuna"] = pydantic.Field(
        "worse", description="how pruned trials are used: in the worse group only and not counted, or as Optuna does"
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


class NSGAIIOptions(Options):
    population_size: int = pydantic.Field(50, ge=2, description="trials of a generation; the first one is random")
    mutation_prob: float | None = pydantic.Field(
        None, ge=0, le=1, description="probability that a parameter is drawn anew; default 1 / number of parameters"
    )
    crossover_prob: float = pydantic.Field(0.9, ge=0, le=1, description="probability that a trial has two parents")
    swapping_prob: float = pydantic.Field(0.5, ge=0, le=1, description="probability of a second parent's value")


class AutoOptions(Options):
    n_startup_trials: int = pydantic.Field(10, ge=1, description="random trials before a model is used")
    max_parameters: int = pydantic.Field(20, ge=1, description="with more parameters, TPE draws")
    max_trials: int = pydantic.Field(200, ge=1, description="with more complete trials, TPE draws")
    draw_share: float = pydantic.Field(
        0.05, gt=0, description="TPE draws if the Gaussian process would take more than this share of a trial's time"
    )


def _random(options: Options, context: SearchContext, seed: int) -> "BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed)


def _tpe(options: TPEOptions, context: SearchContext, seed: int) -> "BaseSampler":
    from hpo.search.pruners import accept_experimental
    from hpo.search.tpe import TPE, StaticTPE

    given = {**options.model_dump(), "seed": seed, "rules_out": context.space.rules_out}
    if context.num_objectives == 2:
        from hpo.search.two_objectives import TwoObjectiveTPE

        with accept_experimental():
            return TwoObjectiveTPE(context.space.unconditional, **given)
    if not given.pop("group"):
        return StaticTPE(context.space.unconditional, **given)
    with accept_experimental():
        return TPE(group=True, **given)


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
    from hpo.search.feasibility import forbidden_examples
    from hpo.search.pruners import accept_experimental
    from hpo.search.samplers import StaticGPSampler

    given = {**options.model_dump(), "seed": seed, "warn_independent_sampling": False}
    with accept_experimental():
        return StaticGPSampler(context.space.unconditional, forbidden_examples(context.space), **given)


def _nsgaii(options: NSGAIIOptions, context: SearchContext, seed: int) -> "BaseSampler":
    from hpo.search.two_objectives import NSGAII

    return NSGAII(context.space.unconditional, seed=seed, **options.model_dump())


def _auto(options: AutoOptions, context: SearchContext, seed: int) -> "BaseSampler":
    from hpo.search.auto import AutoSampler

    startup = options.n_startup_trials
    return AutoSampler(
        lambda: _gp(GPOptions(n_startup_trials=startup), context, seed),
        lambda: _tpe(TPEOptions(n_startup_trials=startup), context, seed),
        context,
        **options.model_dump(),
    )


def _grid_needs(options: Options, space: Space) -> list[Unmet]:
    """At least one parameter with grid values, a value for each of the others, and not too many cells."""
    unmet = []
    if space.parameters and not space.gridded:
        what = "grid search has nothing to vary; give grid = [values] or a number of points to a parameter"
        unmet.append(Unmet(what, ("space",)))
    for name, parameter in space.parameters.items():
        if parameter.grid is None and name not in space.base:
            what = "grid search needs a value for it; give it grid values, or its value in [fixed]"
            unmet.append(Unmet(what, ("space", name)))
    try:
        if space.size() == 0:
            what = "each of the grid's cells is forbidden; forbid less, or give other grid values"
            unmet.append(Unmet(what, ("space",)))
    except GridTooLargeError as error:
        unmet.append(Unmet(f"{error}; expected fewer grid values", ("space",)))
    return unmet


def _cmaes_needs(options: Options, space: Space) -> list[Unmet]:
    if any(name in space.unconditional for name, p in space.parameters.items() if not isinstance(p, Categorical)):
        return []
    return [Unmet("cmaes moves numbers without conditions, and the space has none; expected another sampler")]


SAMPLERS: dict[str, SamplerEntry] = {
    entry.name: entry
    for entry in (
        SamplerEntry(
            "grid",
            "every combination of the grid values, once",
            Options,
            _random,
            learns=False,
            cells=Space.grid,
            needs=_grid_needs,
        ),
        SamplerEntry("random", "independent draws", Options, _random, learns=False),
        SamplerEntry(
            "random_2x",
            "random search with twice the budget, as a yardstick",
            Options,
            _random,
            learns=False,
            budget_factor=2,
        ),
        SamplerEntry("tpe", "tree-structured Parzen estimator, Optuna's default", TPEOptions, _tpe),
        SamplerEntry("qmc", "points of a low-discrepancy sequence (Sobol or Halton)", QMCOptions, _qmc, learns=False),
        SamplerEntry(
            "cmaes",
            "CMA-ES, for numbers without conditions",
            CmaEsOptions,
            _cmaes,
            learns_from_any=False,
            needs=_cmaes_needs,
            two_objectives=False,
        ),
        SamplerEntry(
            "nsgaii",
            "NSGA-II, a genetic algorithm for two objectives, with Optuna's operators",
            NSGAIIOptions,
            _nsgaii,
            learns_from_any=False,
        ),
        SamplerEntry(
            "gp",
            "Gaussian process with expected improvement, for few and costly trials",
            GPOptions,
            _gp,
            two_objectives=False,
            draws_ahead=True,
        ),
        SamplerEntry(
            "auto",
            "the default: a Gaussian process where it pays, else TPE; with the reason",
            AutoOptions,
            _auto,
            draws_ahead=True,
        ),
    )
}


def build_sampler(spec: SamplerSpec, context: SearchContext, seed: int) -> "BaseSampler":
    """The sampler for one trial; ``seed`` in [0, 2**32) is derived from the study and the lineage."""
    return spec.entry.build(spec.options, context, seed)
