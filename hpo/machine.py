"""What a result's last digits depend on, told without importing torch."""

import functools
import importlib.metadata
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
