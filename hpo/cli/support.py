"""What the commands have in common: opening what a person names, and showing what was found."""

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.database.storage import Storage
    from hpo.experiment.experiment import Experiment
    from hpo.settings import Settings


def open_storage_of(settings: "Settings") -> "Storage":
    """The storage that the settings name; raises StorageError with one line on why not."""
    from hpo.database.storage import open_storage

    return open_storage(settings.storage, home=settings.home)


def load_named(settings: "Settings", name: str) -> "Experiment":
    """The experiment of that name, its trainers imported; raises ExperimentError with the near miss."""
    from hpo.experiment.experiment import load_experiment
    from hpo.trainers.loading import load_trainers

    load_trainers(settings.trainers)
    return load_experiment(open_storage_of(settings), name)


def show(content: Any) -> None:
    """Prints a line, or a table as wide as it wants where nobody looks at a terminal."""
    from rich.console import Console

    if isinstance(content, str):
        print(content)
        return
    Console(width=None if sys.stdout.isatty() else 160).print(content)


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


def command_for(settings: "Settings", *words: str) -> str:
    """The command ``hpo WORDS`` as a shell takes it, with the options without which it would not find the same things.

    What the environment holds is left out; so is an address with a password, which is not printed.
    """
    from hpo.database.address import masked
    from hpo.settings import Settings

    own = Settings()
    takes_trainers = words[0] not in ("compare", "delete")
    options: list[str] = []
    if (
        settings.storage is not None
        and settings.storage != own.storage
        and masked(settings.storage) == settings.storage
    ):
        options += ["--storage", settings.storage]
    if settings.home is not None and settings.home != own.home:
        options += ["--home", str(settings.home)]
    if takes_trainers and settings.trainers != own.trainers:
        options += ["--trainers", settings.trainers]
    command, *arguments = words
    if any(argument.startswith("-") for argument in arguments[:1]):
        # Options first, so that nothing after it is taken for one.
        return shlex.join(["hpo", command, *arguments[1:], *options, "--", arguments[0]])
    return shlex.join(["hpo", command, *arguments, *options])
