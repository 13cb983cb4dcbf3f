"""The options that several commands share, each with its environment variable."""

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
    str,
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
    float,
    typer.Option(
        "--heartbeat-seconds", envvar="HPO_HEARTBEAT_SECONDS", min=0.1, help="How often a worker shows that it lives."
    ),
]
GraceOption = Annotated[
    float,
    typer.Option(
        "--grace-seconds",
        envvar="HPO_GRACE_SECONDS",
        min=0.5,
        help="After how long the trials of a silent worker go to others.",
    ),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory-limit-mb", envvar="HPO_MEMORY_LIMIT_MB", min=1, help="A worker that grows past this is replaced."
    ),
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
JsonOption = Annotated[bool, typer.Option("--json", envvar="HPO_JSON", help="Print JSON, for machines.")]
