"""An Optuna objective of the user's own as a trainer: one slot, an epoch for each report, the returned number as value.

The objective runs in a greenlet of the worker's thread: ``trial.should_prune()`` switches to the worker, which decides
about the report, and comes back with the answer. So an objective is interrupted, dropped and limited in time as a
generator is, and its code runs in the thread that it would run in without a worker.

:mod:`hpo.trainers.objective_loading` gets an objective from a script; the trial that a worker hands over in
:attr:`hpo.trainers.protocol.Run.optuna_trial` is an :class:`hpo.trainers.objective_trial.ObjectiveTrial`.
"""

import inspect
import logging
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import greenlet  # type: ignore[import-untyped]
import optuna

from hpo.trainers.errors import TrainerError
from hpo.trainers.objective_trial import FixedObjectiveTrial
from hpo.trainers.protocol import Ended, EpochEnd, Event, Failed, Run
from hpo.trainers.registry import TrainerEntry, register
from hpo.trainers.surroundings import Surroundings

log = logging.getLogger("hpo")

Objective = Callable[[Any], Any]
MOST_CLOSINGS = 100
"""How often an objective that catches TrialPruned and goes on is ended before it is given up."""


@dataclass(frozen=True)
class _Report:
    step: int
    value: float
    may_prune: bool


@dataclass(frozen=True)
class _Returned:
    value: Any


@dataclass(frozen=True)
class _Raised:
    error: BaseException


class ObjectiveTrainer:
    """Runs an objective; see :class:`hpo.trainers.protocol.Trainer`."""

    def __init__(self, function: Objective) -> None:
        self.capacity = 1
        self._function = function
        self._key: Hashable = None
        self._run: Run | None = None
        self._trial: Any = None
        self._body: Any = None
        self._asked = False
        self._surroundings: Surroundings | None = None

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        if self._body is not None:
            raise RuntimeError("the slot is taken")
        self._key, self._run = key, run
        self._trial = run.optuna_trial or FixedObjectiveTrial(dict(config), run.trial)
        self._trial.reports.conversation = self
        self._body = greenlet.greenlet(self._call)

    def advance(self) -> list[Event]:
        if self._body is None or self._run is None:
            return []
        if self._surroundings is None:
            self._surroundings = Surroundings(self._run)
        return self._events(self._resume(False))

    def stop(self, key: Hashable) -> None:
        """Tells the objective to prune if it has asked, else raises TrialPruned in it; runs it to its end."""
        if self._body is None or key != self._key:
            return
        asked = self._asked
        try:
            for _ in range(MOST_CLOSINGS):
                if not self._body or self._body.dead:  # not started, or at its end
                    break
                outcome = self._resume(True) if asked else self._throw()
                asked = False
                if isinstance(outcome, _Raised) and not isinstance(outcome.error, optuna.TrialPruned):
                    # The trial has ended: its reports stand, whatever its cleanup raises.
                    log.warning("the objective raised after it was told to end", exc_info=outcome.error)
            else:
                log.warning("the objective does not end although it was told to; it is given up")
        finally:
            self._clear()

    # The side of the objective.

    def hand_over(self, step: int, value: float, *, may_prune: bool) -> bool:
        """Called by the trial; returns with the next ``advance``, or with True from ``stop``."""
        if greenlet.getcurrent() is not self._body:
            return False  # from a thread of the objective's own, where nobody can wait for the worker
        return bool(self._body.parent.switch(_Report(step, value, may_prune)))

    def _call(self, *_: Any) -> _Returned | _Raised:
        try:
            return _Returned(self._function(self._trial))
        except (KeyboardInterrupt, GeneratorExit, greenlet.GreenletExit):
            raise
        except BaseException as error:
            return _Raised(error)

    # The side of the worker.

    def _resume(self, answer: bool) -> Any:
        self._body.parent = greenlet.getcurrent()
        return self._received(self._body.switch(answer))

    def _throw(self) -> Any:
        self._body.parent = greenlet.getcurrent()
        return self._received(self._body.throw(optuna.TrialPruned("the trial was ended")))

    def _received(self, outcome: Any) -> Any:
        self._asked = isinstance(outcome, _Report) and outcome.may_prune
        return outcome

    def _events(self, outcome: Any) -> list[Event]:
        key, run = self._key, self._run
        assert run is not None
        if isinstance(outcome, _Report):
            return [self._epoch(outcome)]
        last = self._trial.reports.last
        events: list[Event] = [] if last is None else [self._epoch(_Report(last[0], last[1], may_prune=False))]
        if isinstance(outcome, _Returned):
            try:
                events.append(Ended(key, values_of(outcome.value, run)))
            except (TypeError, MultiObjectiveError) as error:
                events.append(Failed(key, error))
        else:
            events.append(Failed(key, outcome.error))
        self._clear()
        return events

    def _epoch(self, report: _Report) -> EpochEnd:
        """A report as an event; one that is not finite ends a trial only if the objective asks ``should_prune``."""
        assert self._run is not None
        counts = report.may_prune or math.isfinite(report.value)
        metrics = {self._run.metric: report.value} if counts else {}
        return EpochEnd(self._key, report.step, metrics, False, may_prune=report.may_prune)

    def _clear(self) -> None:
        self._key, self._run, self._trial, self._body, self._asked = None, None, None, None, False
        if self._surroundings is not None:
            self._surroundings.restore()
            self._surroundings = None


