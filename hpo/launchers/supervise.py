"""The loop that all launchers with worker processes share: replace workers, read the status, report, end.

A launcher supplies a :class:`Fleet`, which starts workers at numbered places and returns those that have ended. What
follows an end is decided here, by what the worker had achieved and by its exit code.
"""

import contextlib
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa

from hpo.database import dead_workers, steering
from hpo.database.retrying import persistently
from hpo.database.steering import Order
from hpo.errors import ExperimentError, ExperimentStoppedError, SetUpError
from hpo.experiment.experiment import Experiment
from hpo.experiment.status import is_finished, snapshot
from hpo.launchers.registry import LaunchOptions, Progress
from hpo.launchers.repeated import PrintedLines
from hpo.launchers.signals import END_SIGNALS, interruptible
from hpo.worker.exit_codes import EXIT_BUG, EXIT_DEVICE, EXIT_MEMORY, EXIT_NOTHING_SUCCEEDS, EXIT_PAUSED, EXIT_RESTART
from hpo.worker.failures import why_nothing_succeeds

STATUS_SECONDS = 1.0
POLL_SECONDS = 0.2
END_SECONDS = 20.0
SHOWN_LINES = 15
FAILURES_AT_A_PLACE = 3
DEVICE_FAILURES_AT_A_PLACE = 5
"""More than a configuration that breaks its device can cause before its lineage fails."""
LONGEST_REST_SECONDS = 30.0
FAILED_EXITS = (1, 2, EXIT_BUG)
"""A worker that ends with one of these without a trial in hand could not work at its place: set-up, device, fault."""

HAS_FINISHED_A_TRIAL = """
SELECT EXISTS (SELECT 1 FROM hpo_trials h JOIN trials t USING (trial_id)
  WHERE h.study_id = ANY(:study_ids) AND h.worker = :worker AND t.state IN ('COMPLETE', 'PRUNED'))
"""


@dataclass(frozen=True)
class WorkerEnd:
    """A worker that has ended.

    Attributes:
        place: the number of its place.
        worker: its name in the database; None if it is not known.
        code: exit code; negative for a signal, as in ``subprocess``.
        last_lines: the end of what it wrote, ready to print.
        cause: what is known beyond the code, such as a node that went down.
    """

    place: int
    worker: str | None
    code: int
    last_lines: str = ""
    cause: str | None = None

    @property
    def how(self) -> str:
        """``was ended by SIGKILL``, ``ended with exit code 1`` and so on."""
        if self.cause is not None:
            return self.cause
        if self.code < 0:
            return f"was ended by {signal.Signals(-self.code).name}"
        known = {
            130: "was asked to end by a signal",
            EXIT_RESTART: "asked to be replaced",
            EXIT_MEMORY: "ran out of memory with its first trial",
            EXIT_DEVICE: "ended because its device is in an error that stays",
        }
        return known.get(self.code, f"ended with exit code {self.code}")

    @property
    def was_asked(self) -> bool:
        """Whether a signal asked it to end, which is nobody's fault."""
        return self.code == 130 or -self.code in END_SIGNALS


class Fleet(Protocol):
    """Starts and ends workers, at places numbered from 0."""

    @property
    def num_places(self) -> int: ...

    def describe(self, place: int) -> str:
        """The place for a message, such as ``worker 1 on GPU 1``."""

    def start(self, place: int) -> None:
        """Starts a worker at a place that has none."""

    def wait(self, timeout_seconds: float) -> list[WorkerEnd]:
        """The workers that have ended, once each; waits at most so long for one."""

    def stop(self) -> list[WorkerEnd]:
        """Asks the workers that still run to give their trials back and end, and waits; a second Ctrl-C ends them.

        Returns how they ended.
        """


def read_status(experiment: Experiment) -> dict[str, Any]:
    """The status of the experiment; waits for a database that is away."""
    return persistently(lambda: snapshot(experiment))


def order_of(experiment: Experiment) -> Order:
    """How persons steer the experiment; waits for a database that is away."""

    def read() -> Order:
        with experiment.storage.engine.connect() as connection:
            return steering.read_order(connection, experiment.study_ids)

    return persistently(read)


