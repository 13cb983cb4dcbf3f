"""What a result's last digits depend on, told without importing torch."""

import functools
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any


@functools.cache
def processor() -> str:
    """The processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def trained_on(device: str, threads: int, slots: int) -> dict[str, Any]:
    """Device, threads, slots, processor and torch's version of a worker."""
    try:
        torch: str | None = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = None
    return {"device": device, "threads": threads, "slots": slots, "processor": processor(), "torch": torch}


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
