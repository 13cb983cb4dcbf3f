"""``hpo init``: a first study file, with comments.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import TrainersOption
from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.firstfile.draft import Draft


def init(
    command: Annotated[
        list[str] | None,
        typer.Argument(help="A program and its arguments, such as python train.py; its --help is read."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            envvar="HPO_FROM",
            help="Another tool's file: a W&B sweep, Katib, Hydra's Optuna sweeper, Ray Tune or Optuna as JSON.",
        ),
    ] = None,
    trainer: Annotated[
        str | None, typer.Option("--trainer", envvar="HPO_TRAINER", help="A trainer of yours, or classifier.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", envvar="HPO_DATASET", help="Of the classifier: its data set.")
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", envvar="HPO_NETWORK", help="Of the classifier: its network.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            envvar="HPO_OUTPUT",
            help="File to write; standard output for -.",
            show_default="study.toml",
        ),
    ] = None,
    trainers: TrainersOption = None,
) -> None:
    """Write a first study file: for your trainer, the classifier, a program, or from another tool's file."""
    from hpo.firstfile.draft import text
    from hpo.studyfile.load import parse_study_file
    from hpo.trainers.loading import load_trainers

    load_trainers(trainers or "")
    draft = _draft(command or [], source, trainer, dataset, network)
    content = text(draft)
    import tomllib

    # What is wrong in it belongs to the person who has to mend it: the file is written all the same.
    problem = ""
    try:
        parse_study_file(tomllib.loads(content), "the file")
    except UsageError as error:
        problem = str(error)
    if str(output) == "-":
        sys.stdout.write(content)
    else:
        path = output or Path("study.toml")
        if path.exists():
            raise UsageError(f"{path} exists; name another file with --output, or - for standard output")
        path.write_text(content, encoding="utf-8")
        modules = f" --trainers {shlex.quote(trainers)}" if trainers else ""
        print(f"written: {path}\n  hpo launch {shlex.quote(str(path))}{modules}")
    for note in draft.notes:
        print(f"check: {note}", file=sys.stderr)
    if problem:
        print(f"before it can be launched: {problem}", file=sys.stderr)


def _draft(
    command: list[str], source: Path | None, trainer: str | None, dataset: str | None, network: str | None
) -> "Draft":
    if sum((bool(command), source is not None, trainer is not None or dataset is not None or network is not None)) > 1:
        raise UsageError("give one of a program, --from, and --trainer or --dataset and --network")
    if source is not None:
        from hpo.firstfile.convert import convert

        return convert(source)
    if command:
        from hpo.firstfile import program

        return program.draft_for(command)
    if dataset is not None or network is not None or trainer == "classifier":
        from hpo.firstfile import classifier

        return classifier.draft_for(dataset or "digits", network or "mlp")
    from hpo.firstfile.trainer import chosen_trainer, draft_for

    return draft_for(chosen_trainer(trainer))
