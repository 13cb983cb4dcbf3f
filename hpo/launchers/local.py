"""Worker processes on this machine: one for each GPU and place on it, or the cores divided among them.

A worker sees only its own GPU. One that dies is replaced, and what it had started is ended; its trials go back to the
queue at once, because here its death is certain and need not be waited for.
"""

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hpo.errors import UsageError
from hpo.experiment.experiment import Experiment
from hpo.launchers.registry import LocalOptions, Progress
from hpo.launchers.signals import deferred
from hpo.launchers.supervise import END_SECONDS, WorkerEnd, printable, supervise
from hpo.machine import (
    WORKER_ID_VARIABLE,
    Cgroups,
    available_memory,
    gpu_groups,
    gpu_indices,
    missing_gpus,
    new_worker_id,
    no_gpu,
    usable_cores,
    worker_name,
)
from hpo.settings import Settings
from hpo.worker.options import LOG_VARIABLE
from hpo.worker.process_end import end_children

POLL_SECONDS = 0.05
END_POLL_SECONDS = 0.05
WORKER_BYTES = 1 << 30
"""What a worker with torch and a small data set takes, about."""


def worker_command(experiment_name: str) -> list[str]:
    """The command of a worker.

    Without ``-P`` the current folder would be first on the path, and a user's file called ``hpo.py`` the product.
    """
    dashes = ["--"] if experiment_name.startswith("-") else []
    return [sys.executable, "-P", "-m", "hpo", "worker", *dashes, experiment_name]


@dataclass
class Slot:
    """Where one worker after another runs: its environment, its log, and the worker of now."""

    description: str
    environment: dict[str, str]
    log_path: Path
    process: "subprocess.Popen[bytes] | None" = None
    worker_id: str = ""
    log: IO[bytes] | None = None
    log_start: int = 0
    memory_kills: int | None = None


@dataclass
class LocalFleet:
    """The workers of a launch on this machine; see :class:`hpo.launchers.supervise.Fleet`."""

    experiment_name: str
    slots: list[Slot]
    cgroups: Cgroups = field(default_factory=Cgroups)

    @property
    def num_places(self) -> int:
        return len(self.slots)

    def describe(self, place: int) -> str:
        return self.slots[place].description

    def command(self, place: int) -> list[str]:
        """What runs at a place."""
        return worker_command(self.experiment_name)

    def start(self, place: int) -> None:
        """Starts a worker at a place; what it writes is added to the log."""
        slot = self.slots[place]
        with deferred():
            slot.log = slot.log_path.open("ab")
            slot.log_start = slot.log.tell()
            slot.worker_id = new_worker_id()
            slot.memory_kills = self.cgroups.memory_kills()
            slot.process = subprocess.Popen(
                self.command(place),
                env={**slot.environment, WORKER_ID_VARIABLE: slot.worker_id},
                stdin=subprocess.DEVNULL,
                stdout=slot.log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches the launcher alone, which then asks its workers to end.
                start_new_session=True,
            )

    def wait(self, timeout_seconds: float) -> list[WorkerEnd]:
        deadline = time.monotonic() + timeout_seconds
        while True:
            with deferred():
                ended = [
                    place
                    for place, slot in enumerate(self.slots)
                    if slot.process is not None and slot.process.poll() is not None
                ]
            if ended or time.monotonic() >= deadline:
                with deferred():
                    return [self._end_of(place) for place in ended]
            time.sleep(POLL_SECONDS)

    def stop(self) -> list[WorkerEnd]:
        running = [slot for slot in self.slots if slot.process is not None]
        for slot in running:
            assert slot.process is not None
            with contextlib.suppress(KeyboardInterrupt), deferred():
                slot.process.terminate()
        deadline = time.monotonic() + END_SECONDS
        ends = []
        for place, slot in enumerate(self.slots):
            if slot.process is None:
                continue
            try:
                while not _has_ended(slot) and time.monotonic() < deadline:
                    time.sleep(END_POLL_SECONDS)
            except KeyboardInterrupt:
                deadline = 0.0
            with contextlib.suppress(KeyboardInterrupt), deferred():
                if slot.process.poll() is None:
                    slot.process.kill()
                slot.process.wait()
                ends.append(self._end_of(place))
        return ends

    def _end_of(self, place: int) -> WorkerEnd:
        """Ends what the worker has left behind, and frees its place."""
        slot = self.slots[place]
        assert slot.process is not None
        pid, code = slot.process.pid, slot.process.returncode
        end_children(slot.worker_id, pid)
        slot.process = None
        if slot.log is not None:
            slot.log.close()
        return WorkerEnd(place, worker_name(slot.worker_id, pid), code, self._last_lines(slot), self._cause(slot, code))

    def _cause(self, slot: Slot, code: int) -> str | None:
        if code != -signal.SIGKILL:
            return None
        kills = self.cgroups.memory_kills()
        if kills is not None and slot.memory_kills is not None and kills > slot.memory_kills:
            return "was ended by SIGKILL: the kernel killed it, because its memory limit was reached"
        return None

    def _last_lines(self, slot: Slot) -> str:
        with slot.log_path.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(slot.log_start, log.tell() - 8192))
            return printable(log.read().decode(errors="backslashreplace"))


