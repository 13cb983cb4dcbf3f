"""What a worker knows of one study's trials, kept so that a question costs what has changed since the last one.

Samplers and pruners ask which finished trials are the best. Looking at each of ten thousand for every answer costs
more than a small network's epoch; here they are ranked once, and each trial that finishes is put in its place.
"""

import bisect
import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from hpo.database import attributes

_number = operator.attrgetter("number")
Key = Callable[[FrozenTrial], Any]


class Ranking:
    """Finished trials in ascending order of a key; those whose key is None are left out."""

    def __init__(self, key: Key, trials: list[FrozenTrial]) -> None:
        self._key = key
        pairs = [(value, trial) for trial in trials if (value := key(trial)) is not None]
        pairs.sort(key=operator.itemgetter(0))
        self._keys = [value for value, _ in pairs]
        self._trials = [trial for _, trial in pairs]

    def __len__(self) -> int:
        return len(self._keys)

    def num_below(self, key: Any) -> int:
        """How many have a smaller key."""
        return bisect.bisect_left(self._keys, key)

    def first(self, count: int) -> list[FrozenTrial]:
        """Up to ``count`` trials with the smallest keys."""
        return self._trials[:count]

    def add(self, trial: FrozenTrial) -> None:
        if (key := self._key(trial)) is not None:
            place = bisect.bisect_right(self._keys, key)
            self._keys.insert(place, key)
            self._trials.insert(place, trial)

    def remove(self, trial: FrozenTrial) -> None:
        if (key := self._key(trial)) is not None:
            place = bisect.bisect_left(self._keys, key)
            while self._trials[place] is not trial:
                place += 1
            del self._keys[place], self._trials[place]


class History:
    """The trials of one study. Of a lineage's attempts the latest counts: the others are hidden.

    Attributes:
        trials: all that are known, hidden ones too, by trial id.
        unfinished: ids of others' trials that may still change.
        last_read: greatest trial id that has been read.
        finished: finished trials by number. To be read, not changed.
        open: trials that run or wait, by trial id. To be read, not changed.
    """

    def __init__(self) -> None:
        self.trials: dict[int, FrozenTrial] = {}
        self.unfinished: set[int] = set()
        self.last_read = -1
        self.finished: list[FrozenTrial] = []
        self.open: dict[int, FrozenTrial] = {}
        self._latest_attempt: dict[int, int] = {}  # lineage -> trial id
        self._rankings: dict[str, Ranking] = {}

    def put(self, trial: FrozenTrial) -> None:
        """Takes a trial, or what has become of one that is known."""
        trial_id = trial._trial_id
        self.trials[trial_id] = trial
        lineage = trial.user_attrs.get(attributes.LINEAGE)
        if lineage is not None:
            latest = self._latest_attempt.get(lineage, trial_id)
            if latest > trial_id:
                return
            if latest < trial_id:
                self._hide(self.trials[latest])
            self._latest_attempt[lineage] = trial_id
        self._hide(trial)
        if not trial.state.is_finished():
            self.open[trial_id] = trial
            return
        self.finished.insert(self._place(trial.number), trial)
        for ranking in self._rankings.values():
            ranking.add(trial)

    def in_order(self) -> list[FrozenTrial]:
        """All that are not hidden, by number, in a list of the caller's own."""
        trials = self.finished.copy()
        for trial in self.open.values():
            bisect.insort(trials, trial, key=_number)
        return trials

    def ranking(self, name: str, key: Key) -> Ranking:
        """The ranking by ``key``, made when its ``name`` is first asked for; equal names mean equal keys."""
        if name not in self._rankings:
            self._rankings[name] = Ranking(key, self.finished)
        return self._rankings[name]

    def _place(self, number: int) -> int:
        if not self.finished or self.finished[-1].number < number:
            return len(self.finished)
        return bisect.bisect_left(self.finished, number, key=_number)

    def _hide(self, trial: FrozenTrial) -> None:
        """Takes out what is known under the trial's number."""
        self.open.pop(trial._trial_id, None)
        place = self._place(trial.number)
        if place < len(self.finished) and self.finished[place].number == trial.number:
            known = self.finished.pop(place)
            for ranking in self._rankings.values():
                ranking.remove(known)


@contextlib.contextmanager
def history_of(study: Study) -> Iterator[History]:
    """The history behind a study, to be read within the block; made for the occasion where its storage keeps none."""
    reading = getattr(study._storage, "reading", None)
    if reading is not None:
        with reading(study._study_id) as history:
            yield history
        return
    history = History()
    for trial in study.get_trials(deepcopy=False):
        history.put(trial)
    yield history
