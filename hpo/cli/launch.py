"""``hpo launch`` and ``hpo worker``: an experiment's workers, all of them or one."""

import json
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.options import (
    CheckpointOption,
    DataOption,
    DownloadOption,
    GraceOption,
    HeartbeatOption,
    HomeOption,
    JsonOption,
    MemoryOption,
    SlotsOption,
    StorageOption,
    TrainersOption,
)
from hpo.cli.support import load_named, quoted, show
from hpo.errors import InterruptedRunError, UsageError


def launch(
    study_file: Annotated[Path, typer.Argument(help="The study file, TOML.")],
    workers: Annotated[
        int | None,
        typer.Option("--workers", envvar="HPO_WORKERS", help="Worker processes.", show_default="one a GPU, or a core"),
    ] = None,
    launcher: Annotated[
        str, typer.Option("--launcher", envvar="HPO_LAUNCHER", help="local, inline or ray; see hpo list.")
    ] = "local",
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus", envvar="HPO_GPUS", help="GPUs to use, such as 0,1; 'none' for the CPU.", show_default="all"
        ),
    ] = None,
    per_gpu: Annotated[int, typer.Option("--per-gpu", envvar="HPO_PER_GPU", help="Workers that share one GPU.")] = 1,
    max_restarts: Annotated[
        int, typer.Option("--max-restarts", envvar="HPO_MAX_RESTARTS", help="Dead workers that are replaced.")
    ] = 10,
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", envvar="HPO_RAY_ADDRESS", help="Ray cluster, such as ray://host:10001."),
    ] = None,
    slots: SlotsOption = None,
    storage: StorageOption = None,
    home: HomeOption = None,
    data_dir: DataOption = None,
    trainers: TrainersOption = "",
    checkpoint_dir: CheckpointOption = None,
    download: DownloadOption = False,
    heartbeat_seconds: HeartbeatOption = 5.0,
    grace_seconds: GraceOption = 30.0,
    memory_limit_mb: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study file to its end; run it again to go on after an interruption."""
    from hpo import api
    from hpo.launchers import LAUNCHERS, LaunchOptions
    from hpo.launchers.progress import choose_progress, status_table
    from hpo.settings import Settings

    if launcher not in LAUNCHERS:
        raise UsageError(f"--launcher must be one of {', '.join(LAUNCHERS)}, not {launcher!r}")
    settings = Settings(
        storage,
        home,
        data_dir,
        trainers,
        checkpoint_dir,
        download,
        heartbeat_seconds,
        grace_seconds,
        memory_limit_mb,
        slots,
    )
    chosen = None if gpus == "none" else () if gpus is None else tuple(gpu.strip() for gpu in gpus.split(","))
    options = LaunchOptions(workers, chosen, per_gpu, max_restarts, ray_address)
    try:
        with choose_progress(as_json=as_json) as progress:
            loaded = api.launch_with(study_file, launcher, settings, options, progress)
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted; what was done is kept, the same command goes on") from None
    status = loaded.status()
    if as_json:
        print(json.dumps(status))
        return
    show(status_table(status))
    show(f"\nbest configuration:  hpo export {quoted(loaded.name)} --output best.toml")
    show(f"comparison:          hpo compare {quoted(loaded.name)}")
    show("dashboard:           hpo dashboard")


def worker(
    experiment: Annotated[str, typer.Argument(help="The experiment.")],
    slots: SlotsOption = None,
    storage: StorageOption = None,
    home: HomeOption = None,
    data_dir: DataOption = None,
    trainers: TrainersOption = "",
    checkpoint_dir: CheckpointOption = None,
    download: DownloadOption = False,
    heartbeat_seconds: HeartbeatOption = 5.0,
    grace_seconds: GraceOption = 30.0,
    memory_limit_mb: MemoryOption = None,
) -> None:
    """Run one worker in the foreground: what Docker, Slurm or Kubernetes starts."""
    from hpo.database.retrying import persistently
    from hpo.settings import Settings
    from hpo.worker.options import worker_options
    from hpo.worker.worker import Worker

    # A copy of standard error, so that the log goes on where a trainer closes its own.
    stream = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, stream=stream)
    logging.getLogger("hpo").setLevel(logging.INFO)
    settings = Settings(
        storage,
        home,
        data_dir,
        trainers,
        checkpoint_dir,
        download,
        heartbeat_seconds,
        grace_seconds,
        memory_limit_mb,
        slots,
    )
    # A worker may find the database away for a moment when it starts, as at any other time: while the launcher that
    # started it lives, it waits.
    launcher = os.environ.get("HPO_LAUNCHER_PID")
    found = persistently(lambda: load_named(settings, experiment), lambda: launcher != str(os.getppid()))
    code = Worker(found, worker_options(settings)).run()
    if code:
        raise SystemExit(code)
