"""``hpo stop``, ``pause``, ``resume``, ``prune``, ``extend``, ``enqueue``: what a person does to a running experiment.

Each asks first. Imports inside functions keep the start quick: what they bring is not needed by every command.
"""

import dataclasses
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import HomeOption, JsonOption, StorageOption, TrainersOption
from hpo.cli.support import command_for, load_named, print_json, show
from hpo.errors import ExperimentError, UsageError

if TYPE_CHECKING:
    from hpo.experiment.experiment import Experiment
    from hpo.experiment.steering import Steered
    from hpo.settings import Settings

ExperimentArgument = Annotated[str, typer.Argument(help="The experiment.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", envvar="HPO_YES", help="Do not ask.")]
FinishOption = Annotated[
    bool,
    typer.Option(
        "--finish-running", envvar="HPO_FINISH_RUNNING", help="Let the trials that run train to their end first."
    ),
]


def stop(
    experiment: ExperimentArgument,
    finish_running: FinishOption = False,
    yes: YesOption = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop an experiment: its workers give their trials back, with their checkpoints, and end."""
    from hpo.experiment import steering

    _steer(
        _settings(storage, home),
        experiment,
        f"stop {experiment!r}: its workers give their trials back and end",
        lambda found, seen: steering.stop(found, finish_running=finish_running, expected=seen),
        yes=yes,
        as_json=as_json,
    )


def pause(
    experiment: ExperimentArgument,
    finish_running: FinishOption = False,
    yes: YesOption = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pause an experiment: its workers give their trials back, with their checkpoints, and wait for hpo resume."""
    from hpo.experiment import steering

    _steer(
        _settings(storage, home),
        experiment,
        f"pause {experiment!r}: its workers give their trials back and wait",
        lambda found, seen: steering.pause(found, finish_running=finish_running, expected=seen),
        yes=yes,
        as_json=as_json,
    )


def resume(
    experiment: ExperimentArgument,
    yes: YesOption = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an experiment go on that was paused or stopped."""
    from hpo.experiment import steering

    if experiment.endswith((".toml", ".json")):
        raise UsageError(
            f"resume takes an experiment's name; to start workers:\n  hpo launch {shlex.quote(experiment)}"
        )

    _steer(
        _settings(storage, home),
        experiment,
        f"resume {experiment!r}",
        lambda found, seen: steering.resume(found, expected=seen),
        yes=yes,
        as_json=as_json,
    )


def prune(
    experiment: ExperimentArgument,
    trial: Annotated[
        str, typer.Argument(help="The trial's number; SAMPLER/REPEAT/NUMBER if there are several studies.")
    ],
    yes: YesOption = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prune a trial that runs: it ends with the value that it has."""
    from hpo.experiment import steering

    _steer(
        _settings(storage, home),
        experiment,
        f"prune trial {trial} of {experiment!r}",
        lambda found, seen: steering.prune(found, trial, expected=seen),
        yes=yes,
        as_json=as_json,
    )


def extend(
    experiment: ExperimentArgument,
    trials: Annotated[
        str | None,
        typer.Option("--trials", envvar="HPO_EXTEND_TRIALS", metavar="N", help="Trials of each search, or +N more."),
    ] = None,
    epochs: Annotated[
        str | None,
        typer.Option("--epochs", envvar="HPO_EXTEND_EPOCHS", metavar="N", help="Epochs of each search, or +N more."),
    ] = None,
    hours: Annotated[
        str | None,
        typer.Option("--hours", envvar="HPO_EXTEND_HOURS", metavar="N", help="Hours of each search, or +N more."),
    ] = None,
    seconds: Annotated[
        str | None,
        typer.Option("--seconds", envvar="HPO_EXTEND_SECONDS", metavar="N", help="Seconds of each search, or +N more."),
    ] = None,
    gpu_hours: Annotated[
        str | None,
        typer.Option(
            "--gpu-hours", envvar="HPO_EXTEND_GPU_HOURS", metavar="N", help="GPU hours of each search, or +N more."
        ),
    ] = None,
    yes: YesOption = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an experiment a larger budget: workers that run, or the next launch, spend it."""
    from hpo.experiment import extension

    given = {"trials": trials, "epochs": epochs, "hours": hours, "seconds": seconds, "gpu_hours": gpu_hours}
    wanted = {unit: text for unit, text in given.items() if text is not None}
    _steer(
        _settings(storage, home),
        experiment,
        f"extend the budget of {experiment!r} ({', '.join(f'{unit} {text}' for unit, text in wanted.items())})",
        lambda found, seen: extension.extend(found, wanted, expected=seen),
        yes=yes,
        as_json=as_json,
        check=lambda found: extension.check_extension(found, wanted),
    )


def enqueue(
    experiment: ExperimentArgument,
    values: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="Hyperparameters; the others are drawn.")
    ],
    sampler: Annotated[
        str | None, typer.Option("--sampler", envvar="HPO_ENQUEUE_SAMPLER", help="Only in studies of this sampler.")
    ] = None,
    repeat: Annotated[
        int | None, typer.Option("--repeat", envvar="HPO_ENQUEUE_REPEAT", help="Only in this repeat, from 0.")
    ] = None,
    yes: YesOption = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    trainers: TrainersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a configuration tried next, as a trial of the budget, in each study that can take it."""
    from hpo.experiment import enqueueing
    from hpo.settings import Settings
    from hpo.trainers.loading import load_trainers

    settings = Settings.given(storage=storage, home=home, trainers=trainers)
    if settings.trainers:
        load_trainers(settings.trainers)
    parsed = enqueueing.parse_values(values)
    _steer(
        settings,
        experiment,
        f"enqueue {shlex.join(values)} in {experiment!r}",
        lambda found, seen: enqueueing.enqueue(found, parsed, sampler=sampler, repeat=repeat, expected=seen),
        yes=yes,
        as_json=as_json,
        check=lambda found: enqueueing.check(found, parsed, sampler=sampler, repeat=repeat),
    )


def _settings(storage: str | None, home: object) -> "Settings":
    from hpo.settings import Settings

    return Settings.given(storage=storage, home=home)


def _steer(
    settings: "Settings",
    name: str,
    question: str,
    action: "Callable[[Experiment, int | None], Steered]",
    *,
    yes: bool,
    as_json: bool,
    check: "Callable[[Experiment], object]" = lambda found: None,
) -> None:
    """Asks, acts and shows what came of it; a person who was asked is not overtaken by another."""
    from hpo.experiment import steering

    found = load_named(settings, name)
    check(found)
    seen: int | None = None
    if not yes:
        order = steering.order_of(found)
        seen = order.last_id
        now = "" if order.halt is None else f" (it was {order.last})"
        if not typer.confirm(f"{question}{now}?", err=True):
            raise ExperimentError("nothing was changed")
    done = action(found, seen)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    show(done.message)
    if done.needs_workers and not done.alive:
        with_trainers = dataclasses.replace(settings, trainers=settings.trainers or found.trainer_modules)
        show(
            f"no worker is alive; this starts some, as the same launch does:\n  "
            f"{command_for(with_trainers, 'retry', name)}"
        )
