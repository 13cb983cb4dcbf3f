"""Where a worker process finds itself, and how it is to run: its device, its share of the cores."""

import os
from dataclasses import dataclass
from pathlib import Path

from hpo.machine import default_device, usable_cores
from hpo.settings import Settings


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker runs; nothing here changes a result.

    Attributes:
        checkpoints: folder or fsspec address below which checkpoints are kept.
        artifacts: folder of the artifacts that the dashboard shows.
        memory_limit_mb: a worker that has grown past this gives its trials back and ends, to be replaced.
        launcher_pid: the worker ends when this process is no longer its parent.
    """

    checkpoints: str
    artifacts: Path
    device: str = "cpu"
    threads: int = 1
    slots: int | None = None
    data_dir: Path | None = None
    download: bool = False
    heartbeat_seconds: float = 5.0
    grace_seconds: float = 30.0
    memory_limit_mb: int | None = None
    launcher_pid: int | None = None


def worker_options(settings: Settings) -> WorkerOptions:
    """The options of a worker in this process; the launcher gave it its device and cores by environment.

    Raises StorageError where the home cannot be written: a worker finds that out before it trains.
    """
    launcher_pid = os.environ.get("HPO_LAUNCHER_PID")
    return WorkerOptions(
        checkpoints=settings.checkpoints,
        artifacts=settings.home_folder / "artifacts",
        device=os.environ.get("HPO_DEVICE") or default_device(),
        threads=int(os.environ.get("HPO_THREADS") or usable_cores()),
        slots=settings.slots,
        data_dir=None if settings.data_dir is None else Path(settings.data_dir),
        download=settings.download,
        heartbeat_seconds=settings.heartbeat_seconds,
        grace_seconds=settings.grace_seconds,
        memory_limit_mb=settings.memory_limit_mb,
        launcher_pid=None if launcher_pid is None else int(launcher_pid),
    )
