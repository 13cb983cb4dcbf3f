"""The commands, each as thin as its Python call. Nothing heavy is imported before a command needs it."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hpo.cli.compare import compare
from hpo.cli.dashboard import dashboard
from hpo.cli.doctor import doctor
from hpo.cli.guessed import Commands
from hpo.cli.import_trials import import_trials
from hpo.cli.init import init
from hpo.cli.launch import launch, worker
from hpo.cli.logs import logs
from hpo.cli.manifest import manifest
from hpo.cli.options import (
    CheckpointOption,
    DataOption,
    HomeOption,
    StorageOption,
    TrainersOption,
)
from hpo.cli.parts import list_parts
from hpo.cli.retry import retry
from hpo.cli.server import server
from hpo.cli.show import show_trial, workers
from hpo.cli.status import status
from hpo.cli.steer import enqueue, extend, pause, prune, resume, stop
from hpo.cli.support import load_named, open_storage_of, runs_note, show
from hpo.cli.train import train
from hpo.errors import ExperimentError, ExperimentStoppedError, HPOError

app = typer.Typer(
    name="hpo",
    cls=Commands,
    help="Hyperparameter optimization: exact budgets, many trials at once, comparisons that hold.",
    no_args_is_help=True,
    add_completion=True,  # hpo --show-completion, --install-completion
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help without rich takes two thirds of the time
    context_settings={"auto_envvar_prefix": "HPO", "help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.command()(init)
app.command()(launch)


app.command()(status)


@app.command()
def export(
    experiment: Annotated[str, typer.Argument(help="The experiment.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", envvar="HPO_OUTPUT", help="File to write; standard output without it."),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option("--sampler", envvar="HPO_SAMPLER", help="The best of this sampler.", show_default="of all"),
    ] = None,
    top: Annotated[int, typer.Option("--top", envvar="HPO_TOP", help="The best K, each in a file of its own.")] = 1,
    pareto: Annotated[
        bool,
        typer.Option(
            "--pareto", envvar="HPO_PARETO", help="With two metrics: the Pareto front, each in a file of its own."
        ),
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            envvar="HPO_FORMAT",
            help="toml or json: a file to train; of a program also args, its command line, and yaml or json, its "
            "values.",
            show_default="by the file's ending, else toml",
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", envvar="HPO_MODEL", help="File to write the best trial's model to.")
    ] = None,
    storage: StorageOption = None,
    home: HomeOption = None,
    data_dir: DataOption = None,
    trainers: TrainersOption = None,
    checkpoint_dir: CheckpointOption = None,
) -> None:
    """Write the best configuration as a file that trains again to the same result, or the best trial's model."""
    from hpo.loaded_experiment import LoadedExperiment
    from hpo.settings import Settings

    settings = Settings.given(
        storage=storage, home=home, trainers=trainers, data_dir=data_dir, checkpoint_dir=checkpoint_dir
    )
    loaded = LoadedExperiment(load_named(settings, experiment), settings)
    if model is not None:
        best = loaded.export_model(model, sampler=sampler)
        show(f"{model}: the model of trial {best.number} of {best.study}, {best.value:.6g}")
    if output is None and model is not None:
        return
    if output is None:
        sys.stdout.write("\n".join(loaded.exported_texts(sampler=sampler, top=top, form=form or "toml", pareto=pareto)))
        return
    for path, best in loaded.export(output, sampler=sampler, top=top, form=form, pareto=pareto):
        second = "" if best.second is None else f", {best.second:.6g}"
        show(
            f"{path}: {best.value:.6g}{second} by {best.sampler}, trial {best.number} of {best.study}{runs_note(best)}"
        )


app.command()(train)
app.command()(logs)


app.command("list")(list_parts)


