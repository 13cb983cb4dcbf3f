"""``hpo status``: where an experiment stands, or, without a name, the table of experiments.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import CheckpointOption, HomeOption, JsonOption, StorageOption, TrainersOption, VerboseOption
from hpo.cli.support import (
    failure_lines,
    load_named,
    measures_line,
    open_storage_of,
    print_json,
    show,
    study_notes,
)

if TYPE_CHECKING:
    from hpo.settings import Settings


def status(
    experiment: Annotated[str | None, typer.Argument(help="The experiment; a table of all without it.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", envvar="HPO_WATCH", help="Go on showing it until it is finished.")
    ] = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    trainers: TrainersOption = None,
    checkpoint_dir: CheckpointOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show where an experiment stands, or, without a name, the table of experiments."""
    import time

    from hpo.database.retrying import persistently
    from hpo.experiment.status import is_finished, snapshot
    from hpo.launchers.progress import choose_progress, status_table
    from hpo.settings import Settings

    settings = Settings.given(storage=storage, home=home, trainers=trainers, checkpoint_dir=checkpoint_dir)
    if experiment is None:
        _show_experiments(settings, as_json=as_json)
        return
    found = load_named(settings, experiment)
    if watch:
        with choose_progress(as_json=as_json, verbose=verbose) as progress:
            while not is_finished(now := persistently(lambda: snapshot(found))):
                progress.update(now)
                time.sleep(1.0)
    now = persistently(lambda: snapshot(found, settings.checkpoints), lambda: not watch)
    if as_json:
        # After lines of JSON it is one more of them.
        print_json(now, indent=None if watch else 2)
        return
    show(status_table(now, verbose=verbose))
    for study in now["studies"]:
        for line in study_notes(study, verbose=verbose):
            show(line)
    if not verbose and (measures := measures_line(now)) is not None:
        show(measures)
    # The command that is printed needs the trainer's modules; this command does not.
    with_trainers = dataclasses.replace(settings, trainers=settings.trainers or found.trainer_modules)
    for line in failure_lines(now, with_trainers):
        show(line)
    if now["checkpoint_bytes"]:
        show(f"checkpoints: {now['checkpoint_bytes'] / 1e6:.1f} MB in {settings.checkpoints}")


def _show_experiments(settings: "Settings", *, as_json: bool) -> None:
    """Prints a row for each experiment; names give way on a narrow terminal, numbers never do."""
    from rich.table import Table
    from rich.text import Text

    from hpo.experiment.summaries import summaries
    from hpo.launchers.progress import format_seconds

    found = summaries(open_storage_of(settings))
    if as_json:
        print_json({"experiments": [one.name for one in found], "summaries": [one.as_dict() for one in found]})
        return
    if not found:
        show("no experiment yet: hpo launch STUDY_FILE starts one, hpo init writes a study file")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("experiment", overflow="ellipsis")
    for name in ("state", "trials", "failed", "best", "began", "took"):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for one in found:
        of = "" if one.num_trials is None else f"/{one.num_trials}"
        took = "-" if one.began is None or one.last is None else format_seconds((one.last - one.began).total_seconds())
        began = "-" if one.began is None else one.began.strftime("%m-%d %H:%M")
        best = "-" if one.best is None else f"{one.best:.6g}"
        cells = (one.name, one.state, f"{one.ended}{of}", str(one.failed), best, began, took)
        table.add_row(*map(Text, cells))
    show(table)
    show("one of them: hpo status EXPERIMENT, hpo compare EXPERIMENT; all in a browser: hpo dashboard")