def raise_if_stopped(experiment: Experiment, stops: int) -> None:
    """Raises ExperimentStoppedError if somebody has stopped the experiment since it had been ``stops`` times."""
    order = order_of(experiment)
    if order.stops > stops or order.halt == "stopped":
        raise ExperimentStoppedError(
            f"{experiment.name} was {order.last}; what was done is kept, and the same command goes on"
        )


def supervise(experiment: Experiment, fleet: Fleet, options: LaunchOptions, progress: Progress) -> None:
    """Runs the experiment to its end with the workers of ``fleet``.

    Raises:
        ExperimentError: if the workers of all places fail, or too many die in a row without progress.
        KeyboardInterrupt: on Ctrl-C or another signal that asks for the end, once the trials are given back.
    """
    stops = order_of(experiment).stops
    with interruptible():
        try:
            Supervision(experiment, fleet, options, progress).run()
        finally:
            _requeue_killed(experiment, fleet.stop())
    status = read_status(experiment)
    progress.update(status)
    if not is_finished(status):
        raise_if_stopped(experiment, stops)
        raise ExperimentError("the workers ended before the experiment did; launch it again to go on")


def _requeue_killed(experiment: Experiment, ends: list[WorkerEnd]) -> None:
    """Queues again what workers held that had to be killed; if the database is away, others will, after a while."""
    for end in ends:
        if end.code != 0 and end.worker is not None:
            with contextlib.suppress(Exception):
                dead_workers.give_back_all(experiment.storage.engine, end.worker, "its launch was asked to end")


@dataclass
class Place:
    """What has happened at a place since a worker there last finished a trial."""

    running: bool = False
    failures: int = 0
    start_at: float | None = None


