"""``hpo import``: finished trials of elsewhere as knowledge for an experiment's samplers.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from typing import Annotated

import typer

from hpo.cli.options import HomeOption, JsonOption, StorageOption, TrainersOption
from hpo.cli.support import print_json, show


def import_trials(
    source: Annotated[str, typer.Argument(help="A CSV file with finished trials, or an earlier experiment.")],
    into: Annotated[
        str,
        typer.Option(
            "--into",
            envvar="HPO_IMPORT_INTO",
            metavar="TARGET",
            help="The experiment whose samplers are to know them; or a study file, of which the experiment is made.",
        ),
    ],
    storage: StorageOption = None,
    home: HomeOption = None,
    trainers: TrainersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an experiment's samplers know finished trials of elsewhere; they cost no budget and are no result."""
    from hpo import verbs
    from hpo.settings import Settings

    settings = Settings.given(storage=storage, home=home, trainers=trainers)
    line = verbs.import_trials(source, into, settings=settings)
    if as_json:
        print_json({"event": line})
    else:
        show(line)
