"""The sampler ``auto``: a Gaussian process where it pays, else TPE, decided anew for each trial with its reason.

A Gaussian process finds more in few trials, also if many run at once, but a draw costs some tenths of a second, it
models no conditional parameters, and it learns nothing from pruned trials.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import collections
import importlib.util
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hpo.database import attributes
from hpo.search.context import SearchContext
from hpo.search.history import history_of, is_imported
from hpo.search.observed_space import SharedSpace
from hpo.search.optuna_internals import GPWithKernel, storage_of, trial_id_of

log = logging.getLogger("hpo")

FIRST_GUESS_SECONDS = 0.1
"""What a draw of the Gaussian process is taken to cost before it was measured.

8 parameters, 10 to 60 trials, one at a time: 0.05 s of processor time with the kernel of the draw before, 0.07 to 0.1
without it. Beside 15 running trials it is more, and measured.
"""

MEASURED = 5
"""The cost of a draw is the median of so many latest draws: one that a busy machine held up says nothing."""

FADING = 0.97
"""A measured cost that ruled the Gaussian process out is multiplied by this at each draw, so that it is tried again."""

_draw_seconds: dict[str, collections.deque[float]] = {}  # study name -> what draws of the Gaussian process took here
_has_drawn: set[str] = set()  # names of studies for which a Gaussian process has drawn in this process
_kernels: dict[str, Any] = {}  # study name -> the kernel that the last draw of the Gaussian process fitted
_last_reason: dict[str, str] = {}  # study name -> the reason that was logged last


class AutoSampler(BaseSampler):
    """Draws one trial with a Gaussian process or TPE.

    Args:
        gp, tpe: make the samplers.
        n_startup_trials: complete trials before either has a model.
        max_parameters, max_trials: limits of the Gaussian process.
        draw_share: the largest cost of a draw, as a share of what a trial costs its worker.
    """

    def __init__(
        self,
        gp: Callable[[], BaseSampler],
        tpe: Callable[[], BaseSampler],
        context: SearchContext,
        *,
        n_startup_trials: int,
        max_parameters: int,
        max_trials: int,
        draw_share: float,
    ) -> None:
        self._make = {"gp": gp, "tpe": tpe}
        self._context = context
        self._num_startup = n_startup_trials
        self._max_parameters = max_parameters
        self._max_trials = max_trials
        self._draw_share = draw_share
        self._chosen: BaseSampler | None = None
        self._is_gp = False

    def choose(self, study: Study) -> tuple[str, str]:
        """``"gp"`` or ``"tpe"``, and the reason."""
        space = self._context.space
        num_parameters, is_conditional = len(space.parameters), any(p.when for p in space.parameters.values())
        if isinstance(space, SharedSpace):
            num_parameters, is_conditional = len(space.shared), space.has_others
        if importlib.util.find_spec("torch") is None:
            return "tpe", "the Gaussian process needs torch, which is not installed"
        if self._context.num_objectives > 1:
            return "tpe", "the Gaussian process models one objective"
        if self._context.prunes:
            return "tpe", "a Gaussian process learns nothing from pruned trials"
        if is_conditional:
            return "tpe", "a Gaussian process models no conditional parameters"
        if num_parameters > self._max_parameters:
            return "tpe", f"{num_parameters} parameters are more than {self._max_parameters}"
        with history_of(study) as history:
            complete = [trial for trial in history.finished if trial.state is TrialState.COMPLETE]
        if len(complete) > self._max_trials:
            return "tpe", f"more than {self._max_trials} trials are complete"
        own = [trial for trial in complete if not is_imported(trial)]
        seconds = [float(trial.user_attrs.get(attributes.SECONDS, 0.0)) for trial in own[-20:]]
        if len(complete) < self._num_startup:
            return "tpe", f"the first {self._num_startup} trials are drawn at random"
        if not own:
            return "tpe", "what a trial costs is not known before the first is complete"
        typical = statistics.median(seconds)
        measured = _draw_seconds.setdefault(study.study_name, collections.deque(maxlen=MEASURED))
        cost = statistics.median(measured) if measured else FIRST_GUESS_SECONDS
        if cost > self._draw_share * typical:
            for index, seconds_before in enumerate(measured):
                measured[index] = FADING * seconds_before
            limit = f"{100 * self._draw_share:g} % of a trial"
            return "tpe", f"a draw of the Gaussian process would cost more than {limit}"
        return "gp", "the space is small, and a trial costs more than a draw"

    def _sampler(self, study: Study, trial: FrozenTrial) -> BaseSampler:
        if self._chosen is None:
            name, reason = self.choose(study)
            self._is_gp = name == "gp"
            self._chosen = self._make[name]()
            storage_of(study).set_trial_user_attr(trial_id_of(trial), attributes.DRAWN_BY, f"{name}: {reason}")
            if _last_reason.get(study.study_name) != reason:
                _last_reason[study.study_name] = reason
                log.info("%s draws with %s: %s", study.study_name, name, reason)
        return self._chosen

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        sampler = self._sampler(study, trial)
        if not self._is_gp:
            return sampler.sample_relative(study, trial, search_space)
        import torch  # noqa: F401  (its import is not part of what a draw costs)

        assert isinstance(sampler, GPWithKernel)
        started = time.perf_counter()
        sampler.begin_with(_kernels.get(study.study_name))
        values = sampler.sample_relative(study, trial, search_space)
        _kernels[study.study_name] = sampler.kernel
        seconds = time.perf_counter() - started
        if study.study_name in _has_drawn:  # the first draw in a process also loads what the others find
            _draw_seconds.setdefault(study.study_name, collections.deque(maxlen=MEASURED)).append(seconds)
        _has_drawn.add(study.study_name)
        return values

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler(study, trial).sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Nothing: each trial has a sampler of its own, seeded by its lineage."""
