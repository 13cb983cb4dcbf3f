"""``hpo logs``: what a trial has written.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import sys
from typing import Annotated

import typer

from hpo.cli.options import CheckpointOption, HomeOption, StorageOption
from hpo.cli.support import load_named


def logs(
    experiment: Annotated[str, typer.Argument(help="The experiment.")],
    trial: Annotated[
        str, typer.Argument(help="The trial's number; SAMPLER/REPEAT/NUMBER if there are several studies.")
    ],
    raw: Annotated[bool, typer.Option("--raw", envvar="HPO_RAW", help="The bytes as they were written.")] = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    checkpoint_dir: CheckpointOption = None,
) -> None:
    """Print a trial's log: the output of a program, or what run.log was given."""
    from hpo.experiment.trial_log import trial_log
    from hpo.settings import Settings
    from hpo.trainers.trial_log import as_text

    settings = Settings.given(storage=storage, home=home, checkpoint_dir=checkpoint_dir)
    data = trial_log(load_named(settings, experiment), trial, settings)
    if raw:
        sys.stdout.buffer.write(data)
    else:
        text = as_text(data)
        sys.stdout.write(text if text.endswith("\n") or not text else f"{text}\n")
