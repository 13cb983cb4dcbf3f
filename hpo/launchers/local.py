"""Worker processes on this machine: one for each GPU and place on it, or the cores divided among them.

A worker sees only its own GPU. One that dies is replaced, up to a limit, with its last lines of output shown; its
trials go back to the queue at once, because here its death is known and need not be waited for.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from hpo.database import retries
from hpo.database.retrying import persistently
from hpo.errors import ExperimentError, UsageError
from hpo.experiment.experiment import Experiment
from hpo.experiment.status import snapshot
from hpo.launchers.options import LaunchOptions, Progress, interrupted_by_sigterm, is_finished
from hpo.machine import gpu_indices, usable_cores
from hpo.settings import Settings
from hpo.worker.exit_codes import EXIT_RESTART

POLL_SECONDS = 0.2
STATUS_SECONDS = 1.0
END_SECONDS = 20.0
SHOWN_LINES = 15
WORKER_BYTES = 1 << 30
"""What a worker with torch and a small data set takes, about."""


@dataclass
class Place:
    """Where one worker after another runs: its environment and its log."""

    index: int
    environment: dict[str, str]
    log_path: Path
    process: "subprocess.Popen[bytes] | None" = None
    log: IO[bytes] | None = None
    log_start: int = 0
    done: bool = False

    def start(self, experiment: Experiment) -> None:
        """Starts a worker here; what it writes is added to the log."""
        self.log = self.log_path.open("ab")
        self.log_start = self.log.tell()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hpo", "worker", experiment.name],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches the launcher alone, which then asks its workers to end.
            start_new_session=True,
        )

    def last_lines(self) -> str:
        """The end of what the last worker wrote here, whatever bytes it holds: a terminal must not obey them."""
        with self.log_path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(self.log_start, log.tell() - 8192))
            text = log.read().decode(errors="backslashreplace")
        return "\n".join(f"    {_printable(line)}" for line in text.splitlines()[-SHOWN_LINES:])


def run(experiment: Experiment, settings: Settings, options: LaunchOptions, progress: Progress) -> None:
    """Runs the experiment to its end on this machine.

    Raises:
        ExperimentError: where more workers died than are replaced, or a worker found that it cannot go on.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once the workers have given their trials back.
    """
    places = _places(settings, options)
    with interrupted_by_sigterm():
        try:
            _run(experiment, places, options, progress)
        finally:
            _end(places)
    status = persistently(lambda: snapshot(experiment))
    progress.update(status)
    if not is_finished(status):
        raise ExperimentError("the workers ended before the experiment did; launch it again to go on")


def _run(experiment: Experiment, places: list[Place], options: LaunchOptions, progress: Progress) -> None:
    restarts = 0
    next_status = 0.0
    for place in places:
        place.start(experiment)
    while not all(place.done for place in places):
        time.sleep(POLL_SECONDS)
        for place in places:
            if place.done or place.process is None or place.process.poll() is None:
                continue
            code = place.process.returncode
            _close(place)
            # A worker that ends by itself gives back what it holds; one that held trials was ended by its trainer.
            held = _requeue(experiment, place.process.pid, code)
            if code == 0 and not held:
                place.done = True
                continue
            if code in (1, 2) and not held:
                raise ExperimentError(f"worker {place.index} cannot go on:\n{place.last_lines()}")
            restarts += code != EXIT_RESTART
            if restarts > options.max_restarts:
                raise ExperimentError(
                    f"{restarts} workers died; the last one {_how(code)}, after writing:\n{place.last_lines()}"
                )
            progress.line(f"worker {place.index} {_how(code)}; another takes its place\n{place.last_lines()}")
            place.start(experiment)
        if time.monotonic() >= next_status:
            progress.update(persistently(lambda: snapshot(experiment)))
            next_status = time.monotonic() + STATUS_SECONDS


def _places(settings: Settings, options: LaunchOptions) -> list[Place]:
    logs = settings.home_folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    known = gpu_indices()
    gpus = known if options.gpus == () else list(options.gpus or ())
    if unknown := [gpu for gpu in gpus if gpu not in known]:
        raise UsageError(
            f"there is no GPU {', '.join(unknown)} here; there {'are ' + ', '.join(known) if known else 'is none'}"
        )
    environment = settings.environment() | {
        "HPO_LAUNCHER_PID": str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
        # Workers that wait for each other's cores are slower than ones that do not ask for them.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if gpus:
        count = options.workers or len(gpus) * options.per_gpu
        threads = max(1, usable_cores() // count)
        devices = [{"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)], "HPO_DEVICE": "cuda:0"} for index in range(count)]
    else:
        # One thread each: more trials an hour than from fewer workers with several.
        room = psutil.virtual_memory().available // WORKER_BYTES
        count = options.workers or max(1, min(usable_cores(), room))
        threads = max(1, usable_cores() // count)
        devices = [{"CUDA_VISIBLE_DEVICES": "", "HPO_DEVICE": "cpu"}] * count
    share = {"HPO_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    return [
        Place(index, environment | share | device, logs / f"{stamp}-{index}.log")
        for index, device in enumerate(devices)
    ]


def _requeue(experiment: Experiment, pid: int, code: int) -> int:
    """Queues again the trials that the worker held. Returns how many."""
    worker = f"{socket.gethostname()}:{pid}"
    return persistently(
        lambda: retries.fail_worker(
            experiment.storage.engine, worker, f"its worker {worker} {_how(code)}", experiment.study_file.max_retries
        )
    )


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return "asked to be replaced" if code == EXIT_RESTART else f"ended with exit code {code}"


def _end(places: list[Place]) -> None:
    """Asks the workers that still run to end, waits while they give their trials back, then ends those that do not."""
    running = [place for place in places if place.process is not None and place.process.poll() is None]
    for place in running:
        assert place.process is not None
        place.process.terminate()
    deadline = time.monotonic() + END_SECONDS
    for place in running:
        assert place.process is not None
        try:
            place.process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            place.process.kill()
            place.process.wait()
        _close(place)


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line)


def _close(place: Place) -> None:
    if place.log is not None:
        place.log.close()
        place.log = None
