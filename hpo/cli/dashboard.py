"""``hpo dashboard``: Optuna's dashboard with the comparison beside it.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import CheckpointOption, DataOption, HomeOption, StorageOption, TrainersOption

if TYPE_CHECKING:
    from hpo.dashboard.experiment_pages import Exporter
    from hpo.database.storage import Storage
    from hpo.settings import Settings


def dashboard(
    host: Annotated[
        str,
        typer.Option(
            "--host", envvar="HPO_DASHBOARD_HOST", help="Address to listen on; beyond loopback needs a login."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", envvar="HPO_DASHBOARD_PORT", help="0: any free one.")] = 8080,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file",
            envvar="HPO_DASHBOARD_PASSWORD_FILE",
            help="File with the password; or set HPO_DASHBOARD_PASSWORD.",
        ),
    ] = None,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", envvar="HPO_DASHBOARD_READ_ONLY", help="Share a view: nothing can be changed."),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            envvar="HPO_DASHBOARD_ALLOWED_HOSTS",
            metavar="NAME",
            help="A further name under which it is reached; may be repeated.",
        ),
    ] = None,
    https: Annotated[
        bool,
        typer.Option(
            "--https", envvar="HPO_DASHBOARD_HTTPS", help="A proxy before it speaks HTTPS: cookies over HTTPS only."
        ),
    ] = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    data_dir: DataOption = None,
    trainers: TrainersOption = None,
    checkpoint_dir: CheckpointOption = None,
) -> None:
    """Serve Optuna's dashboard, and the comparison and the best configurations beside it."""
    import signal
    import sys

    from hpo.dashboard.server import THREADS, Server, make_access, make_app
    from hpo.database.storage import open_storage
    from hpo.settings import Settings

    access = make_access(
        host, password=password(password_file), read_only=read_only, allowed_hosts=allowed_host or (), https=https
    )
    settings = Settings.given(
        storage=storage, home=home, data_dir=data_dir, trainers=trainers, checkpoint_dir=checkpoint_dir
    )
    opened = open_storage(settings.storage, home=settings.home, connections=THREADS)
    server = Server(
        make_app(opened, settings.artifact_places, access, exporter(opened, settings), settings), host, port
    )
    # What `docker stop` sends: end as with Ctrl-C, so that the embedded server is let go of.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"dashboard: {server.url}  (Ctrl-C ends it)", flush=True)
    server.run()


def password(path: Path | None) -> str | None:
    """The password in the file, else in ``HPO_DASHBOARD_PASSWORD``; None for none.

    Raises:
        DashboardError: for a file that cannot be read or is empty.
    """
    import os

    from hpo.errors import DashboardError

    if path is None:
        return os.environ.get("HPO_DASHBOARD_PASSWORD") or None
    try:
        found = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DashboardError(f"the password file {path} cannot be read: {error}") from None
    if not found:
        raise DashboardError(f"the password file {path} is empty")
    return found


def exporter(storage: "Storage", settings: "Settings") -> "Exporter":
    """What writes a sampler's best configuration for the download, as ``hpo export --sampler`` does."""

    def export(experiment: str, sampler: str, form: str) -> str:
        from hpo.experiment.experiment import load_experiment
        from hpo.experiment.results import best_trials
        from hpo.export.files import as_text, exported, load_if_possible

        load_if_possible(settings.trainers)
        found = load_experiment(storage, experiment)
        return as_text(exported(found, best_trials(found, sampler or None)[0], settings), form)

    return export
