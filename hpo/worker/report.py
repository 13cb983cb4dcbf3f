"""What a worker reports of itself with its heartbeat: where it runs, on what, what it uses, the end of its log.

The row in ``hpo_workers`` is what ``hpo workers`` and the page of an experiment show. A report that cannot be written
costs nothing but the report.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from hpo.database import workers
from hpo.experiment.experiment import Experiment
from hpo.machine import gpu_indices
from hpo.worker.log_lines import LOG_LINES
from hpo.worker.options import WorkerOptions

log = logging.getLogger("hpo")

LAST_LINES = 20
LAST_BYTES = 4096
GPU_SECONDS = 10.0
"""Shortest time between two calls of ``nvidia-smi``, each of which takes some hundredths of a second."""


class Reporter:
    """Writes the row of one worker with ``slots`` slots; to be used by one thread at a time."""

    def __init__(self, experiment: Experiment, options: WorkerOptions, slots: int) -> None:
        self._engine = experiment.storage.engine
        self._study_ids = experiment.study_ids
        self._worker = options.name
        self._process = psutil.Process()
        self._cpu = _cpu_seconds(self._process), time.monotonic()
        self._gpu: tuple[float, dict[str, Any]] = -GPU_SECONDS, {}
        self._reported = -float("inf")
        self._log = _log_path(options.log)
        self._device = options.device
        self._fixed = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": options.device,
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES") if options.device.startswith("cuda") else None,
            "threads": options.threads,
            "slots": slots,
            "log": options.log,
            "heartbeat_seconds": options.heartbeat_seconds,
            "grace_seconds": options.grace_seconds,
        }

    def report(self, state: str, *, every_seconds: float = 0.0) -> None:
        """Writes how the worker is, if that was not done in the last ``every_seconds``."""
        if time.monotonic() - self._reported < every_seconds:
            return
        self._reported = time.monotonic()
        text = json.dumps(self._measure())
        self._write(lambda connection: workers.write_report(connection, self._study_ids, self._worker, state, text))

    def end(self, why: str) -> None:
        """Writes that the worker has ended, and why."""
        self._write(lambda connection: workers.write_end(connection, self._worker, why))

    def _write(self, write: Callable[[sa.Connection], object]) -> None:
        """A database that is away, or an experiment that was deleted, costs the report; any other error is a bug."""
        try:
            with self._engine.begin() as connection:
                write(connection)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            log.debug("the report of this worker is not written: %s", error)

    def _measure(self) -> dict[str, Any]:
        seconds, at = _cpu_seconds(self._process), time.monotonic()
        (before, since), self._cpu = self._cpu, (seconds, at)
        elapsed = at - since
        return {
            **self._fixed,
            "cpu_percent": round(100 * max(0.0, seconds - before) / elapsed) if elapsed > 0.1 else None,
            "memory_mb": _memory_mb(self._process),
            **self._gpu_use(),
            "last_lines": last_lines(self._log),
            "warnings": list(LOG_LINES.warnings),
        }

    def _gpu_use(self) -> dict[str, Any]:
        if not self._device.startswith("cuda"):
            return {}
        if time.monotonic() - self._gpu[0] >= GPU_SECONDS:
            self._gpu = time.monotonic(), gpu_use(self._device)
        return self._gpu[1]


def _family(process: psutil.Process) -> list[psutil.Process]:
    """The worker and what it has started."""
    with contextlib.suppress(psutil.Error, OSError):
        return [process, *process.children(recursive=True)]
    return [process]


def _cpu_seconds(process: psutil.Process) -> float:
    total = 0.0
    for member in _family(process):
        with contextlib.suppress(psutil.Error, OSError):
            times = member.cpu_times()
            total += times.user + times.system
    return total


def _memory_mb(process: psutil.Process) -> int:
    total = 0
    for member in _family(process):
        with contextlib.suppress(psutil.Error, OSError):
            total += member.memory_info().rss
    return int(total / 2**20)


def gpu_use(device: str) -> dict[str, Any]:
    """How busy the GPU is, in percent, and its memory in MB, with whatever else runs on it; {} if it cannot be asked.

    ``device``: as torch names it, ``cuda:0``: the first of those that this process sees.
    """
    visible, index = gpu_indices(), int(device.partition(":")[2] or 0)
    command = shutil.which("nvidia-smi")
    if command is None or index >= len(visible):
        return {}
    query = "--query-gpu=utilization.gpu,memory.used,memory.total"
    try:
        done = subprocess.run(
            [command, f"--id={visible[index]}", query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        busy, used, total = (int(float(cell)) for cell in done.stdout.strip().splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}  # a part of a GPU (MIG) has no such numbers
    return {"gpu_percent": busy, "gpu_memory_mb": used, "gpu_memory_total_mb": total}


def _log_path(log: str | None) -> Path | None:
    return None if log is None else Path(log.partition(":")[2] or log)


def last_lines(path: Path | None) -> str:
    """The end of a log, at most LAST_LINES lines of it; "" if it cannot be read."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LAST_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = text.replace("\x00", "").splitlines()
    if size > LAST_BYTES:
        lines = lines[1:]
    return "\n".join(lines[-LAST_LINES:])
