"""Searches in one process: the service's own workers' code without a database, and plain Optuna.

Both are asked for a configuration, are given each epoch's value, and say whether to prune: :func:`run` drives either
under the same clock.
"""

import datetime
import heapq
import itertools
import warnings
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import optuna
import optuna.samplers._tpe._truncnorm as truncnorm
import scipy.special  # type: ignore[import-untyped]
from optuna.exceptions import ExperimentalWarning
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from benchmarks.curves import EPOCHS
from benchmarks.search.tasks import Task
from hpo.database import attributes
from hpo.database.claims import Claim
from hpo.database.storage import Storage
from hpo.experiment.experiment import StudyHandle
from hpo.search.seeds import derive_seed
from hpo.studyfile.load import parse_study_file
from hpo.trainers.registry import TRAINERS
from hpo.worker.running_trial import RunningTrial
from hpo.worker.study_runner import StudyRunner
from hpo.worker.trial_cache import TrialCache

# Optuna's own function is called number by number, and is two thirds of what a draw of TPE costs. Both sides have this
# one, which agrees with it to the last digits.
truncnorm._log_ndtr = scipy.special.log_ndtr

TRIAL_SECONDS = 600.0
"""What a trial is taken to have cost its worker, for ``auto``: the seconds of a table rule out a Gaussian process."""


class Search(Protocol):
    """One study, of which ``number`` counts the trials from 0."""

    def ask(self, number: int) -> tuple[dict[str, Any], int]:
        """The values and the training seed of the next trial."""

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Takes an epoch's value; returns whether to prune the trial."""

    def tell(self, number: int, value: float, pruned: bool) -> None:
        """Takes the end of a trial."""


class _Memory:
    """Stands for the database of one study: what has ended, to be read once."""

    def __init__(self) -> None:
        self.ended: dict[int, FrozenTrial] = {}

    def read_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        wanted: set[int],
        after: int,
        ended_of: Collection[int] = (),
    ) -> list[FrozenTrial]:
        fresh = itertools.takewhile(lambda item: item[0] > after, reversed(self.ended.items()))
        earlier = wanted.union(ended_of)
        return [*(trial for _, trial in fresh), *(self.ended[one] for one in earlier if one in self.ended)]

    def read_marks(self, study_id: int, after: int | None) -> tuple[list[Any], int]:
        """None: all trials are this worker's own, whose marks it has already."""
        return [], after or 0


class OurSearch:
    """A study as one worker with many slots sees it: the code that proposes, records and prunes is the worker's."""

    def __init__(self, task: Task, sampler: Any, pruner: Any, seed: int) -> None:
        content = {
            "name": "benchmark",
            "trainer": task.trainer,
            "metric": "val_loss" if task.trainer == "classifier" else "loss",
            "samplers": [sampler],
            "budget": {"trials": 100_000},
            "pruner": pruner,
            "seed": seed,
            "space": task.space.as_table(),
            "fixed": dict(task.fixed),
        }
        file = parse_study_file(content, "the benchmark's study")
        spec = file.samplers[0]
        self._memory = _Memory()
        self._cache = TrialCache(cast(Storage, self._memory), auto_refresh=False)
        self._runner = StudyRunner(self._cache, file, StudyHandle(1, f"benchmark/{spec.label}/0", spec, 0, "key"))
        self._entry = TRAINERS[file.trainer]
        self._trials: dict[int, RunningTrial] = {}
        self._clock = datetime.datetime(2026, 1, 1)

    def ask(self, number: int) -> tuple[dict[str, Any], int]:
        claim = Claim(study_id=1, trial_id=number, number=number, lineage=number, attempt=0, fresh=True)
        trial = self._runner.prepare(claim)
        self._cache.pending.discard(number)
        if trial.error is not None:
            raise trial.error
        self._trials[number] = trial
        return dict(self._cache.get_trial(number).params), trial.seed

    def report(self, number: int, epoch: int, value: float) -> bool:
        self._cache.set_trial_intermediate_value(number, epoch, value)
        return self._runner.should_prune(self._trials[number], epoch, self._entry)

    def tell(self, number: int, value: float, pruned: bool) -> None:
        self._cache.set_trial_user_attr(number, attributes.SECONDS, TRIAL_SECONDS)
        self._cache.pending.discard(number)
        self._cache.set_ended(number, TrialState.PRUNED if pruned else TrialState.COMPLETE, value)
        trial = self._cache.get_trial(number)
        self._clock += datetime.timedelta(seconds=1)
        trial.datetime_complete = self._clock
        self._memory.ended[number] = trial
        self._cache.untrack(number)
        del self._trials[number]


