"""``hpo launch`` and ``hpo worker``: an experiment's workers, all of them or one.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import dataclasses
import inspect
import os
from typing import Annotated, Any

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
    ServeOption,
    SlotsOption,
    StorageOption,
    TrainersOption,
    VerboseOption,
)
from hpo.cli.support import end_interrupted, load_named, show_end
from hpo.launchers.registry import LAUNCHERS, all_options, launcher_entry, make_options


def launch(
    context: typer.Context,
    study_file: Annotated[
        str, typer.Argument(help="The study file, TOML; or an Optuna objective, my_script.py:objective.")
    ],
    launcher: Annotated[
        str, typer.Option("--launcher", envvar="HPO_LAUNCHER", help=f"{', '.join(LAUNCHERS)}; see hpo list.")
    ] = "local",
    slots: SlotsOption = None,
    storage: StorageOption = None,
    home: HomeOption = None,
    data_dir: DataOption = None,
    trainers: TrainersOption = None,
    checkpoint_dir: CheckpointOption = None,
    download: DownloadOption = False,
    heartbeat_seconds: HeartbeatOption = None,
    grace_seconds: GraceOption = None,
    memory_limit_mb: MemoryOption = None,
    serve: ServeOption = False,
    accept_trainer: Annotated[
        bool,
        typer.Option(
            "--accept-trainer",
            envvar="HPO_ACCEPT_TRAINER",
            help="Go on although the trainer's configuration has changed: the trials that there are count as trials "
            "of this version.",
        ),
    ] = False,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            envvar="HPO_LAUNCH_LIKE",
            metavar="NAME",
            help="Try the best configuration of this earlier experiment first; may be given several times.",
        ),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            envvar="HPO_LAUNCH_IMPORT",
            metavar="SOURCE",
            help="Let the samplers know the finished trials of this earlier experiment, or CSV file, where they fit, "
            "as hpo import does; may be given several times.",
        ),
    ] = None,
    gpus_per_trial: Annotated[
        int | None,
        typer.Option(
            "--gpus-per-trial",
            envvar="HPO_GPUS_PER_TRIAL",
            help="GPUs of a trial, in place of the study file's gpus_per_trial; without GPUs, processes of a trial.",
            show_default="the study file's, or 1",
        ),
    ] = None,
    seeds_per_trial: Annotated[
        int | None,
        typer.Option(
            "--seeds-per-trial",
            envvar="HPO_SEEDS_PER_TRIAL",
            help="Trainings of a trial, each with a seed of its own; its value is their mean.",
            show_default="the study file's, or 1",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    trials: Annotated[
        int | None, typer.Option("--trials", envvar="HPO_LAUNCH_TRIALS", help="Of an objective: number of trials.")
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(
            "--direction",
            envvar="HPO_LAUNCH_DIRECTION",
            help="Of an objective: minimize or maximize; of two values both: minimize,maximize.",
            show_default="minimize",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler", envvar="HPO_LAUNCH_SAMPLER", help="Of an objective: tpe, or several to compare: random,tpe."
        ),
    ] = None,
    pruner: Annotated[
        str | None, typer.Option("--pruner", envvar="HPO_LAUNCH_PRUNER", help="Of an objective: such as median.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", envvar="HPO_LAUNCH_NAME", help="Of an objective: the experiment's name.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            "--repeats",
            envvar="HPO_LAUNCH_REPEATS",
            help="Searches of each sampler, in place of the study file's number; more of them continue the experiment.",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", envvar="HPO_LAUNCH_METRIC", help="Of an objective: its value's name, or two: loss,size."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", envvar="HPO_LAUNCH_SEED", help="Of an objective: the search's seed.")
    ] = None,
    **launcher_options: Any,
) -> None:
    """Run a study file, or an Optuna objective, to its end; run it again to go on after an interruption."""
    from hpo import api
    from hpo.launchers.progress import choose_progress
    from hpo.settings import Settings

    options = make_options(launcher, **_options_for(context, launcher, launcher_options))
    settings = Settings.given(
        storage=storage,
        home=home,
        data_dir=data_dir,
        trainers=trainers,
        checkpoint_dir=checkpoint_dir,
        download=download,
        heartbeat_seconds=heartbeat_seconds,
        grace_seconds=grace_seconds,
        memory_limit_mb=memory_limit_mb,
        slots=slots,
    )
    try:
        with choose_progress(as_json=as_json, verbose=verbose) as progress:
            keys = {
                "trials": trials,
                "direction": direction,
                "sampler": sampler,
                "pruner": pruner,
                "name": name,
                "repeats": repeats,
                "metric": metric,
                "seed": seed,
                "gpus_per_trial": gpus_per_trial,
                "seeds_per_trial": seeds_per_trial,
            }
            loaded = api.launch_with(
                study_file,
                launcher,
                settings,
                options,
                progress,
                keys,
                accept_trainer=accept_trainer,
                serve=serve,
                like=like or (),
                imports=imports or (),
            )
    except KeyboardInterrupt:
        end_interrupted()
    if code := show_end(loaded, loaded.settings, as_json=as_json, verbose=verbose):
        raise SystemExit(code)


def _options_for(context: typer.Context, launcher: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options of the launcher among all that there are; another launcher's may stand in the environment only."""
    own = {field.name for field in dataclasses.fields(launcher_entry(launcher).options)}
    return {name: value for name, value in given.items() if name in own or _is_on_the_command_line(context, name)}


