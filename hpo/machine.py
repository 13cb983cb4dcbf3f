"""The machine as this process sees it: processor, cores, memory, GPUs, and the name of a worker on it.

Cores and memory are those that the process may use: a container's or a batch job's share is set by control groups
(versions 1 and 2), which neither ``sched_getaffinity`` nor ``psutil`` reads. Nothing here imports torch.
"""

import contextlib
import fcntl
import functools
import importlib.metadata
import os
import platform
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

LOCAL_RANK_VARIABLES = (
    "SLURM_LOCALID",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "PALS_LOCAL_RANKID",
    "FLUX_TASK_LOCAL_ID",
    "JSM_NAMESPACE_LOCAL_RANK",
    "LOCAL_RANK",
)
"""Where Slurm, Open MPI, Intel MPI, MVAPICH, PALS, Flux, JSM and torchrun put a process's number on its node."""

WORKER_ID_VARIABLE = "HPO_WORKER_ID"
"""The start time and random part of a worker's name; also what marks the processes that a worker has started."""


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
    """Facts about a worker that affect bitwise reproducibility: device, threads, slots, processor, torch's version.

    On a GPU also its name, the driver and the versions of CUDA and cuDNN, if this process uses torch.
    """
    try:
        torch: str | None = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = None
    facts = {"device": device, "threads": threads, "slots": slots, "processor": processor(), "torch": torch}
    return facts | (gpu_facts(device, sys.modules.get("torch")) if device.startswith("cuda") else {})


DRIVER = Path("/proc/driver/nvidia/version")


