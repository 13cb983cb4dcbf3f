"""``hpo manifest``: what to apply for an experiment's workers on Kubernetes, Slurm or compose.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from typing import Annotated

import typer

from hpo.cli.options import CheckpointOption, TrainersOption


def manifest(
    kind: Annotated[str, typer.Argument(help="kubernetes, slurm or compose.")],
    experiment: Annotated[str, typer.Argument(help="The experiment.")],
    workers: Annotated[int, typer.Option("--workers", envvar="HPO_WORKERS", help="How many workers.")] = 8,
    image: Annotated[
        str, typer.Option("--image", envvar="HPO_IMAGE", help="Container image with this package.")
    ] = "hpo",
    gpus_per_worker: Annotated[
        int | None,
        typer.Option(
            "--gpus-per-worker",
            envvar="HPO_GPUS_PER_WORKER",
            help="GPUs of each worker; 0: the CPU.",
            show_default="--gpus-per-trial",
        ),
    ] = None,
    gpus_per_trial: Annotated[
        int,
        typer.Option("--gpus-per-trial", envvar="HPO_GPUS_PER_TRIAL", help="GPUs of a trial, as at the launch.", min=1),
    ] = 1,
    cpus_per_worker: Annotated[
        int, typer.Option("--cpus-per-worker", envvar="HPO_CPUS_PER_WORKER", help="Cores of each worker.")
    ] = 4,
    memory_gb: Annotated[
        int, typer.Option("--memory-gb", envvar="HPO_MEMORY_GB", help="Memory of each worker, in GB.")
    ] = 16,
    termination_seconds: Annotated[
        int,
        typer.Option(
            "--termination-seconds",
            envvar="HPO_TERMINATION_SECONDS",
            help="Time between the wish to end and the kill: longer than an epoch.",
        ),
    ] = 120,
    trainers: TrainersOption = None,
    checkpoint_dir: CheckpointOption = None,
) -> None:
    """Print what to apply for the workers of an experiment: a file for kubectl, sbatch or docker compose."""
    import sys

    from hpo.launchers.manifests import Workers
    from hpo.launchers.manifests import manifest as written

    sys.stdout.write(
        written(
            kind,
            Workers(
                experiment=experiment,
                workers=workers,
                image=image,
                gpus_per_worker=gpus_per_trial if gpus_per_worker is None else gpus_per_worker,
                gpus_per_trial=gpus_per_trial,
                cpus_per_worker=cpus_per_worker,
                memory_gb=memory_gb,
                termination_seconds=termination_seconds,
                checkpoint_dir=checkpoint_dir,
                trainers=trainers or "",
            ),
        )
    )
