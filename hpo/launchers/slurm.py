"""Workers as the tasks of Slurm job arrays: ``sbatch`` submits them, ``scontrol`` shows them, ``scancel`` ends them.

The jobs need nothing of the launcher: they go on if it dies, and the same command finds them by their name and watches
them again. A worker is asked to end by SIGUSR1 before its time limit; then, and after a preemption that Slurm does not
requeue itself, another job takes its place.
"""

import contextlib
import fcntl
import getpass
import hashlib
import os
import secrets
import shlex
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpo.database.address import EMBEDDED, is_served
from hpo.errors import ExperimentError, UsageError
from hpo.experiment.experiment import Experiment
from hpo.launchers.local import log_name, worker_command
from hpo.launchers.registry import Progress, SlurmOptions, too_few_gpus
from hpo.launchers.slurm_commands import SIGNAL_SECONDS, Task, parse_tasks, ranges, run_command
from hpo.launchers.supervise import END_SECONDS, WorkerEnd, printable, supervise
from hpo.machine import WORKER_ID_VARIABLE
from hpo.settings import Settings

POLL_SECONDS = 2.0
ACTIVE = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "RESIZING"}
CAUSES = {
    "PREEMPTED": "was preempted",
    "TIMEOUT": "reached its time limit",
    "NODE_FAIL": "ended with its node",
    "BOOT_FAIL": "could not start on its node",
    "DEADLINE": "reached its deadline",
    "OUT_OF_MEMORY": "was ended by Slurm: it used more memory than the job may",
    "CANCELLED": "was cancelled",
}
CODES = {"OUT_OF_MEMORY": -9, "BOOT_FAIL": 1}
"""What counts as what; everything else in CAUSES is nobody's fault, as a signal that asks for the end."""


def check(settings: Settings, options: SlurmOptions) -> None:
    """Raises UsageError if Slurm is not there, or workers on its nodes could not reach the database."""
    if missing := [name for name in ("sbatch", "scontrol", "scancel", "squeue") if shutil.which(name) is None]:
        raise UsageError(f"--launcher slurm needs Slurm's commands, and there is no {', '.join(missing)} here")
    if options.workers is None:
        raise UsageError("--launcher slurm needs --workers: how many jobs it may submit")
    if isinstance(options.gpus, tuple):
        raise UsageError(
            "--gpus chooses among the GPUs of one machine; with Slurm give --gpus-per-worker, or --gpus none"
        )
    if settings.storage is None and not is_served(settings):
        nodes = set(run_command("sinfo", "-h", "-N", "-o", "%N").split())
        if not nodes <= {socket.gethostname(), socket.gethostname().partition(".")[0]}:
            raise UsageError(
                f"workers on the nodes {', '.join(sorted(nodes)[:3])}{' …' if len(nodes) > 3 else ''} need a database "
                "that they all reach: give --serve (with a home that they share), --storage or HPO_STORAGE"
            )


def run(experiment: Experiment, settings: Settings, options: SlurmOptions, progress: Progress) -> None:
    """Runs the experiment to its end on Slurm; raises what :func:`hpo.launchers.supervise.supervise` does."""
    gpus_per_trial = experiment.content.get("gpus_per_trial", 1)
    if gpus_per_trial > 1 and options.gpus != "none":
        if options.gpus_per_worker is None:
            options = replace(options, gpus_per_worker=gpus_per_trial)
        elif 0 < options.gpus_per_worker < gpus_per_trial:
            raise UsageError(too_few_gpus(options.gpus_per_worker, gpus_per_trial))
    fleet = SlurmFleet(experiment.name, settings, options, progress)
    with _alone(settings, fleet.job_name):
        fleet.adopt()
        supervise(experiment, fleet, options, progress)


@contextlib.contextmanager
def _alone(settings: Settings, job_name: str) -> Iterator[None]:
    """Within the block no second launcher watches the same jobs: both would replace a job that ends."""
    path = settings.make_home() / f"{job_name}.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExperimentError(
                f"another launch watches the Slurm jobs {job_name} of this experiment (lock: {path})"
            ) from None
        yield


