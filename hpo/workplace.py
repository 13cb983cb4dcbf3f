"""Where a worker process finds itself: its device, its share of the cores."""

import os
from pathlib import Path

from hpo.settings import Settings
from hpo.worker import WorkerOptions


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


def usable_cores() -> int:
    """Cores that this process may use, which in a container or under Slurm are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_indices() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; found without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    names = sorted(Path("/dev").glob("nvidia[0-9]*"), key=lambda path: int(path.name.removeprefix("nvidia")))
    return [path.name.removeprefix("nvidia") for path in names]


def default_device() -> str:
    return "cuda:0" if gpu_indices() else "cpu"