@dataclass
class Supervision:
    """The state of one launch.

    Attributes:
        deaths: workers that ended in a row, anywhere, without progress of the experiment.
        first_failure: how and with what output the first of the failures in a row ended.
    """

    experiment: Experiment
    fleet: Fleet
    options: LaunchOptions
    progress: Progress
    deaths: int = 0
    failures: int = 0
    first_failure: str = ""
    printed: PrintedLines = field(default_factory=PrintedLines)
    places: list[Place] = field(default_factory=list)
    _most_done: int = 0
    _most_epochs: int = 0
    _some_succeeded: bool = False

    def run(self) -> None:
        """Starts a worker at each place and replaces those that end, until all have ended for good."""
        self._note(read_status(self.experiment))
        self.places = [Place() for _ in range(self.fleet.num_places)]
        for index, place in enumerate(self.places):
            self.fleet.start(index)
            place.running = True
        next_status = 0.0
        while any(place.running or place.start_at is not None for place in self.places):
            for end in self.fleet.wait(POLL_SECONDS):
                self.places[end.place].running = False
                self._after(end)
            now = time.monotonic()
            for index, place in enumerate(self.places):
                if place.start_at is not None and now >= place.start_at:
                    place.start_at = None
                    self.fleet.start(index)
                    place.running = True
            if now >= next_status:
                status = read_status(self.experiment)
                self._note(status)
                self.progress.update(status)
                next_status = time.monotonic() + STATUS_SECONDS

    def _after(self, end: WorkerEnd) -> None:
        """Decides what follows a worker's end: nothing, another worker, or the end of the launch."""
        place, name = self.places[end.place], self.fleet.describe(end.place)
        # A worker that ends by itself gives back what it holds; one that held trials was ended by its trainer.
        held = self._requeue(end)
        if end.code == 0 and not held:
            return
        if end.code == EXIT_PAUSED:
            place.start_at = time.monotonic()  # the next one waits, without a device
            return
        if end.code == EXIT_NOTHING_SUCCEEDS:
            raise ExperimentError(f"{self.fleet.describe(end.place)} cannot go on:\n{end.last_lines}")
        progressed = self._note(read_status(self.experiment))
        has_worked = self._has_finished_a_trial(end)
        if progressed or has_worked:
            self.deaths = self.failures = 0
        if has_worked:
            # What the others achieve says nothing about this place.
            place.failures = 0
        report = f"{name} {end.how}\n{end.last_lines}".rstrip()
        if end.code in FAILED_EXITS and not held:
            self._after_failure(end, place, name, report, FAILURES_AT_A_PLACE)
            return
        if end.code == EXIT_DEVICE and not progressed:
            self._after_failure(end, place, name, report, DEVICE_FAILURES_AT_A_PLACE)
            return
        # A trial that ends its worker is bounded by its own retries, so long as anything else succeeds.
        if not progressed and not (held and self._some_succeeded):
            self.deaths += 1
        if held and (reason := self._why_nothing_succeeds()) is not None:
            raise ExperimentError(f"{reason}\n{report}")
        if self.deaths > self.options.max_restarts:
            raise ExperimentError(
                f"{self.deaths} workers in a row died before any trial moved on; the last one {end.how}, "
                f"after writing:\n{end.last_lines or '    (nothing)'}"
            )
        lines = self.printed.new_lines(name, end.last_lines)
        self.progress.line(f"{name} {end.how}; another takes its place\n{lines}".rstrip())
        place.start_at = time.monotonic()

    def _after_failure(self, end: WorkerEnd, place: Place, name: str, report: str, limit: int) -> None:
        """A worker could not work: tries its place again, up to ``limit`` times, leaves it out, or ends the launch."""
        if not self.failures:
            self.first_failure = f"{name} cannot go on: it {end.how}\n{end.last_lines or '    (it wrote nothing)'}"
        self.failures += 1
        place.failures += 1
        failing = sum(1 for other in self.places if other.failures)
        is_set_up = end.code == 2 and not self._some_succeeded
        everywhere = self.failures >= limit and failing >= min(2, len(self.places))
        if is_set_up:
            raise SetUpError(self.first_failure)
        if everywhere and not self._anything_runs():
            raise ExperimentError(self.first_failure)
        if place.failures < limit and place.failures <= self.options.max_restarts:
            place.start_at = time.monotonic() + min(LONGEST_REST_SECONDS, 2.0 ** (place.failures - 1) - 1.0)
            self.progress.line(f"{report}\nanother takes its place" if end.last_lines else report)
            return
        others = any(other.running or other.start_at is not None for other in self.places)
        if not others and not is_finished(read_status(self.experiment)):
            raise ExperimentError(self.first_failure)
        self.progress.line(f"{report}\nits place is left out: {place.failures} workers in a row could not work there")

    def _anything_runs(self) -> bool:
        """Whether some worker trains: then the fault is not the set-up of all."""
        status = read_status(self.experiment)
        return any(study["states"]["running"] for study in status["studies"])

    def _note(self, status: dict[str, Any]) -> bool:
        """Takes a status; returns whether a trial or an epoch has been finished since the one before."""
        done = sum(study["states"][state] for study in status["studies"] for state in ("complete", "pruned"))
        epochs = sum(study["epochs"] for study in status["studies"])
        # Epochs of an attempt that is repeated are counted once it has passed them.
        progressed: bool = done > self._most_done or epochs > self._most_epochs
        self._most_done, self._most_epochs = max(done, self._most_done), max(epochs, self._most_epochs)
        self._some_succeeded = done > 0
        if progressed:
            self.deaths = 0
        return progressed

    def _requeue(self, end: WorkerEnd) -> int:
        """Queues again the trials that the worker held. Returns how many."""
        if end.worker is None:
            return 0
        engine, max_retries = self.experiment.storage.engine, self.experiment.study_file.max_retries
        worker, reason = end.worker, f"its worker {end.worker} {end.how}"
        if end.was_asked:
            return persistently(lambda: dead_workers.give_back_all(engine, worker, "its worker was asked to end"))
        return persistently(lambda: dead_workers.fail_worker(engine, worker, reason, max_retries))

    def _why_nothing_succeeds(self) -> str | None:
        ids = self.experiment.study_ids
        return persistently(lambda: why_nothing_succeeds(self.experiment.storage.engine, ids))

    def _has_finished_a_trial(self, end: WorkerEnd) -> bool:
        if end.worker is None:
            return False

        def ask() -> bool:
            with self.experiment.storage.engine.connect() as connection:
                parameters = {"study_ids": self.experiment.study_ids, "worker": end.worker}
                return bool(connection.execute(sa.text(HAS_FINISHED_A_TRIAL), parameters).scalar())

        return bool(persistently(ask))


def printable(text: str) -> str:
    """Lines of a worker for a terminal, which must not obey what they hold; the last SHOWN_LINES, indented."""
    return "\n".join(
        "    " + "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line)
        for line in text.splitlines()[-SHOWN_LINES:]
    )
