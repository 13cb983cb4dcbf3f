"""``hpo retry``: runs again what failed, once its cause is mended.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from typing import Annotated

import typer

from hpo.cli.options import (
    CheckpointOption,
    DataOption,
    DownloadOption,
    HomeOption,
    JsonOption,
    SlotsOption,
    StorageOption,
    TrainersOption,
)
from hpo.cli.support import end_interrupted, show_end


def retry(
    experiment: Annotated[str, typer.Argument(help="The experiment.")],
    workers: Annotated[
        int | None,
        typer.Option("--workers", envvar="HPO_WORKERS", help="Worker processes.", show_default="one a GPU, or a core"),
    ] = None,
    slots: SlotsOption = None,
    storage: StorageOption = None,
    home: HomeOption = None,
    data_dir: DataOption = None,
    trainers: TrainersOption = None,
    checkpoint_dir: CheckpointOption = None,
    download: DownloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the failed trials of an experiment again, on this machine."""
    from hpo import api
    from hpo.launchers.progress import choose_progress
    from hpo.launchers.registry import make_options
    from hpo.settings import Settings

    settings = Settings.given(
        storage=storage,
        home=home,
        data_dir=data_dir,
        trainers=trainers,
        checkpoint_dir=checkpoint_dir,
        download=download,
        slots=slots,
    )
    try:
        with choose_progress(as_json=as_json) as progress:
            loaded = api.retry(
                experiment, settings=settings, options=make_options("local", workers=workers), progress=progress
            )
    except KeyboardInterrupt:
        end_interrupted()
    if code := show_end(loaded, settings, as_json=as_json):
        raise SystemExit(code)
