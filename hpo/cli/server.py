"""``hpo server``: the embedded Postgres for workers on other machines, until Ctrl-C.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from typing import Annotated

import typer

from hpo.cli.options import HomeOption, JsonOption

CHECK_SECONDS = 1.0


def server(
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            envvar="HPO_SERVER_HOST",
            help="Name or address by which the other machines reach this one.",
            show_default="this machine's name",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", envvar="HPO_SERVER_PORT", min=1, max=65535, help="TCP port.", show_default="that of before"
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the database of a home to workers on other machines, over TCP with a password, until Ctrl-C."""
    import shlex
    import signal
    import sys
    import time

    import sqlalchemy as sa

    from hpo.cli.support import print_json
    from hpo.database.address import masked, serve_database
    from hpo.database.retrying import persistently
    from hpo.database.served import FILE, address_file
    from hpo.database.storage import open_storage
    from hpo.settings import Settings

    settings = Settings.given(home=home, storage="embedded")
    url = serve_database(settings, host, port)
    # The role of the workers makes no tables.
    storage = open_storage(settings.storage, home=settings.home)
    path = address_file(settings.home_path.resolve())
    shown = masked(url.render_as_string(hide_password=False))
    if as_json:
        print_json({"address": shown, "file": str(path)}, indent=None)
    else:
        print(f"database: {shown}  (Ctrl-C ends it)")
        print(f"workers:  HPO_STORAGE={shlex.quote(f'{FILE}{path}')} hpo worker EXPERIMENT", flush=True)
    sys.stdout.flush()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))

    def answer() -> None:
        with storage.engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))

    while True:
        # A new connection each time: making one starts a server that is gone again.
        persistently(answer)
        storage.engine.dispose()
        time.sleep(CHECK_SECONDS)