@dataclass
class SlurmFleet:
    """The jobs of a launch; see :class:`hpo.launchers.supervise.Fleet`."""

    experiment_name: str
    settings: Settings
    options: SlurmOptions
    progress: Progress
    _jobs: dict[int, str] = field(default_factory=dict)
    _unsubmitted: list[int] = field(default_factory=list)
    _adopted: set[int] = field(default_factory=set)
    _next_poll: float = 0.0
    _shown: str = ""

    @property
    def num_places(self) -> int:
        assert self.options.workers is not None
        return self.options.workers

    @property
    def job_name(self) -> str:
        """The same for every launch of this experiment in this database, so that a later one finds its jobs."""
        storage = self.settings.storage
        where = str(self.settings.home_path) if storage in (None, EMBEDDED) else storage
        digest = hashlib.sha256(f"{where}\n{self.experiment_name}".encode()).hexdigest()[:8]
        return f"hpo-{log_name(self.experiment_name)[:40]}-{digest}"

    def describe(self, place: int) -> str:
        return f"worker {place}" + (f" (job {self._jobs[place]}_{place})" if place in self._jobs else "")

    def adopt(self) -> None:
        """Takes over jobs of an earlier launch whose launcher died."""
        listed = run_command("squeue", "-h", "-r", "-u", getpass.getuser(), "-n", self.job_name, "-o", "%F %K")
        for line in listed.splitlines():
            job, place = line.split()
            if place.isdigit() and int(place) < self.num_places and int(place) not in self._adopted:
                self._jobs[int(place)] = job
                self._adopted.add(int(place))
        if self._adopted:
            self.progress.line(f"{len(self._adopted)} workers of an earlier launch are still there")

    def start(self, place: int) -> None:
        if place in self._adopted:
            self._adopted.discard(place)
            return
        # Submitted by wait(), all of a moment in one array.
        self._unsubmitted.append(place)

    def wait(self, timeout_seconds: float) -> list[WorkerEnd]:
        if self._unsubmitted:
            self._submit()
        if time.monotonic() < self._next_poll:
            time.sleep(timeout_seconds)
            return []
        self._next_poll = time.monotonic() + POLL_SECONDS
        try:
            tasks = self._tasks()
        except ExperimentError as error:
            # Its daemon restarts, or is overloaded: the jobs go on without it.
            self._say(f"Slurm does not answer, the jobs are watched again when it does: {error}")
            return []
        self._show(tasks)
        ends = []
        for place, job in list(self._jobs.items()):
            task = tasks.get((job, place))
            if task is None or task.state not in ACTIVE:
                # One that Slurm has forgotten ended long ago, while nobody watched.
                ends.append(self._end_of(task or Task(job, place, "COMPLETED", 0, "")))
                del self._jobs[place]
        return ends

    def stop(self) -> list[WorkerEnd]:
        self._unsubmitted.clear()
        if not self._jobs:
            return []
        names = [f"{job}_{place}" for place, job in self._jobs.items()]
        with contextlib.suppress(ExperimentError):
            # TERM, and KILL after Slurm's KillWait: the workers give their trials back in between.
            run_command("scancel", *names)
            deadline = time.monotonic() + END_SECONDS
            try:
                while any(task.state in ACTIVE for task in self._tasks().values()) and time.monotonic() < deadline:
                    time.sleep(0.3)
            except KeyboardInterrupt:
                run_command("scancel", "--signal=KILL", *names)
        self._jobs.clear()
        return []

    def _submit(self) -> None:
        places, self._unsubmitted = self._unsubmitted, []
        logs = self.settings.logs
        logs.mkdir(parents=True, exist_ok=True)
        stem = f"{log_name(self.experiment_name)}@{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        arguments = [
            "--parsable",
            f"--job-name={self.job_name}",
            f"--array={ranges(places)}",
            f"--output={logs}/{stem}-%a.log",
            "--open-mode=append",
            f"--signal=B:USR1@{SIGNAL_SECONDS}",
            "--requeue",
            *self._resources(),
        ]
        self._next_poll = 0.0
        answer = run_command("sbatch", *arguments, script=self._script(), environment=self._environment())
        job = answer.strip().partition(";")[0]
        for place in places:
            self._jobs[place] = job

    def _resources(self) -> list[str]:
        options = self.options
        chosen = {
            "partition": options.partition,
            "time": options.time,
            "qos": options.qos,
            "cpus-per-task": options.cpus_per_worker,
            "gres": f"gpu:{options.gpus_per_worker}" if options.gpus_per_worker and options.gpus != "none" else None,
        }
        given = [f"--{name}={value}" for name, value in chosen.items() if value is not None]
        return [*given, *shlex.split(options.sbatch or "")]

    def _environment(self) -> dict[str, str]:
        environment = self.settings.environment() | {"PYTHONUNBUFFERED": "1"}
        if self.options.gpus == "none" or not self.options.gpus_per_worker:
            environment["HPO_DEVICE"] = "cpu"
        # Each worker makes its own; and a launch from within a job must not hand that job's place on.
        own = {WORKER_ID_VARIABLE, "HPO_LAUNCHER_PID", "HPO_SUPERVISE"}
        return {
            name: value
            for name, value in environment.items()
            if name not in own and not (name.startswith("SLURM_") and name not in ("SLURM_CONF", "SLURM_CLUSTERS"))
        }

    def _script(self) -> str:
        # The worker takes the shell's place, so that Slurm's signals reach it.
        return (
            "#!/bin/sh\n"
            "export HPO_THREADS=${SLURM_CPUS_PER_TASK:-1} OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}\n"
            f"exec {shlex.join(worker_command(self.experiment_name))}\n"
        )

    def _tasks(self) -> dict[tuple[str, int], Task]:
        """The tasks of all jobs that are watched; without those of jobs that Slurm has forgotten.

        Raises ExperimentError if Slurm does not answer.
        """
        tasks = {}
        for job in set(self._jobs.values()):
            try:
                shown = run_command("scontrol", "show", "job", "-o", job)
            except ExperimentError as error:
                if "Invalid job id" not in str(error):
                    raise
                continue
            for task in parse_tasks(shown):
                tasks[job, task.place] = task
        return tasks

    def _show(self, tasks: dict[tuple[str, int], Task]) -> None:
        """A line if the number of jobs in a state, or why they wait, has changed."""
        counted = Counter(
            task.state.lower() + (f" ({task.reason})" if task.state == "PENDING" and task.reason != "None" else "")
            for (job, place), task in tasks.items()
            if self._jobs.get(place) == job and task.state in ACTIVE
        )
        line = "Slurm jobs: " + ", ".join(f"{count} {state}" for state, count in sorted(counted.items()))
        if counted:
            self._say(line)

    def _say(self, line: str) -> None:
        """Reports a line unless it is the last one again."""
        if line != self._shown:
            self._shown = line
            self.progress.line(line)

    def _end_of(self, task: Task) -> WorkerEnd:
        code = task.exit_code
        if task.state in CAUSES:
            code = CODES.get(task.state, 130)
        if task.state == "CANCELLED":
            # Somebody's wish: no other job takes its place.
            self.progress.line(f"worker {task.place} (job {task.job}_{task.place}) was cancelled")
            code = 0
        cause = CAUSES.get(task.state)
        if task.state == "TIMEOUT" and not task.has_limit:
            # So Slurm calls the end of a preempted job's grace time.
            cause = CAUSES["PREEMPTED"]
        return WorkerEnd(task.place, None, code, self._last_lines(task), cause)

    def _last_lines(self, task: Task) -> str:
        logs = sorted(self.settings.logs.glob(f"{log_name(self.experiment_name)}@*-{task.place}.log"))
        if not logs:
            return ""
        newest = max(logs, key=lambda path: path.stat().st_mtime)
        return printable(_tail(newest))


def _tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
        return log.read().decode(errors="backslashreplace")
