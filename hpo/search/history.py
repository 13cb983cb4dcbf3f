"""The trials of a study as a worker has read them, kept ranked so that a pruner's question costs little.

Samplers and pruners ask which finished trials are the best. Looking at each of ten thousand trials for every answer
costs more than an epoch of a small network, so each trial that finishes is inserted into rankings that stay sorted.
"""

import bisect
import contextlib
import operator
from collections.abc import Iterator
from typing import Any, Protocol

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.database import attributes
from hpo.database.imported import ImportedTrial
from hpo.search.optuna_internals import renumber, storage_of, study_id_of, trial_id_of
from hpo.search.space import Space

_number = operator.attrgetter("number")


class RankingKey(Protocol):
    """By what a ranking sorts trials, ascending; equal keys share one ranking, so a key is a frozen dataclass."""

    def __call__(self, trial: FrozenTrial) -> Any:
        """The trial's rank; None if the trial is not ranked."""

    def __hash__(self) -> int: ...


class Ranking:
    """Finished trials in ascending order of a key; those whose key is None are left out."""

    def __init__(self, key: RankingKey, trials: list[FrozenTrial]) -> None:
        self._key = key
        self._rank_of: dict[int, Any] = {}  # trial id -> key, for the ranked trials
        ranked = sorted(((rank, trial) for trial in trials if (rank := key(trial)) is not None), key=lambda r: r[0])
        self._ranks = [rank for rank, _ in ranked]
        self._trials = [trial for _, trial in ranked]
        self._rank_of = {trial_id_of(trial): rank for rank, trial in ranked}

    def __len__(self) -> int:
        return len(self._ranks)

    def num_below(self, rank: Any) -> int:
        """How many trials have a smaller rank."""
        return bisect.bisect_left(self._ranks, rank)

    def first(self, count: int) -> list[FrozenTrial]:
        """Up to ``count`` trials with the smallest ranks."""
        return self._trials[:count]

    def add(self, trial: FrozenTrial) -> None:
        """Inserts a trial that is not in the ranking, after those of equal rank."""
        if (rank := self._key(trial)) is not None:
            place = bisect.bisect_right(self._ranks, rank)
            self._ranks.insert(place, rank)
            self._trials.insert(place, trial)
            self._rank_of[trial_id_of(trial)] = rank

    def remove(self, removed: int) -> None:
        """Removes the trial with that id if it is in the ranking."""
        if (rank := self._rank_of.pop(removed, None)) is not None:
            place = bisect.bisect_left(self._ranks, rank)
            while trial_id_of(self._trials[place]) != removed:
                place += 1
            del self._ranks[place], self._trials[place]


class History:
    """The trials of one study. Of a lineage's attempts the latest counts; the earlier ones are hidden.

    An attempt whose configuration was infeasible is not hidden: another configuration followed it.

    Attributes:
        trials: all trials that were read, hidden ones too, by trial id.
        unfinished: ids of other workers' trials that may still change.
        last_read: the largest trial id that was read.
        last_mark: id of the newest mark when the marks were last read; None before.
        finished: finished trials in the order of their numbers. To be read, not changed.
        open: trials that run or wait, by trial id. To be read, not changed.
    """

    def __init__(self) -> None:
        self.trials: dict[int, FrozenTrial] = {}
        self.unfinished: set[int] = set()
        self.last_read = -1
        self.last_mark: int | None = None
        self.finished: list[FrozenTrial] = []
        self.open: dict[int, FrozenTrial] = {}
        self._latest_attempt: dict[int, int] = {}  # lineage -> trial id
        self._rankings: dict[RankingKey, Ranking] = {}

    def put(self, trial: FrozenTrial) -> None:
        """Adds a trial, or replaces the earlier state of it."""
        this = trial_id_of(trial)
        self.trials[this] = trial
        lineage = trial.user_attrs.get(attributes.LINEAGE)
        if lineage is not None:
            latest = self._latest_attempt.get(lineage, this)
            if latest > this and not is_infeasible(trial):
                return
            if latest < this and not is_infeasible(self.trials[latest]):
                self._hide(self.trials[latest])
            self._latest_attempt[lineage] = max(latest, this)
        self._hide(trial)
        if not trial.state.is_finished():
            self.open[this] = trial
            return
        self.finished.insert(self._place(trial.number), trial)
        for ranking in self._rankings.values():
            ranking.add(trial)

    def in_order(self) -> list[FrozenTrial]:
        """A new list of all trials that are not hidden, by number."""
        trials = self.finished.copy()
        for trial in self.open.values():
            bisect.insort(trials, trial, key=_number)
        return trials

    def num_results(self) -> int:
        """How many finished trials tell a sampler something: complete, pruned or refused ones."""
        return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self.finished)

    def ranking(self, key: RankingKey) -> Ranking:
        """The finished trials ranked by ``key``; made at the first call, kept up to date afterwards."""
        if key not in self._rankings:
            self._rankings[key] = Ranking(key, self.finished)
        return self._rankings[key]

    def _place(self, number: int) -> int:
        if not self.finished or self.finished[-1].number < number:
            return len(self.finished)
        return bisect.bisect_left(self.finished, number, key=_number)

    def _hide(self, trial: FrozenTrial) -> None:
        """Takes the trial, in whatever state it was put, out of everything but ``trials``."""
        self.open.pop(trial_id_of(trial), None)
        place = self._place(trial.number)
        if place < len(self.finished) and self.finished[place].number == trial.number:
            hidden = self.finished.pop(place)
            for ranking in self._rankings.values():
                ranking.remove(trial_id_of(hidden))


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether the trial's configuration was refused, so that it was not trained, or not to its end."""
    return attributes.INFEASIBLE in trial.user_attrs or any(value > 0 for value in trial.constraints.values())


def as_trial(space: Space, index: int, imported: ImportedTrial) -> FrozenTrial:
    """The ``index``-th imported trial as samplers see it: a trial with the number -1 - index, which no other has."""
    is_complete = imported.state == "complete"
    trial = create_trial(
        state=TrialState.COMPLETE if is_complete else TrialState.PRUNED,
        value=imported.value if is_complete else None,
        params=dict(imported.params),
        distributions={name: space.parameters[name].distribution() for name in imported.params},
    )
    renumber(trial, -1 - index)
    return trial


def is_imported(trial: FrozenTrial) -> bool:
    """Whether the trial was finished elsewhere."""
    return trial.number < 0


@contextlib.contextmanager
def history_of(study: Study) -> Iterator[History]:
    """The history of a study, to be read within the block.

    A worker's storage keeps one; for another storage it is made from all the study's trials.
    """
    reading = getattr(storage_of(study), "reading", None)
    if reading is not None:
        with reading(study_id_of(study)) as history:
            yield history
        return
    history = History()
    for trial in study.get_trials(deepcopy=False):
        history.put(trial)
    yield history