def _has_ended(slot: Slot) -> bool:
    with deferred():
        return slot.process is None or slot.process.poll() is not None


def check(settings: Settings, options: LocalOptions) -> None:
    """Raises UsageError for a GPU that is not there."""
    if isinstance(options.gpus, tuple) and (missing := missing_gpus(options.gpus)):
        raise UsageError(no_gpu(missing))


def run(experiment: Experiment, settings: Settings, options: LocalOptions, progress: Progress) -> None:
    """Runs the experiment to its end on this machine; raises what :func:`hpo.launchers.supervise.supervise` does."""
    slots = plan_slots(experiment.name, settings, options, experiment.content.get("gpus_per_trial", 1))
    supervise(experiment, LocalFleet(experiment.name, slots), options, progress)


def plan_slots(experiment_name: str, settings: Settings, options: LocalOptions, gpus_per_trial: int = 1) -> list[Slot]:
    """A place for each worker, with its devices and share of the cores in its environment.

    Raises UsageError if there are fewer GPUs than a trial gets.
    """
    names = list(options.gpus) if isinstance(options.gpus, tuple) else gpu_indices() if options.gpus == "all" else []
    if 0 < len(names) < gpus_per_trial:
        raise UsageError(f"gpus_per_trial = {gpus_per_trial}, but there are {len(names)} GPUs: {', '.join(names)}")
    gpus = gpu_groups(names, gpus_per_trial)
    environment = settings.environment() | {
        "HPO_LAUNCHER_PID": str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        # The numbers of nvidia-smi; CUDA's own order is by speed.
        environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if gpus:
        count = options.workers or len(gpus) * options.per_gpu
        places = [
            (f"worker {index} on GPU {gpus[index % len(gpus)]}", gpus[index % len(gpus)]) for index in range(count)
        ]
        shares = Counter(gpu for _, gpu in places)
        devices = [
            {"CUDA_VISIBLE_DEVICES": gpu, "HPO_DEVICE": "cuda:0", "HPO_DEVICE_WORKERS": str(shares[gpu])}
            for _, gpu in places
        ]
    else:
        # One thread each: more trials an hour than from fewer workers with several.
        fitting = available_memory() // WORKER_BYTES
        count = options.workers or max(1, min(usable_cores() // gpus_per_trial, fitting))
        places = [(f"worker {index}", "") for index in range(count)]
        devices = [{"CUDA_VISIBLE_DEVICES": "", "HPO_DEVICE": "cpu"}] * count
    threads = str(max(1, usable_cores() // count))
    share = {"HPO_THREADS": threads, "OMP_NUM_THREADS": threads, "HPO_NUM_WORKERS": str(count)}
    if count > 1:
        # Workers that wait for each other's cores are slower than ones that do not ask for them. A worker that has the
        # cores to itself is faster if its threads stay awake: small networks use them for microseconds at a time.
        share["OMP_WAIT_POLICY"] = "PASSIVE"
    settings.logs.mkdir(parents=True, exist_ok=True)
    stem = f"{log_name(experiment_name)}@{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    paths = [settings.logs / f"{stem}-{index}.log" for index in range(count)]
    return [
        Slot(description, environment | share | device | {LOG_VARIABLE: f"{socket.gethostname()}:{path}"}, path)
        for (description, _), device, path in zip(places, devices, paths, strict=True)
    ]


def log_name(experiment_name: str) -> str:
    """The beginning, up to the ``@``, of the names of an experiment's logs."""
    return re.sub(r"[^\w.-]", "_", experiment_name)[:80]
