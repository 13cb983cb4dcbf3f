"""How fast an experiment goes and how long it will still take, from one status after another.

Work is counted in epochs as soon as there are any, so that trials which still run and trials that were pruned early
count for what they are. The rate is that of the newer half of the time since work first came in: workers take some
seconds to start, and trials of a search get longer or shorter as it goes on. To the work divided by its rate comes the
time in which the last trials end one after another while the other slots are empty.
"""

import math
import time
from typing import Any

SHORTEST_WINDOW_SECONDS = 10.0
SHARE_OF_LAST_TRIAL = 0.4
"""Time for which slots are empty at the end, in lengths of the longest trial: measured on the runs in tests/data."""


class Speed:
    """Trials per minute and time left, from what has been done since the first look."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._work: list[tuple[float, float]] = []
        self._in_epochs = False
        self._epoch_seconds = math.inf

    @property
    def elapsed_seconds(self) -> float:
        """Since the first look."""
        return 0.0 if self._first is None else time.monotonic() - self._first[0]

    def measure(self, status: dict[str, Any]) -> tuple[float | None, float | None]:
        """Returns (trials per minute, seconds left); None if nothing has finished since the first look.

        The seconds are known earlier if epochs have been reported, or if a budget in time ends the search.
        """
        studies = status["studies"]
        done = sum(ended(study) for study in studies)
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        elapsed, gained = now - self._first[0], done - self._first[1]
        left = _least(self._estimate(studies, now), _time_left(studies))
        return (60 * gained / elapsed if gained > 0 and elapsed > 0 else None), left

    def _estimate(self, studies: list[dict[str, Any]], now: float) -> float | None:
        """Seconds that the work that is left takes at the rate of the newer half of the time; None if not known yet."""
        epochs = sum(study["epochs"] for study in studies)
        work = float(epochs or sum(ended(study) for study in studies))
        if bool(epochs) != self._in_epochs:
            self._in_epochs = bool(epochs)
            if any(row[1] for row in self._work):
                self._work.clear()
        # A trial that is repeated takes epochs back; the two numbers of a status are also not of one moment.
        work = max(work, self._work[-1][1] if self._work else 0.0)
        if not self._work or work > self._work[-1][1] or now > self._work[-1][0]:
            self._work.append((now, work))
        started = next((row for row in self._work if row[1] > self._work[0][1]), None)
        if started is None:
            return None
        since = self._work[0]
        if work > started[1]:
            # What came in first is not counted: it was begun before.
            window = max(SHORTEST_WINDOW_SECONDS, (now - started[0]) / 2)
            recent = next((row for row in self._work if row[0] >= max(started[0], now - window)), started)
            since = recent if work > recent[1] and now > recent[0] else started
        if now <= since[0] or work <= since[1]:
            return None
        rate = (work - since[1]) / (now - since[0])
        left: float = sum(_work_left(study, studies, epochs > 0) for study in studies) / rate
        num_running = sum(int(study["states"]["running"]) for study in studies)
        if not epochs or num_running < 2:
            return left
        # In a pack, an epoch of a trial is the shorter the fewer trials there are; at the end there are few.
        self._epoch_seconds = min(self._epoch_seconds, num_running / rate)
        longest: float = max(int(study.get("epochs_per_trial", 1)) for study in studies)
        return left + SHARE_OF_LAST_TRIAL * (1 - 1 / num_running) * longest * self._epoch_seconds


def ended(study: dict[str, Any]) -> int:
    """Trials of a study that count and have ended."""
    states = study["states"]
    return int(states["complete"] + states["pruned"] + states["failed"])


def _least(*seconds: float | None) -> float | None:
    known = [value for value in seconds if value is not None]
    return min(known) if known else None


def _work_left(study: dict[str, Any], studies: list[dict[str, Any]], in_epochs: bool) -> float:
    """Epochs that a study has still to train, or, before there are any, trials that it has still to finish."""
    if study["finished"]:
        return 0.0
    budget = study["budget"]
    if "trials" in budget:
        left = max(0.0, int(budget["trials"]) - ended(study))
        if not in_epochs:
            return left
        length = _epochs_per_trial([study]) or _epochs_per_trial(studies) or 1.0
        # The trials that run have done half of theirs, on average.
        return max(0.0, left - float(study["states"]["running"]) / 2) * length
    if "epochs" in budget:
        unspent = max(0.0, float(budget["epochs"]) - float(study["epochs"]))
        longest = int(study.get("epochs_per_trial", 1))
        # What is too little for another trial stays unspent: the trials that run have half of theirs left, on average.
        return min(unspent, int(study["states"]["running"]) * longest / 2) if unspent < longest else unspent
    return math.inf


def _epochs_per_trial(studies: list[dict[str, Any]]) -> float | None:
    """Mean epochs of a trial; None before two have ended. A trial that runs counts as half of one."""
    num_ended = sum(ended(study) for study in studies)
    if num_ended < 2:
        return None
    begun = num_ended + sum(int(study["states"]["running"]) for study in studies) / 2
    return max(1.0, float(sum(int(study["epochs"]) for study in studies)) / begun)


def _time_left(studies: list[dict[str, Any]]) -> float | None:
    """The most seconds that the studies can take; None if time ends not all of them.

    The clocks of those that run go at the same time; the others follow one by one at worst.
    """
    together, others = 0.0, 0.0
    unfinished = [study for study in studies if not study["finished"]]
    for study in unfinished:
        if (left := study.get("seconds_left")) is None:
            return None
        if study["states"]["running"]:
            together = max(together, left)
        else:
            others += left
    return together + others if unfinished else None
