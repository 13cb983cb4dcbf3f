"""Sends a worker's files to a shared address (``--checkpoint-dir s3://…``), on a thread of its own.

Training never waits for the address: artifacts are written to a folder of the home first and sent from there; the logs
of running trials and of the worker itself are sent every LOG_SECONDS if they have changed; the folder of a trial that
is kept is sent once the trial has ended. If the address does not answer, the worker says so once, trials go on, and all
that is due is sent once it answers: by this worker, or, of artifacts, by the next one of the same home.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from pathlib import Path

from hpo.experiment.experiment import Experiment
from hpo.files.artifacts import is_artifact_id
from hpo.files.kept_folders import FolderCopies, folder_copies, local_files
from hpo.files.store import open_place
from hpo.trainers.trial_log import LOG_NAME
from hpo.worker.options import WorkerOptions
from hpo.worker.running_trial import RunningTrial

log = logging.getLogger("hpo")

LOG_SECONDS = 10.0
LONGEST_REST_SECONDS = 60.0
END_SECONDS = 600.0
"""How long a worker that has nothing left to train waits for files that are being sent."""
ASKED_END_SECONDS = 5.0
"""The same for a worker that a signal asked to end, and for an address that does not answer."""


class StoreHealth:
    """Whether the address answers: says once that it does not, and once that it does again."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self.is_away = False

    def failed(self, error: Exception) -> None:
        with self._lock:
            was_away, self.is_away = self.is_away, True
        if not was_away:
            log.warning(
                "the address %s does not answer: trials go on, and checkpoints, logs and files are sent once it does "
                "(%s)",
                self._address,
                error,
            )

    def answered(self) -> None:
        with self._lock:
            was_away, self.is_away = self.is_away, False
        if was_away:
            log.info("the address %s answers again", self._address)