def gpu_facts(device: str, torch: Any) -> dict[str, Any]:
    """Name of the GPU, versions of the driver, CUDA and cuDNN; {} if ``torch`` is None or has no such device."""
    if torch is None or not torch.cuda.is_available():
        return {}
    driver = re.search(r"Module\s+(\d[\d.]*)|x86_64\s+(\d[\d.]*)", _read(DRIVER))
    return {
        "gpu": torch.cuda.get_device_name(device),
        "driver": next((group for group in driver.groups() if group), None) if driver else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


# Cores and memory.


def usable_cores(cgroups: "Cgroups | None" = None) -> int:
    """Cores that this process may use: the affinity mask, and at most the CPU quota rounded down; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = (cgroups or Cgroups()).cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def available_memory(cgroups: "Cgroups | None" = None) -> int:
    """Bytes that can still be allocated here: the machine's free memory, and at most what the memory limit leaves."""
    free = int(psutil.virtual_memory().available)
    left = (cgroups or Cgroups()).memory_left()
    return free if left is None else max(0, min(free, left))


def held_memory() -> int:
    """Bytes of memory of its own that this process holds: without files that it has mapped."""
    memory = psutil.Process().memory_info()
    return max(0, int(memory.rss) - int(getattr(memory, "shared", 0)))


class Cgroups:
    """The control groups of this process, each with the groups above it, whose limits hold as well.

    ``proc`` and ``root`` are other folders in tests.
    """

    def __init__(self, proc: Path = Path("/proc/self"), root: Path = Path("/")) -> None:
        self._proc = proc
        self._root = root

    def cpu_quota(self) -> float | None:
        """The smallest CPU quota, in cores; None if there is none."""
        quotas = []
        for folder in self._folders("cpu"):
            words = _read(folder / "cpu.max").split()
            if not words:
                words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
            with contextlib.suppress(ValueError, IndexError, ZeroDivisionError):
                quota = int(words[0]) / int(words[1])
                if quota > 0:
                    quotas.append(quota)
        return min(quotas, default=None)

    def memory_left(self) -> int | None:
        """Bytes below the nearest memory limit; file cache that the kernel can drop counts as free. None: no limit."""
        left = []
        for folder in self._folders("memory"):
            limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
            used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
            # Version 1 spells "no limit" as a number larger than any memory.
            if limit.isdigit() and int(limit) < 1 << 60 and used.isdigit():
                statistics = dict(line.split() for line in _read(folder / "memory.stat").splitlines() if " " in line)
                cache = int(statistics.get("total_inactive_file") or statistics.get("inactive_file") or 0)
                left.append(int(limit) - max(0, int(used) - cache))
        return min(left, default=None)

    def memory_kills(self) -> int | None:
        """How many processes of this group the kernel has killed for want of memory; None if it does not count them."""
        for folder in self._folders("memory"):
            for name in ("memory.events", "memory.oom_control"):
                if found := re.search(r"^oom_kill (\d+)$", _read(folder / name), re.MULTILINE):
                    return int(found[1])
        return None

    def _folders(self, controller: str) -> Iterator[Path]:
        """The group's folder and those above it, for a controller of version 1 and for version 2."""
        groups: dict[str, str] = {}
        for line in _read(self._proc / "cgroup").splitlines():
            _, names, path = line.split(":", 2)
            groups |= dict.fromkeys(names.split(","), path)
        for line in _read(self._proc / "mountinfo").splitlines():
            mounted, _, kind = line.partition(" - ")
            kind_words = kind.split()
            if len(kind_words) < 3 or kind_words[0] not in ("cgroup", "cgroup2"):
                continue
            name = "" if kind_words[0] == "cgroup2" else controller
            if name not in groups or (name and name not in kind_words[2].split(",")):
                continue
            group_root, mount_point = mounted.split()[3:5]
            top = self._root / mount_point.lstrip("/")
            # A container may see its own group as the root, or the path that the group has on the host.
            below = groups[name].removeprefix(group_root if group_root != "/" else "").strip("/")
            folder = top / below
            if ".." in folder.parts or not folder.is_dir():
                folder = top
            yield from (path for path in (folder, *folder.parents) if path.is_relative_to(top))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# GPUs.


WSL_CUDA = Path("/usr/lib/wsl/lib/libcuda.so.1")
"""CUDA's library under WSL2, which has no device nodes of NVIDIA's."""


def gpu_indices(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    CUDA numbers the GPUs that it can open from 0, whatever the numbers of their device nodes: a container with the
    node ``nvidia3`` alone has GPU 0.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names: list[str] = []
        for name in visible.split(","):
            # As in CUDA, a name that is no device ends the list: -1, NoDevFiles, none, void.
            if not is_gpu_name(name.strip()):
                break
            names.append(name.strip())
        return names
    count = sum(1 for path in devices.glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdigit())
    if not count and (devices / "dxg").exists() and WSL_CUDA.exists():
        # WSL2 has one node for all GPUs.
        count = len(_gpu_uuids()) or 1
    return [str(index) for index in range(count)]


def gpu_groups(names: list[str], size: int) -> list[str]:
    """The GPUs in groups of ``size``, each as ``CUDA_VISIBLE_DEVICES`` takes it; those that fill no group are left."""
    return [",".join(names[start : start + size]) for start in range(0, len(names) - size + 1, size)]


def is_gpu_name(name: str) -> bool:
    """Whether CUDA can read the name: an index, or the (beginning of the) UUID of a GPU or of a part of one (MIG)."""
    return name.isascii() and (name.isdigit() or re.fullmatch(r"(GPU|MIG)-[0-9A-Za-z/-]+", name) is not None)


def missing_gpus(names: tuple[str, ...]) -> list[str]:
    """Those of the names that are no GPU of this process."""
    usable = gpu_indices()
    if not usable:
        return list(names)
    uuids = _gpu_uuids() if any(not name.isdigit() for name in names) else []

    def is_there(name: str) -> bool:
        if name in usable:
            return True
        # CUDA_VISIBLE_DEVICES that is set limits the choice; else every UUID that the driver lists can be named.
        if name.isdigit() or "CUDA_VISIBLE_DEVICES" in os.environ or not is_gpu_name(name):
            return False
        return not uuids or any(uuid.startswith(name) for uuid in uuids)

    return [name for name in names if not is_there(name)]


def no_gpu(missing: list[str]) -> str:
    """The message for names that are no GPU of this process."""
    usable = gpu_indices()
    there = f"there {'are' if len(usable) > 1 else 'is'} {', '.join(usable)}" if usable else "there is none"
    return f"there is no GPU {', '.join(missing)} here; {there}"


def _gpu_uuids() -> list[str]:
    """The UUIDs of GPUs and their parts, from ``nvidia-smi``; empty if it is not there."""
    if (command := shutil.which("nvidia-smi")) is None:
        return []
    try:
        listed = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)", listed)


def local_rank(environment: Mapping[str, str] = os.environ) -> int | None:
    """This process's number among those of its kind on the node, if what started it numbers them."""
    for name in LOCAL_RANK_VARIABLES:
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return None


def default_device() -> str:
    return "cuda:0" if gpu_indices() else "cpu"


class GpuClaim:
    """The GPUs of a worker that no launcher gave any: by its number on the node, else those that the fewest others use.

    Workers of a node, in containers too, know of each other by locks on files below ``folder``, which they have to
    share. The lock goes with the process.

    Attributes:
        gpu: the name of the GPU, or of the group of GPUs of :func:`gpu_groups`.
        num_others: workers without a number that use the same.
    """

    def __init__(self, gpus: list[str], folder: Path) -> None:
        self.num_others = 0
        self._descriptor: int | None = None
        rank = local_rank()
        self.gpu = gpus[(rank or 0) % len(gpus)]
        if rank is not None:
            return
        with contextlib.suppress(OSError):
            # One boot is one machine, whatever its containers are called.
            folder = folder / "gpus" / (_read(Path("/proc/sys/kernel/random/boot_id")) or socket.gethostname())
            folder.mkdir(parents=True, exist_ok=True)
            for others in range(64):
                for gpu in gpus:
                    if self._lock(folder / f"{gpu.replace('/', '_')}.{others}"):
                        self.gpu, self.num_others = gpu, others
                        return

    def _lock(self, path: Path) -> bool:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True


# Workers.


def new_worker_id() -> str:
    """The start time and a random part: what tells a worker from another with its host name and process id."""
    return f"{int(time.time())}:{secrets.token_hex(4)}"


def worker_name(worker_id: str, pid: int) -> str:
    """The name by which the database knows a worker, ``host:pid:start:random``.

    Two containers may have one host name and one process id; the last two parts differ.
    """
    return f"{socket.gethostname()}:{pid}:{worker_id}"