class MultiObjectiveError(TrainerError):
    """An objective returns several values."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"the objective returns {count} values, and the study has one metric: return one number and keep the "
            'others with trial.set_user_attr, or name two metrics: metric = ["…", "…"]'
        )


def value_of(returned: Any) -> float:
    """What an objective returned, as its value; it may be infinite or not a number.

    Raises:
        MultiObjectiveError: for several values.
        TypeError: for what is no number.
    """
    if isinstance(returned, list | tuple):
        if len(returned) != 1:
            raise MultiObjectiveError(len(returned))
        returned = returned[0]
    try:
        return float(returned)
    except (TypeError, ValueError, OverflowError):
        shown = "None" if returned is None else f"a {type(returned).__name__}"
        raise TypeError(f"the objective returned {shown}; expected a number") from None


def values_of(returned: Any, run: Run) -> dict[str, float]:
    """What an objective returned, by the metrics of the study: one number, or two; errors as :func:`value_of`."""
    if run.second_metric is None:
        return {run.metric: value_of(returned)}
    if not isinstance(returned, list | tuple) or len(returned) != 2:
        raise TypeError(f"the objective returned {returned!r:.80}; expected {run.metric} and {run.second_metric}")
    return {run.metric: value_of(returned[0]), run.second_metric: value_of(returned[1])}


def register_objective(name: str, function: Any) -> TrainerEntry:
    """Adds an objective to the table of trainers under ``name``, such as ``my_module:objective``.

    Raises:
        TrainerError: for what cannot be called with a trial alone.
    """
    if (wrong := refusal(function)) is not None:
        raise TrainerError(f"{name}: {wrong}")
    described = inspect.getdoc(function) if inspect.isroutine(function) else None
    description = (described or "").partition("\n")[0] or "an Optuna objective"
    return register(
        TrainerEntry(
            name=name,
            config=None,
            build=lambda options: ObjectiveTrainer(function),
            description=description,
            max_slots=1,
            module=name.partition(":")[0],
            suggests=True,
        )
    )


def refusal(function: Any) -> str | None:
    """Why something cannot be an objective, or None."""
    if inspect.isclass(function):
        return "is a class; an objective is a function or an object: name an object of it, made in the module"
    if not callable(function):
        return f"is a {type(function).__name__}; an objective is a function that takes a trial and returns a number"
    called = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
        return "is async; an objective returns its value: wrap it in a function that calls asyncio.run"
    if inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(called):
        return "is a generator function; decorate it with @hpo.trainer, or return a number for an Optuna objective"
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None  # built in another language, which does not say what it takes
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in parameters if p.kind in kinds]
    takes_any = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    needed = [p.name for p in positional if p.default is inspect.Parameter.empty]
    needed += [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is p.empty]
    if needed[:1] in (["self"], ["cls"]):
        return "is a method of a class; name the method of an object: in the module, objective = …(…).method"
    if not positional and not takes_any:
        return "takes no argument; an objective takes a trial"
    if len(needed) > 1:
        return (
            f"takes {len(needed)} arguments ({', '.join(needed)}); an objective takes a trial alone (functools.partial)"
        )
    return None
