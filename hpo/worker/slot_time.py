"""How much of the time of a worker's slots its trainer computes: the rest is spent on claims, reports and refills."""

import time
from collections.abc import Callable


class SlotTime:
    """Counts the seconds of slots, and those of them in which the trainer trained or evaluated.

    A slot counts from its first trial on; one that waits for its next trial is idle. ``host_seconds`` is how long the
    trainer has spent so far on preparing trials and epochs.
    """

    def __init__(self, host_seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._host_seconds, self._clock = host_seconds, clock
        self._busy = 0.0  # of one slot that always had a trial
        self._free_since: list[float] = []
        self._begun: dict[int, tuple[float, float]] = {}

    def start(self, trial_id: int) -> None:
        """The trial gets the slot that has been empty for longest."""
        since = self._free_since.pop(0) if self._free_since else self._clock()
        self._begun[trial_id] = since, self._busy

    def end(self, trial_id: int) -> tuple[float, float] | None:
        """The seconds of the trial's slot, and those in which the trainer computed; None if it was never started."""
        begun = self._begun.pop(trial_id, None)
        if begun is None:
            return None
        now = self._clock()
        self._free_since.append(now)
        return now - begun[0], self._busy - begun[1]

    def computing(self) -> "_Interval":
        """To be entered while the trainer advances."""
        return _Interval(self)


class _Interval:
    def __init__(self, slots: SlotTime) -> None:
        self._slots = slots

    def __enter__(self) -> None:
        self._started, self._host = self._slots._clock(), self._slots._host_seconds()

    def __exit__(self, *_: object) -> None:
        slots = self._slots
        slots._busy += slots._clock() - self._started - (slots._host_seconds() - self._host)
