"""The search space of an objective that suggests its own parameters: what its finished trials have suggested.

Samplers that model several parameters together (TPE, CMA-ES, a Gaussian process, low-discrepancy sequences) need to
know them before the objective asks for them. They are given the parameters that every finished trial has in the same
range; what else an objective suggests is sampled by itself, as in Optuna.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hpo.search.parameters import Categorical, Float, Int, Parameter
from hpo.search.space import Space


@dataclass(frozen=True)
class SharedSpace(Space):
    """A space of which only distributions are known.

    Attributes:
        shared: of the parameters that all trials have.
        has_others: whether some trials have other parameters, or some in another range.
    """

    shared: Mapping[str, BaseDistribution] = field(default_factory=dict)
    has_others: bool = False

    @cached_property
    def unconditional(self) -> dict[str, BaseDistribution]:
        return {name: distribution for name, distribution in self.shared.items() if not distribution.single()}

    def distributions(self) -> dict[str, BaseDistribution]:
        return dict(self.shared)


class ObservedSpace:
    """Gathers the parameters of one study's trials; each finished trial is looked at once.

    Attributes:
        distributions: by name, of every parameter that a trial has suggested, with its latest range.
    """

    def __init__(self) -> None:
        self.distributions: dict[str, BaseDistribution] = {}
        self._shared: dict[str, BaseDistribution] | None = None
        self._seen: set[int] = set()

    def observe(self, trials: Iterable[FrozenTrial]) -> None:
        """Takes in the trials that have ended with a result since the last time."""
        for trial in trials:
            if trial._trial_id in self._seen or trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
                continue
            self._seen.add(trial._trial_id)
            self.distributions.update(trial.distributions)
            if self._shared is None:
                self._shared = dict(trial.distributions)
            else:
                theirs = trial.distributions
                self._shared = {n: d for n, d in self._shared.items() if n in theirs and theirs[n] == d}

    def space(self) -> SharedSpace:
        """The space for the next trial's sampler; its parameters are in the order of their names."""
        shared = dict(sorted((self._shared or {}).items()))
        return SharedSpace({}, shared=shared, has_others=len(shared) < len(self.distributions))


def space_of(distributions: Mapping[str, BaseDistribution]) -> Space:
    """A space of parameters that are always active, with these distributions, in the order of their names."""
    return Space({name: _parameter(distribution) for name, distribution in sorted(distributions.items())})


def _parameter(distribution: BaseDistribution) -> Parameter:
    if isinstance(distribution, FloatDistribution):
        return Float(distribution.low, distribution.high, distribution.log, distribution.step)
    if isinstance(distribution, IntDistribution):
        return Int(distribution.low, distribution.high, distribution.log, distribution.step)
    assert isinstance(distribution, CategoricalDistribution)
    return Categorical(distribution.choices)