@app.command()
def delete(
    experiment: Annotated[str, typer.Argument(help="The experiment.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", envvar="HPO_YES", help="Do not ask.")] = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    trainers: TrainersOption = None,
    checkpoint_dir: CheckpointOption = None,
) -> None:
    """Delete an experiment: its studies, checkpoints and artifacts."""
    from hpo.experiment.deletion import contents, delete_experiment
    from hpo.settings import Settings

    settings = Settings.given(storage=storage, home=home, trainers=trainers, checkpoint_dir=checkpoint_dir)
    found = contents(open_storage_of(settings), experiment)
    by_hand = f" ({found.num_imported} added by hand)" if found.num_imported else ""
    question = f"delete {experiment!r} with {len(found.study_ids)} studies and {found.num_trials} trials{by_hand}?"
    if not yes and not typer.confirm(question, err=True):
        raise ExperimentError("nothing was deleted")
    for host, count in delete_experiment(found, settings).items():
        where = f"on the machine {host}" if host else "on the machine of the worker that made them"
        show(f"{count} artifacts are not here: they lie in the home of hpo {where}")
    show(f"deleted {experiment!r}")


app.command("import")(import_trials)
app.command()(worker)
app.command()(retry)
app.command()(stop)
app.command()(pause)
app.command()(resume)
app.command()(prune)
app.command()(extend)
app.command()(enqueue)
app.command("show")(show_trial)
app.command()(workers)
app.command()(compare)
app.command()(dashboard)
app.command()(doctor)
app.command()(server)
app.command()(manifest)


def _hide_password_from_process_list() -> None:
    """An address given as an argument shows in ``ps``: the process then gets a title in which it is masked."""
    if any("://" in argument for argument in sys.argv[1:]):
        import setproctitle

        setproctitle.setproctitle(" ".join(_shown_arguments()))


def _shown_arguments() -> list[str]:
    """The command of this process, ready for a shell, with the passwords of addresses masked."""
    from hpo.database.address import masked

    def shown(argument: str) -> str:
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        return option + equals + (masked(value) if "://" in value else value)

    return ["hpo", *(shlex.quote(shown(argument)) for argument in sys.argv[1:])]


def main() -> NoReturn:
    """Runs the command line; expected failures are one message and an exit code, surprises keep their traceback."""
    from hpo.trainers.errors import Infeasible, ProgramError, TrainerError

    code: Any
    _hide_password_from_process_list()
    try:
        app(standalone_mode=True)
        code = 0
    except SystemExit as ended:
        # Typer ends the process itself, with 1 where the reader of the output has closed the pipe.
        code = _pipe_closed() if isinstance(ended.__context__, BrokenPipeError) else ended.code
    except ExperimentStoppedError as error:
        print(error, file=sys.stderr)  # what a person wanted is no error, and the experiment is not finished
        code = error.exit_code
    except HPOError as error:
        code = _failed(str(error), error.exit_code)
        if modules := getattr(error, "modules", ""):
            print(f"  {' '.join(_shown_arguments())} --trainers {shlex.quote(modules)}", file=sys.stderr)
    except TrainerError as error:
        code = _failed(str(error), 2)
    except ProgramError as error:
        code = _failed(str(error), 1)
    except Infeasible as error:
        code = _failed(f"this configuration is infeasible: {error.reason}", 1)
    except Exception as error:
        if (message := _database_message(error)) is None:
            raise
        code = _failed(message, 1)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _pipe_closed()
    raise SystemExit(code)


def _failed(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _pipe_closed() -> int:
    """Whoever read the output has seen enough, as ``head`` does: no failure. What is left is written to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _database_message(error: Exception) -> str | None:
    """One line for an error of the database; None for any other error."""
    if "sqlalchemy" not in sys.modules:
        return None
    import optuna
    import sqlalchemy as sa

    from hpo.database.explain import explained

    if isinstance(error, sa.exc.DBAPIError | sa.exc.TimeoutError | optuna.exceptions.StorageInternalError):
        return f"{explained(error, 'the given address')}; the same command can be given again"
    return None


if __name__ == "__main__":
    main()
