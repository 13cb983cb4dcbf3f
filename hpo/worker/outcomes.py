"""How a worker's trials end: told with their value, failed, or given back; each one job of the recorder."""

import logging
import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from hpo.database import attributes, retries, trial_writes
from hpo.errors import ExperimentError
from hpo.experiment.experiment import Experiment
from hpo.files.artifacts import attach, attach_text, epochs_table
from hpo.trainers.metrics import value_epoch
from hpo.worker.db_thread import Recorder
from hpo.worker.running_trial import Held
from hpo.worker.trial_cache import WorkerView

log = logging.getLogger("hpo")

FAILURES_IN_A_ROW = 5
GIVE_BACK_SECONDS = 10.0


class Endings:
    """Ends trials of one worker, whose ``name`` the database knows; ``trained_on`` is noted with each.

    Attributes:
        trial_seconds: how long a trial takes, lately; infinite before the first has ended.
        any_shown: whether a trial has ended by itself here, not by an error.
    """

    def __init__(
        self,
        experiment: Experiment,
        view: WorkerView,
        recorder: Recorder,
        name: str,
        artifacts: Path,
        trained_on: dict[str, Any],
    ) -> None:
        self.trial_seconds = math.inf
        self.any_shown = False
        self._study_file = experiment.study_file
        self._engine = experiment.storage.engine
        self._view = view
        self._recorder = recorder
        self._name = name
        self._artifacts = artifacts
        self._trained_on = trained_on
        self._failed_in_a_row: set[tuple[int, int]] = set()

    def show(self, held: Held, state: TrialState, reason: str | None = None) -> Callable[[], None]:
        """Shows the trial as ended to this worker's samplers and pruners; returns the job that tells the study."""
        trial_id = held.claim.trial_id
        objective, which = self._study_file.metric, self._study_file.value if state is TrialState.COMPLETE else "last"
        chosen = value_epoch(held.history, objective, which, self._study_file.direction)
        metrics = held.history[-1 if chosen is None else chosen] if held.history else {}
        if held.final is not None:
            metrics = held.final
        value = metrics.get(objective)
        if value is not None and math.isnan(value):
            value = None
        epochs = len(held.history)
        self._view.set_trial_user_attr(trial_id, attributes.METRICS, metrics)
        self._view.set_trial_user_attr(trial_id, attributes.TRAINED_ON, self._trained_on)
        self._account(held, reason)
        self._attach_files(held)
        if state is TrialState.COMPLETE and held.history:
            curves = epochs_table(held.history)
            self._attach(
                held, "epochs.csv", lambda: attach_text(self._view, trial_id, "epochs.csv", curves, self._artifacts)
            )
        self._view.ended(trial_id, state, value)
        self.any_shown = True
        self._failed_in_a_row.clear()

        def tell() -> None:
            writes = self._view.take_writes(trial_id)[trial_id]
            try:
                with self._engine.begin() as connection:
                    told = trial_writes.finish(connection, trial_id, state, value, epochs, writes)
                    told = told or trial_writes.ended_as(connection, trial_id, state, self._name)
            except BaseException:
                self._view.put_back({trial_id: writes})
                raise
            if told:
                held.folder.remove(held.claim.lineage)
            self._view.disown(trial_id)

        return tell

    def tell(self, job: Callable[[], None]) -> None:
        """Has the study told what :meth:`show` has shown; does not wait."""
        self._recorder.submit(job).add_done_callback(_log_failure)

    def fail(self, held: Held, error: BaseException) -> None:
        """Fails the attempt and waits for that; another one follows unless this error has come before.

        Raises:
            ExperimentError: where trial after trial fails.
        """
        trial_id = held.claim.trial_id
        text = _described(error)
        log.error("trial %d of %s failed: %s", held.claim.number, held.desk.handle.name, text, exc_info=_trace(error))
        self._account(held, None)
        self._attach_files(held)
        epochs = len(held.history)

        def fail() -> None:
            writes = self._view.take_writes(trial_id)[trial_id]
            with self._engine.begin() as connection:
                retries.retry_or_fail(
                    connection, trial_id, text, self._study_file.max_retries, error=text, epochs=epochs, writes=writes
                )
            self._view.disown(trial_id)

        self._recorder.run(fail)
        # Lineages, not attempts: two configurations that raise each time are no reason to end a search.
        self._failed_in_a_row.add((held.claim.study_id, held.claim.lineage))
        if len(self._failed_in_a_row) >= FAILURES_IN_A_ROW:
            raise ExperimentError(f"{FAILURES_IN_A_ROW} trials in a row failed, the last one with {text}")

    def give_back(self, trial_id: int, reason: str) -> None:
        """Queues the trial again, for whoever comes; does not wait."""
        self._recorder.submit(lambda: self._give_back(trial_id, reason)).add_done_callback(_log_failure)

    def give_all_back(self, held: Iterable[Held], reason: str) -> None:
        """Queues again whatever this worker has claimed, and stops the recorder."""
        for item in held:
            self._account(item, None)

        def give_back_all() -> None:
            # The recorder works in order: what an ask in progress has claimed is ours by the time that this runs.
            for trial_id in self._view.own:
                self._give_back(trial_id, reason)

        self._recorder.submit(give_back_all).add_done_callback(_log_failure)
        # A database that is away is not waited for long: the sweep of another worker will find what we held.
        self._recorder.stop(GIVE_BACK_SECONDS)

    def _give_back(self, trial_id: int, reason: str) -> None:
        writes = self._view.take_writes(trial_id)[trial_id]
        with self._engine.begin() as connection:
            retries.give_back(connection, trial_id, reason, writes)
        self._view.disown(trial_id)

    def _attach_files(self, held: Held) -> None:
        trial_id = held.claim.trial_id
        for path in held.run.artifacts:
            self._attach(held, str(path), lambda path=path: attach(self._view, trial_id, path, self._artifacts))  # type: ignore[misc]

    def _attach(self, held: Held, name: str, job: Callable[[], None]) -> None:
        """A result stands without its files: a full disk, or a trainer that has removed one, only costs the file."""
        try:
            job()
        except OSError as error:
            log.warning("%s is not attached to trial %d: %s", name, held.claim.number, error.strerror or error)

    def _account(self, held: Held, reason: str | None) -> None:
        seconds = time.monotonic() - held.started
        trial_id = held.claim.trial_id
        self._view.set_trial_user_attr(trial_id, attributes.SECONDS, round(seconds, 4))
        self._view.set_trial_user_attr(trial_id, attributes.EPOCHS, len(held.history))
        if reason is not None:
            self._view.set_trial_user_attr(trial_id, attributes.REASON, reason)
        known = self.trial_seconds
        self.trial_seconds = seconds if math.isinf(known) else 0.7 * known + 0.3 * seconds


def _log_failure(future: "Future[None]") -> None:
    if (error := future.exception()) is not None:
        log.error("a trial's end could not be written: %s: %s", type(error).__name__, error)


def _described(error: BaseException) -> str:
    """Type and message, in characters that Postgres can hold, whatever the trainer has put into the message."""
    try:
        message = str(error)
    except Exception as broken:
        message = f"(its message cannot be shown: {type(broken).__name__})"
    text = f"{type(error).__name__}: {message}"[:2000]
    return text.encode(errors="backslashreplace").decode().replace("\x00", "\\x00")


def _trace(error: BaseException) -> BaseException | None:
    return error if error.__traceback__ is not None else None