PLAIN_SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False),
    # In Optuna 5 the same, run for run, as without these two options.
    "tpe multivariate": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
}
PLAIN_PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(1, EPOCHS, 3),
}


class PlainSearch:
    """``ask``, ``report``, ``should_prune`` and ``tell`` of a study of Optuna in memory."""

    def __init__(self, task: Task, sampler: str, pruner: str, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            made = PLAIN_SAMPLERS[sampler](seed)
        self._study = optuna.create_study(storage=InMemoryStorage(), sampler=made, pruner=PLAIN_PRUNERS[pruner]())
        self._task, self._seed = task, seed
        self._running: dict[int, optuna.Trial] = {}

    def ask(self, number: int) -> tuple[dict[str, Any], int]:
        trial = self._running[number] = self._study.ask()
        return dict(self._task.space.suggest(trial)), derive_seed(self._seed, "train", number)

    def report(self, number: int, epoch: int, value: float) -> bool:
        self._running[number].report(value, epoch)
        return epoch < EPOCHS and self._running[number].should_prune()

    def tell(self, number: int, value: float, pruned: bool) -> None:
        trial = self._running.pop(number)
        self._study.tell(trial, None if pruned else value, TrialState.PRUNED if pruned else TrialState.COMPLETE)


@dataclass
class Course:
    """What a search came to.

    Attributes:
        regrets: for each of the asked numbers of epochs, the regret of the incumbent: the complete trial with the best
            last value when so many epochs had been trained; 1 if none was complete.
        num_trials, num_complete: of all.
        seconds: the clock's end, by the task's seconds of an epoch.
    """

    regrets: list[float] = field(default_factory=list)
    num_trials: int = 0
    num_complete: int = 0
    seconds: float = 0.0


NONE_COMPLETE = 1.0


def run(
    search: Search,
    task: Task,
    budgets: list[int],
    slots: int = 1,
    in_step: bool = False,
    most_running: int | None = None,
) -> Course:
    """Trains ``slots`` trials at a time until the last of ``budgets`` epochs is spent; no trial begins that might not
    be trained to its end.

    An epoch of a trial lasts the task's seconds, or, ``in_step`` as in a pack, as long as any other. ``most_running``
    is the limit of the service on trials that run at once.
    """
    course = Course()
    best, best_values = float("inf"), None
    spent, reserved, clock = 0, 0, 0.0
    todo = list(budgets)
    heap: list[tuple[float, int, int]] = []  # end of the epoch, trial, epoch
    running: dict[int, tuple[dict[str, Any], Any, float]] = {}
    limit = min(slots, most_running or slots)
    while True:
        while len(running) < limit and spent + reserved + EPOCHS <= budgets[-1]:
            number = course.num_trials
            values, seed = search.ask(number)
            curve, seconds = task.train(values, seed)
            running[number] = (values, curve, 1.0 if in_step else seconds)
            heapq.heappush(heap, (clock + running[number][2], number, 1))
            course.num_trials += 1
            reserved += EPOCHS
        if not heap:
            break
        clock, number, epoch = heapq.heappop(heap)
        values, curve, seconds = running[number]
        spent, reserved = spent + 1, reserved - 1
        value = float(curve[epoch - 1])
        pruned = search.report(number, epoch, value)
        if epoch < EPOCHS and not pruned:
            heapq.heappush(heap, (clock + seconds, number, epoch + 1))
        else:
            pruned = pruned and epoch < EPOCHS
            reserved -= EPOCHS - epoch
            search.tell(number, value, pruned)
            del running[number]
            course.num_complete += not pruned
            if not pruned and value < best:
                best, best_values = value, values
        while todo and spent >= todo[0]:
            course.regrets.append(NONE_COMPLETE if best_values is None else task.regret(best_values))
            todo.pop(0)
    course.regrets += [NONE_COMPLETE if best_values is None else task.regret(best_values)] * len(todo)
    course.seconds = clock
    return course
