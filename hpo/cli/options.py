"""The options that several commands share, each with its environment variable.

An option that is not given is None (or false): :class:`hpo.settings.Settings` has the defaults.
"""

from pathlib import Path
from typing import Annotated

import typer

StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="HPO_STORAGE",
        metavar="ADDRESS",
        help="Postgres: postgresql://user:password@host/database. Without it, the embedded server.",
    ),
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        envvar="HPO_HOME",
        help="Folder of the embedded server, checkpoints, artifacts and logs.",
        show_default="the user's data folder",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="HPO_DATA", help="Folder with the data sets, as torchvision lays it out."),
]
TrainersOption = Annotated[
    str | None,
    typer.Option(
        "--trainers",
        envvar="HPO_TRAINERS",
        metavar="MODULES",
        help="Modules (or .py files) with your own trainers, separated by commas.",
    ),
]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint-dir",
        envvar="HPO_CHECKPOINT_DIR",
        help="Folder of the checkpoints, shared between machines; or an fsspec address such as s3://bucket/folder.",
    ),
]
DownloadOption = Annotated[
    bool, typer.Option("--download", envvar="HPO_DOWNLOAD", help="Download a data set that is absent.")
]
HeartbeatOption = Annotated[
    float | None,
    typer.Option(
        "--heartbeat-seconds",
        envvar="HPO_HEARTBEAT_SECONDS",
        help="Seconds between two heartbeats of a worker.",
        show_default="5",
    ),
]
GraceOption = Annotated[
    float | None,
    typer.Option(
        "--grace-seconds",
        envvar="HPO_GRACE_SECONDS",
        help="Seconds without a heartbeat after which a worker's trials go to others.",
        show_default="30",
    ),
]
MemoryOption = Annotated[
    int | None,
    typer.Option("--memory-limit-mb", envvar="HPO_MEMORY_LIMIT_MB", help="A worker that grows past this is replaced."),
]
SlotsOption = Annotated[
    int | None,
    typer.Option(
        "--slots",
        envvar="HPO_SLOTS",
        help="Trials that a worker trains at once.",
        show_default="the study file's, or measured",
    ),
]
ServeOption = Annotated[
    bool,
    typer.Option(
        "--serve",
        envvar="HPO_SERVE",
        help="Open the embedded server to workers on other machines: TCP, with a password in a file of the home.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", envvar="HPO_JSON", help="Print JSON, for machines.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", envvar="HPO_VERBOSE", help="A row for each repeat, not for each sampler.")
]