class Uploads:
    """What is to be sent to the address; ``copies`` are those of each study, by its id.

    Attributes:
        health: whether the address answers, which the writing of checkpoints tells and asks, too.
        unsent: folder for artifacts that are to be sent.
    """

    def __init__(
        self,
        options: WorkerOptions,
        copies: Mapping[int, FolderCopies],
        unsent: Path,
        running: Callable[[], list[RunningTrial]],
    ) -> None:
        self.health = StoreHealth(options.checkpoints)
        self.unsent = unsent
        self._copies, self._running = copies, running
        self._artifacts = open_place(options.artifact_root)
        self._worker = options.name
        self._log = None if options.log is None else Path(options.log.partition(":")[2] or options.log)
        self._sizes: dict[Hashable, int] = {}
        self._sent: set[tuple[int, int]] = set()
        self._jobs: dict[Hashable, Callable[[], None]] = {}
        self._failures = 0
        self._try_at = self._logs_at = 0.0
        self._is_ending = self._is_over = False
        self._changed = threading.Condition()
        for path in unsent.iterdir() if unsent.is_dir() else ():
            if is_artifact_id(path.name):  # left by a worker of this home that was killed, or found no address
                self.send_artifact(path.name)
        self._thread = threading.Thread(target=self._serve, name="uploads", daemon=True)
        self._thread.start()

    def submit(self, key: Hashable, job: Callable[[], None]) -> None:
        """Runs ``job`` on the thread, in place of one of the same key; repeats it while it raises OSError."""
        with self._changed:
            self._jobs.pop(key, None)
            self._jobs[key] = job
            self._changed.notify_all()

    def send_artifact(self, artifact_id: str) -> None:
        """Moves an artifact from ``unsent`` to the address."""

        def send() -> None:
            path = self.unsent / artifact_id
            if path.is_file():
                self._artifacts.files.put_file(str(path), self._artifacts.path(artifact_id))
                path.unlink(missing_ok=True)

        self.submit(("artifact", artifact_id), send)

    def keep(self, study_id: int, lineage: int, folder: Path) -> None:
        """Sends the folder of an ended trial, once."""
        if (study_id, lineage) not in self._sent and local_files(folder):
            self._sent.add((study_id, lineage))
            self.submit(("folder", study_id, lineage), lambda: self._copies[study_id].send(lineage, folder))

    def keep_only(self, study_id: int, kept: int | None, ended: Collection[int]) -> None:
        """Removes the copies of the ``ended`` lineages but that of ``kept``."""

        def clear() -> None:
            copies = self._copies[study_id]
            for lineage in copies.lineages():
                if lineage != kept and lineage in ended:
                    copies.clear(lineage)

        self.submit(("ended", study_id), clear)

    def end(self, *, is_asked: bool) -> None:
        """Waits until all is sent; not for long if the worker ``is_asked`` to end or the address does not answer."""
        self._send_logs()
        begun = time.monotonic()

        def is_over() -> bool:
            seconds = ASKED_END_SECONDS if is_asked or self.health.is_away else END_SECONDS
            return not self._jobs or time.monotonic() - begun > seconds

        with contextlib.suppress(KeyboardInterrupt), self._changed:
            self._is_ending, self._try_at = True, 0.0
            self._changed.notify_all()
            while not is_over():
                self._changed.wait(0.2)
        with self._changed:
            self._is_over, unsent = True, len(self._jobs)
            self._changed.notify_all()
        if unsent:
            log.warning("%d files or changes were not sent to the address; files stay on this machine", unsent)

    def drop(self) -> None:
        """Forgets what is to be sent: its experiment was deleted."""
        with self._changed:
            self._jobs.clear()
        for path in self.unsent.iterdir() if self.unsent.is_dir() else ():
            path.unlink(missing_ok=True)

    def _send_logs(self) -> None:
        """Has those logs sent that have changed since they were sent last."""
        for trial in self._running():
            if trial.run is not None and trial.run.trial_folder is not None:
                self._send_log(trial, trial.run.trial_folder / LOG_NAME)
        if self._log is not None and (copies := next(iter(self._copies.values()), None)) is not None:
            path, worker = self._log, self._worker
            if self._has_grown("worker", path):
                self.submit("worker", lambda: copies.send_log(worker, path))

    def _send_log(self, trial: RunningTrial, path: Path) -> None:
        study_id, lineage = trial.claim.study_id, trial.claim.lineage
        if self._has_grown(("log", trial.trial_id), path):
            copies = self._copies[study_id]
            self.submit(("log", study_id, lineage), lambda: copies.send_file(lineage, LOG_NAME, path))

    def _has_grown(self, key: Hashable, path: Path) -> bool:
        try:
            size = path.stat().st_size
        except OSError:
            return False
        before, self._sizes[key] = self._sizes.get(key, 0), size
        return size != before

    def _serve(self) -> None:
        while True:
            with self._changed:
                if self._is_over:
                    return
                now = time.monotonic()
                is_due = bool(self._jobs) and now >= self._try_at
                if not is_due and not (now >= self._logs_at and not self._is_ending):
                    until = [self._try_at] * bool(self._jobs) + [self._logs_at] * (not self._is_ending)
                    self._changed.wait(max(0.05, min(until) - now) if until else None)
                    continue
                key, job = next(iter(self._jobs.items())) if is_due else (None, self._send_logs)
            if not is_due:
                job()
                self._logs_at = time.monotonic() + LOG_SECONDS
                continue
            self._try(key, job)

    def _try(self, key: Hashable, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            self.health.failed(error)
            with self._changed:
                self._failures += 1
                rest = 1.0 if self._is_ending else min(LONGEST_REST_SECONDS, 2.0**self._failures)
                self._try_at = time.monotonic() + rest
                if self._jobs.get(key) is job:
                    self._jobs[key] = self._jobs.pop(key)  # last: another may not have its fault
            return
        self.health.answered()
        with self._changed:
            self._failures = 0
            if self._jobs.get(key) is job:
                del self._jobs[key]
            self._changed.notify_all()


def make_uploads(
    experiment: Experiment, options: WorkerOptions, running: Callable[[], list[RunningTrial]]
) -> Uploads | None:
    """The uploads of a worker; None if its checkpoints are in a folder, where the other files then lie as well."""
    found = {study.study_id: folder_copies(options.checkpoints, study.key) for study in experiment.studies}
    copies = {study_id: copy for study_id, copy in found.items() if copy is not None}
    return Uploads(options, copies, options.unsent, running) if copies and options.unsent is not None else None
