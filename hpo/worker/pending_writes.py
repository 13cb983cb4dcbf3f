"""What has been set on a worker's running trials and is not in the database yet."""

import contextlib
import threading
from collections.abc import Iterator

import sqlalchemy as sa

from hpo.database.trial_writes import Writes
from hpo.worker.leases import Leases


class PendingWrites:
    """Gathers writes by trial; :meth:`transaction` hands them over, and keeps them if the transaction fails."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._lock = threading.Lock()
        self._writes: dict[int, Writes] = {}

    def set_param(self, trial_id: int, name: str, internal_value: float, distribution_json: str) -> None:
        with self._lock:
            self._of(trial_id).params[name] = (internal_value, distribution_json)

    def set_report(self, trial_id: int, step: int, value: float) -> None:
        with self._lock:
            self._of(trial_id).reports[step] = value

    def set_user_attr(self, trial_id: int, key: str, value: object) -> None:
        with self._lock:
            self._of(trial_id).user_attrs[key] = value

    def set_system_attr(self, trial_id: int, key: str, value: object) -> None:
        with self._lock:
            self._of(trial_id).system_attrs[key] = value

    def clear_draw(self, trial_id: int) -> None:
        """Drops the parameters and system attributes of a trial, which its sampler has set."""
        with self._lock:
            self._of(trial_id).params.clear()
            self._of(trial_id).system_attrs.clear()

    def discard(self, trial_id: int) -> None:
        with self._lock:
            self._writes.pop(trial_id, None)

    @contextlib.contextmanager
    def transaction(self, engine: sa.Engine, trial_id: int) -> Iterator[tuple[sa.Connection, Writes]]:
        """A transaction with the pending writes of one trial; they stay pending if it fails."""
        with self._returned_on_error({trial_id: self.take_trial(trial_id)}) as taken, engine.begin() as connection:
            yield connection, taken[trial_id]

    @contextlib.contextmanager
    def transaction_of_all(self, engine: sa.Engine) -> Iterator[tuple[sa.Connection, dict[int, Writes]] | None]:
        """A transaction with all pending writes; None, and no transaction, if there are none."""
        taken = self.take()
        if not taken:
            yield None
            return
        with self._returned_on_error(taken), engine.begin() as connection:
            yield connection, taken

    @contextlib.contextmanager
    def _returned_on_error(self, taken: dict[int, Writes]) -> Iterator[dict[int, Writes]]:
        try:
            yield taken
        except BaseException:
            self.put_back(taken)
            raise

    def take(self) -> dict[int, Writes]:
        """Takes the writes of all trials that this worker still holds."""
        with self._lock:
            taken, self._writes = self._writes, {}
        return {t: writes for t, writes in taken.items() if writes and not self._leases.is_lost(t)}

    def take_trial(self, trial_id: int) -> Writes:
        """Takes the writes of one trial."""
        with self._lock:
            return self._writes.pop(trial_id, Writes())

    def put_back(self, writes: dict[int, Writes]) -> None:
        """Puts back what could not be written; what was set since then wins."""
        with self._lock:
            for trial_id, older in writes.items():
                if self._leases.study_of(trial_id) is not None:
                    newer = self._writes.get(trial_id, Writes())
                    self._writes[trial_id] = Writes(
                        {**older.params, **newer.params},
                        {**older.user_attrs, **newer.user_attrs},
                        {**older.system_attrs, **newer.system_attrs},
                        {**older.reports, **newer.reports},
                    )

    def _of(self, trial_id: int) -> Writes:
        return self._writes.setdefault(trial_id, Writes())
