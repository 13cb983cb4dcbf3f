"""The trials that a worker holds, and which of them the database has given to somebody else meanwhile."""

import threading
from collections.abc import Container


class Leases:
    """Thread-safe: the heartbeat, the database thread and the main thread all use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._studies: dict[int, int] = {}  # trial id -> study id
        self._lost: set[int] = set()

    def add(self, trial_id: int, study_id: int) -> None:
        with self._lock:
            self._studies[trial_id] = study_id

    def remove(self, trial_id: int) -> int | None:
        """Ends a lease and returns the trial's study; None if there was none."""
        with self._lock:
            self._lost.discard(trial_id)
            return self._studies.pop(trial_id, None)

    def study_of(self, trial_id: int) -> int | None:
        """The study of a trial that this worker holds, lost or not; None for every other trial."""
        return self._studies.get(trial_id)

    @property
    def trial_ids(self) -> list[int]:
        with self._lock:
            return list(self._studies)

    @property
    def study_ids(self) -> list[int]:
        """The studies of the trials that this worker holds."""
        with self._lock:
            return sorted(set(self._studies.values()))

    def mark_lost(self, trial_ids: Container[int]) -> None:
        """Marks those of these trials that this worker holds: nothing may be written to them any more."""
        with self._lock:
            self._lost |= {trial_id for trial_id in self._studies if trial_id in trial_ids}

    def mark_study_lost(self, study_id: int) -> None:
        """Marks the trials of a study that was deleted."""
        with self._lock:
            self._lost |= {trial_id for trial_id, owner in self._studies.items() if owner == study_id}

    def is_lost(self, trial_id: int) -> bool:
        with self._lock:
            return trial_id in self._lost
