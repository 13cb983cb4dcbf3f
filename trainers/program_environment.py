"""What surrounds a program that runs as a trial: its environment variables."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from hpo.trainers.protocol import Run
from hpo.trainers.reporting import METRICS_VARIABLE, STOP_VARIABLE

SERVICE_VARIABLES = ("HPO_STORAGE", "HPO_LAUNCHER_PID", "HPO_DEVICE", "HPO_THREADS", "HPO_TRAINERS", "HPO_SLOTS")
"""Variables of a worker that a program does not get; the first may hold a password."""


class ProgramFiles:
    """The service's own files in a trial's folder.

    Attributes:
        checkpoints: folder for the program's own checkpoints.
        metrics: lines of JSON from the program.
        params: the values of the parameters.
        stop: exists once the program is to end.
    """

    def __init__(self, folder: Path) -> None:
        self.checkpoints = folder / "checkpoints"
        self.metrics = folder / "metrics.jsonl"
        self.params = folder / "params.json"
        self.stop = folder / ".stop"


def program_environment(run: Run, files: ProgramFiles, threads: int) -> dict[str, str]:
    """This process's environment without what is the service's own, and with what a trial is given."""
    kept = {name: value for name, value in os.environ.items() if name not in SERVICE_VARIABLES}
    defaults = {"PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": str(threads)}
    own = {
        "HPO_TRIAL": str(run.trial),
        "HPO_STUDY": run.study,
        "HPO_EXPERIMENT": run.experiment,
        "HPO_ATTEMPT": str(run.attempt),
        "HPO_SEED": str(run.seed),
        "HPO_FOLDER": str(run.folder),
        "HPO_CHECKPOINT_DIR": str(files.checkpoints),
        "HPO_PARAMS": str(files.params),
        METRICS_VARIABLE: str(files.metrics),
        STOP_VARIABLE: str(files.stop),
        "HPO_TEST": run.test,
    }
    if len(run.devices) > 1:
        # Two trials on one machine must not meet; torchrun reads PET_….
        own["MASTER_PORT"] = own["PET_MASTER_PORT"] = str(_free_port())
    own["CUDA_VISIBLE_DEVICES"] = visible_devices(run.devices, kept.get("CUDA_VISIBLE_DEVICES"))
    if run.data_dir is not None:
        own["HPO_DATA"] = str(Path(run.data_dir).absolute())
    return {**defaults, **kept, **own}


def visible_devices(devices: Sequence[str], visible: str | None) -> str:
    """The names of a trial's GPUs for ``CUDA_VISIBLE_DEVICES``, of the ``visible`` ones of this process; else empty."""
    numbers = [int(device.partition(":")[2] or 0) for device in devices if device.startswith("cuda")]
    names = None if visible is None else [name.strip() for name in visible.split(",")]
    return ",".join(str(n) if names is None or n >= len(names) else names[n] for n in numbers)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
