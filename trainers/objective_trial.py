"""The trial that an Optuna objective gets: a real :class:`optuna.trial.Trial` whose pruning a worker decides.

``report`` keeps the value; ``should_prune`` hands it to the worker and waits for the decision. An objective that never
asks ``should_prune`` is never pruned, as in Optuna.
"""

import datetime
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility

USER_PREFIX = "user:"
"""Stands before a user attribute whose name the service uses itself."""


class Conversation(Protocol):
    """What a trial needs of the trainer that runs its objective."""

    def hand_over(self, step: int, value: float, *, may_prune: bool) -> bool:
        """Gives a report to the worker; returns whether the trial is to be pruned."""
        ...


class _Reports:
    """The last report, until it is handed over: with the question ``should_prune``, or without it by what follows."""

    def __init__(self) -> None:
        self.conversation: Conversation | None = None
        self.last: tuple[int, float] | None = None

    def put(self, step: int, value: float) -> None:
        self.flush()
        self.last = (step, value)

    def ask(self) -> bool:
        """Whether the trial is to be pruned after its last report; False if there is none since the last time."""
        if self.last is None or self.conversation is None:
            return False
        (step, value), self.last = self.last, None
        return self.conversation.hand_over(step, value, may_prune=True)

    def flush(self) -> None:
        """Hands over a report about which the objective has not asked."""
        if self.last is not None and self.conversation is not None:
            (step, value), self.last = self.last, None
            self.conversation.hand_over(step, value, may_prune=False)


class ObjectiveTrial(optuna.trial.Trial):
    """A trial of a search; a worker makes it of the study that the trial belongs to.

    Args:
        study: the study, with the sampler of this trial.
        trial_id: as in Optuna's storage.
        distributions: of every parameter that trials of the study have suggested so far, by name; this trial adds its
            own.
        sampled: called after each newly sampled parameter with all parameters of the trial.
        reserved: names of user attributes that the service uses itself.

    Attributes:
        changed: called after each sampled parameter, report and user attribute; whoever runs the trial sets it.
    """

    def __init__(
        self,
        study: optuna.Study,
        trial_id: int,
        *,
        distributions: dict[str, BaseDistribution] | None = None,
        sampled: Callable[[dict[str, Any]], None] = lambda params: None,
        reserved: Collection[str] = (),
    ) -> None:
        super().__init__(study, trial_id)
        self.reports = _Reports()
        self._known_distributions = {} if distributions is None else distributions
        self._sampled = sampled
        self.changed: Callable[[], None] = lambda: None
        self._reserved = reserved
        self._set_here: dict[str, Any] = {}
        self._made = datetime.datetime.now()
        self._proposed: dict[str, Any] = {}

    def report(self, value: float, step: int) -> None:
        """As in Optuna; a step that was reported already is ignored with a warning."""
        before = len(self._cached_frozen_trial.intermediate_values)
        super().report(value, step)
        if len(self._cached_frozen_trial.intermediate_values) > before:
            self.reports.put(int(step), float(value))
            self.changed()

    def should_prune(self) -> bool:
        """Whether the study file's pruner prunes the trial after its last report.

        After True the trial is recorded as PRUNED, whatever the objective does then.
        """
        return self.reports.ask()

    def set_user_attr(self, key: str, value: Any) -> None:
        """As in Optuna. A name that the service uses itself is stored with ``user:`` before it."""
        is_taken = key in self._reserved or key.startswith("hpo:")
        super().set_user_attr(f"{USER_PREFIX}{key}" if is_taken else key, value)
        self._set_here[key] = value
        self.changed()

    def fix(self, params: Mapping[str, Any]) -> None:
        """Has these values suggested in place of sampled ones; values that the trial was enqueued with go first."""
        self._fixed_params = {**params, **self._fixed_params}

    def propose(self, params: Mapping[str, Any]) -> None:
        """Has these values suggested in place of sampled ones where the objective's ranges hold them."""
        self._proposed = dict(params)

    @property
    def datetime_start(self) -> datetime.datetime | None:
        """When the trial was claimed, in this machine's local time."""
        return super().datetime_start or self._made

    @property
    def user_attrs(self) -> dict[str, Any]:
        """What the objective itself has set."""
        return dict(self._set_here)

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        known = self._known_distributions.get(name)
        if known is not None:
            # What Optuna's own storage refuses: another kind of parameter, or other choices, under the same name.
            check_distribution_compatibility(known, distribution)
        is_new = name not in self._cached_frozen_trial.distributions
        if name in self._proposed and name not in self._fixed_params and _holds(distribution, self._proposed[name]):
            self._fixed_params = {**self._fixed_params, name: self._proposed[name]}
        value = super()._suggest(name, distribution)
        if is_new:
            self._known_distributions[name] = distribution
            self._sampled(self.params)
            self.changed()
        return value


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether the value is one of the distribution's."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


class FixedObjectiveTrial(optuna.trial.FixedTrial):
    """A trial with given values, for ``hpo train``; its reports go to the trainer and nothing is pruned.

    Raises:
        ValueError: from ``suggest_*`` if the file's ``[fixed]`` has no value of that name.
    """

    def __init__(self, params: dict[str, Any], number: int = 0) -> None:
        super().__init__(params, number)
        self.reports = _Reports()
        self._steps: set[int] = set()

    def report(self, value: float, step: int) -> None:
        step, value = int(step), float(value)
        if step < 0:
            raise ValueError(f"`{step=}` must be non-negative.")
        if step not in self._steps:
            self._steps.add(step)
            self.reports.put(step, value)

    def should_prune(self) -> bool:
        self.reports.flush()
        return False

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._params and None in getattr(distribution, "choices", ()):
            self._params = {**self._params, name: None}  # TOML has no null, so an exported None is absent
        if name not in self._params:
            given = ", ".join(self._params) or "nothing"
            raise ValueError(
                f"the objective suggests {name!r}, and the file's [fixed] gives {given}: add {name!r} to [fixed]"
            )
        return super()._suggest(name, distribution)
