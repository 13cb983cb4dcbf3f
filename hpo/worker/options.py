"""Options of a worker process and detection of its name, device and cores."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from hpo.machine import (
    WORKER_ID_VARIABLE,
    GpuClaim,
    available_memory,
    default_device,
    gpu_groups,
    gpu_indices,
    held_memory,
    new_worker_id,
    usable_cores,
    worker_name,
)
from hpo.settings import Settings
from hpo.worker.process_end import SUPERVISE_VARIABLE

log = logging.getLogger("hpo")

LOG_VARIABLE = "HPO_WORKER_LOG"

_gpu_claims: list[GpuClaim] = []
"""Held until the process ends."""


def own_worker_name() -> str:
    """A name for a worker in this process; a launcher gives its workers the part that is not the process id."""
    return worker_name(os.environ.get(WORKER_ID_VARIABLE) or new_worker_id(), os.getpid())


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker runs; nothing here changes a result.

    Attributes:
        checkpoints: folder or fsspec address below which checkpoints are kept.
        artifacts: folder of this machine's artifacts.
        unsent: folder for artifacts that are still to be sent to ``shared_artifacts``, if that is an address.
        shared_artifacts: folder or address of artifacts that other machines reach; None: only this machine's.
        memory_limit_mb: a worker that has grown past this gives its trials back and ends, to be replaced.
        launcher_pid: the worker ends when this process is no longer its parent.
        name: how the database knows the worker.
        device_workers: workers of the launch that use the same GPU.
        memory_bytes: what this worker's process may hold in all: what it held at its start, and its share of the
            memory that was free then.
        log: host and path of the file that this process writes to, for a person who asks why a trial failed.
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
    name: str = field(default_factory=own_worker_name)
    memory_bytes: int | None = None
    shared_artifacts: str | None = None
    log: str | None = None
    device_workers: int = 1
    unsent: Path | None = None

    @property
    def artifact_root(self) -> str | Path:
        """Where new artifacts go."""
        return self.shared_artifacts or self.artifacts


def worker_options(settings: Settings) -> WorkerOptions:
    """The options of a worker in this process; a launcher sets its device and cores in the environment.

    Raises StorageError if the home cannot be written: before the worker trains.
    """
    launcher_pid = os.environ.get("HPO_LAUNCHER_PID")
    return WorkerOptions(
        checkpoints=settings.checkpoints,
        artifacts=settings.make_home() / "artifacts",
        shared_artifacts=settings.artifact_root if settings.checkpoint_dir else None,
        unsent=settings.unsent_artifacts,
        log=os.environ.get(LOG_VARIABLE) or None,
        device=os.environ.get("HPO_DEVICE") or default_device(),
        threads=int(os.environ.get("HPO_THREADS") or usable_cores()),
        slots=settings.slots,
        data_dir=None if settings.data_dir is None else Path(settings.data_dir),
        download=settings.download,
        heartbeat_seconds=settings.heartbeat_seconds,
        grace_seconds=settings.grace_seconds,
        memory_limit_mb=settings.memory_limit_mb,
        launcher_pid=None if launcher_pid is None else int(launcher_pid),
        device_workers=int(os.environ.get("HPO_DEVICE_WORKERS") or 1),
        memory_bytes=held_memory() + available_memory() // int(os.environ.get("HPO_NUM_WORKERS") or 1),
    )


def prepare_process(*, supervise: bool) -> None:
    """Prepares a process that is to be one worker: gives it an id, unless its launcher did.

    With ``supervise`` another worker takes its place in this process if it ends to be replaced.
    """
    os.environ.setdefault(WORKER_ID_VARIABLE, new_worker_id())
    os.environ[SUPERVISE_VARIABLE] = "1" if supervise else "0"


def claim_gpus(settings: Settings, gpus_per_trial: int) -> None:
    """Gives this process the GPUs of one trial, unless its launcher did; call before CUDA is initialized.

    The programs that a trainer starts see them only, too.
    """
    gpus = gpu_indices()
    groups = gpu_groups(gpus, gpus_per_trial)
    if os.environ.get("HPO_DEVICE") or not groups:
        return
    claim = GpuClaim(groups, settings.home_path)
    _gpu_claims.append(claim)
    if len(groups) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = claim.gpu
        log.info("this worker uses GPU %s of %s", claim.gpu, ", ".join(gpus))
    if claim.num_others:
        log.warning("%d other workers of this machine use GPU %s as well", claim.num_others, claim.gpu)