def _is_on_the_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _with_launcher_options() -> None:
    """Gives the command the options of all launchers' rows, in place of its ``**launcher_options``."""
    parameters = list(inspect.signature(launch).parameters.values())
    context, study_file, which, *shared = parameters[:-1]
    own = []
    for name, field in all_options().items():
        flag = f"--{name.replace('_', '-')}"
        shown = field.metadata["shown_default"] or str(field.default)
        kind = int if "int" in str(field.type) else str
        described = typer.Option(flag, envvar=f"HPO_{name.upper()}", help=field.metadata["help"], show_default=shown)
        annotation = Annotated[kind | None, described]  # type: ignore[valid-type]
        own.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
        launch.__annotations__[name] = annotation
    in_order = [context, study_file, which, *own, *shared]
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in in_order]
    launch.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]


_with_launcher_options()


def worker(
    experiment: Annotated[str, typer.Argument(help="The experiment.")],
    supervise: Annotated[
        bool | None,
        typer.Option(
            "--supervise/--no-supervise",
            envvar="HPO_SUPERVISE",
            help="Start another worker in place of one that asks for it (memory, a hung epoch).",
            show_default="unless a launcher does",
        ),
    ] = None,
    slots: SlotsOption = None,
    storage: StorageOption = None,
    home: HomeOption = None,
    data_dir: DataOption = None,
    trainers: TrainersOption = None,
    checkpoint_dir: CheckpointOption = None,
    download: DownloadOption = False,
    heartbeat_seconds: HeartbeatOption = None,
    grace_seconds: GraceOption = None,
    memory_limit_mb: MemoryOption = None,
) -> None:
    """Run one worker in the foreground: what Docker, Slurm or Kubernetes starts."""
    from hpo.database.retrying import persistently
    from hpo.settings import Settings
    from hpo.trainers.loading import load_trainers
    from hpo.worker.log_lines import LOG_LINES
    from hpo.worker.options import claim_gpus, prepare_process, worker_options
    from hpo.worker.process_end import end_own_children, has_successor, leave
    from hpo.worker.worker import run_worker

    # A copy of standard error, so that the log goes on if a trainer closes its own.
    stream = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    LOG_LINES.write_to(stream)
    settings = Settings.given(
        storage=storage,
        home=home,
        data_dir=data_dir,
        trainers=trainers,
        checkpoint_dir=checkpoint_dir,
        download=download,
        heartbeat_seconds=heartbeat_seconds,
        grace_seconds=grace_seconds,
        memory_limit_mb=memory_limit_mb,
        slots=slots,
    )
    launcher = os.environ.get("HPO_LAUNCHER_PID")
    prepare_process(supervise=launcher is None if supervise is None else supervise)
    # A worker may find the database away for a moment when it starts, as at any other time: while the launcher that
    # started it lives, it waits.
    load_trainers(settings.trainers)
    found = persistently(lambda: load_named(settings, experiment), lambda: launcher != str(os.getppid()))
    claim_gpus(settings, found.content.get("gpus_per_trial", 1))
    try:
        code = run_worker(found, worker_options(settings))
    finally:
        end_own_children()
    if has_successor(code):
        leave(code)
    if code:
        raise SystemExit(code)
