"""Every use of Optuna's private interface outside of ``hpo/database/``, which holds what is known of its tables.

Optuna promises nothing about these names, and several of them would fail silently: samplers would decide on old
trials, or on too many. ``tests/unit/search/test_optuna_internals.py`` has a test for each that fails if Optuna changes
the behaviour behind the name; ``make optuna-next`` runs it against Optuna's newest pre-release.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import copy
import functools
import importlib.util
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.pruners import HyperbandPruner
from optuna.samplers import GPSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CONSTRAINT_PREFIX",
    "FIXED_PARAMS",
    "FrozenStudy",
    "GPWithKernel",
    "HyperbandByNumber",
    "TPEWithScores",
    "UnitCube",
    "dashboard_figures",
    "dashboard_module",
    "forget_cached_trials",
    "renumber",
    "set_better_group_size",
    "set_mark",
    "storage_of",
    "study_id_of",
    "study_with_trials",
    "trial_id_of",
    "with_end",
    "with_entry",
    "with_system_attrs",
]

FIXED_PARAMS = "fixed_params"
"""System attribute of a trial: values that its suggestions return, as ``Study.enqueue_trial`` leaves them."""

CONSTRAINT_PREFIX = "constraints:"
"""System attributes of a trial that begin so are its constraints; above 0 they are violated."""

Entries = Literal["params", "distributions", "user_attrs", "system_attrs", "intermediate_values"]


# Identifiers.


def trial_id_of(trial: FrozenTrial) -> int:
    """The trial's id in the database; unlike its number it is unique over all studies."""
    return trial._trial_id


def study_id_of(study: Study | FrozenStudy) -> int:
    """The study's id in the database."""
    return study._study_id


def storage_of(study: Study) -> BaseStorage:
    """The storage that the study reads and writes."""
    return study._storage


def set_mark(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Writes a system attribute of a running trial."""
    storage_of(study).set_trial_system_attr(trial_id_of(trial), key, value)


def renumber(trial: FrozenTrial, number: int) -> None:
    """Gives a trial that is in no storage a number, by which importance evaluators tell trials apart."""
    trial.number = trial._trial_id = number


# Trials that are replaced, not changed: whoever holds the earlier one does not see the change.


def with_entry(trial: FrozenTrial, entries: Entries, key: Any, value: Any) -> FrozenTrial:
    """A copy of the trial with one parameter, distribution, attribute or report more."""
    changed = copy.copy(trial)
    setattr(changed, entries, {**getattr(trial, entries), key: value})
    return changed


def with_system_attrs(trial: FrozenTrial, attrs: dict[str, Any]) -> FrozenTrial:
    """A copy of the trial with other system attributes."""
    changed = copy.copy(trial)
    changed.system_attrs = attrs
    return changed


def with_end(trial: FrozenTrial, state: TrialState, value: float | None, second: float | None = None) -> FrozenTrial:
    """A copy of the trial in another state, with a value or none; ``second`` is that of the second objective."""
    changed = copy.copy(trial)
    changed.state = state
    if value is not None and second is not None:
        changed.values = [value, second]
    else:
        changed.value = value
    return changed


# What samplers and pruners read.


def forget_cached_trials(study: Study) -> None:
    """Makes the study's next reader see the storage's trials: ``Study`` keeps the list of its last ``ask``."""
    study._thread_local.cached_all_trials = None


class _StudyWithTrials:
    """A study whose samplers see other trials than its storage holds."""

    def __init__(self, study: Study, trials: Sequence[FrozenTrial]) -> None:
        self._study = study
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]


def study_with_trials(study: Study, trials: Sequence[FrozenTrial]) -> Study:
    """The study with ``trials`` in place of those that its storage holds, for one call of a sampler."""
    return cast(Study, _StudyWithTrials(study, trials))


# Samplers and pruners of Optuna, used otherwise than their public interface allows.


def set_better_group_size(sampler: TPESampler, size: int) -> None:
    """How many of the finished trials TPE takes for its better group, in place of a share of all of them.

    The constructor's ``gamma`` would do, but it is deprecated and to be removed in Optuna 6.
    """
    sampler._gamma = lambda num_finished: min(size, num_finished)


class GPWithKernel(GPSampler):
    """A Gaussian process whose fitted kernel can be taken over by the next sampler, which then fits it in less time."""

    @property
    def kernel(self) -> Any:
        """What it has fitted; None before the first draw."""
        return self._gprs_cache_list

    def begin_with(self, kernel: Any) -> None:
        """Begins to fit at another one's kernel; one over another number of parameters is ignored."""
        self._gprs_cache_list = kernel


class TPEWithScores(TPESampler):
    """TPE that lets a subclass change the scores of its candidates before it takes the best of them."""

    _sampled: tuple[Study, FrozenTrial, dict[str, BaseDistribution]]

    def scores(
        self,
        study: Study,
        trial: FrozenTrial,
        space: dict[str, BaseDistribution],
        candidates: list[dict[str, Any]],
        scores: "NDArray[np.float64]",
    ) -> "NDArray[np.float64]":
        """The scores of the candidates, each with a value for every parameter of ``space``; the largest is taken."""
        return scores

    def set_num_candidates(self, count: int) -> None:
        """How many candidates are drawn from the better group's density."""
        self._n_ei_candidates = count

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        self._sampled = study, trial, search_space
        return super()._sample(study, trial, search_space)

    def _compute_acquisition_func(self, samples: Any, mpe_below: Any, mpe_above: Any) -> "NDArray[np.float64]":
        scores = super()._compute_acquisition_func(samples, mpe_below, mpe_above)
        study, trial, space = self._sampled
        candidates = [
            {name: space[name].to_external_repr(samples[name][index]) for name in space} for index in range(len(scores))
        ]
        return self.scores(study, trial, space, candidates, scores)


class HyperbandByNumber(HyperbandPruner):
    """Hyperband that draws a trial's bracket from another number than the trial's own, and has ``num_brackets``."""

    def __init__(
        self,
        min_epochs: int,
        max_epochs: int,
        reduction_factor: int,
        num_brackets: int,
        number_of: Callable[[FrozenTrial], int],
    ) -> None:
        super().__init__(min_epochs, max_epochs, reduction_factor)
        # Optuna takes a logarithm of floats, and log(243, 3) comes to 4.999999999999999.
        self._n_brackets = num_brackets
        self._number_of = number_of

    def _get_bracket_id(self, study: Study, trial: FrozenTrial) -> int:
        numbered = copy.copy(trial)
        numbered.number = self._number_of(trial)
        return super()._get_bracket_id(study, numbered)


class UnitCube:
    """Values of parameters as points of the unit cube, as Optuna's own samplers place them."""

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._transform = _SearchSpaceTransform(dict(distributions), transform_0_1=True)

    @property
    def bounds(self) -> "NDArray[np.float64]":
        """Shape (dimensions, 2)."""
        return self._transform.bounds

    def point(self, values: Mapping[str, Any]) -> "NDArray[np.float64]":
        """The point of shape (dimensions,) at which the values lie."""
        return self._transform.transform(dict(values))

    def values(self, point: "NDArray[np.float64]") -> dict[str, Any]:
        """The values that lie at a point."""
        return self._transform.untransform(point)


# The dashboard's figures, of which only the writing is public.


def dashboard_figures(study_system_attrs: Mapping[str, Any]) -> dict[str, str]:
    """Figures that were saved on a study for the dashboard: id -> Plotly's JSON."""
    figures: dict[str, str] = dashboard_module("_custom_plot_data").get_plotly_graph_objects(study_system_attrs)
    return figures


@functools.cache
def dashboard_module(name: str) -> ModuleType:
    """The dashboard's ``_note`` or ``_custom_plot_data`` without its server, which imports scikit-learn for a second
    and a half at the end of a launch; by way of the package if a file is not where it was."""
    package = importlib.util.find_spec("optuna_dashboard")
    if "optuna_dashboard" not in sys.modules and package is not None and package.origin is not None:
        path = Path(package.origin).with_name(f"{name}.py")
        spec = importlib.util.spec_from_file_location(f"hpo_optuna_dashboard{name}", path)
        if path.is_file() and spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    return importlib.import_module(f"optuna_dashboard.{name}")
