"""Puts the dashboard together and serves it with waitress, a production WSGI server of threads."""

import errno
import json
import os
import socket
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import bottle  # type: ignore[import-untyped]
import optuna_dashboard  # type: ignore[import-untyped]
import sqlalchemy as sa
import waitress  # type: ignore[import-untyped]
import waitress.wasyncore  # type: ignore[import-untyped]
from optuna.artifacts.exceptions import ArtifactNotFound

from hpo.compare.render import static_text
from hpo.dashboard import web
from hpo.dashboard.experiment_pages import Exporter
from hpo.dashboard.guard import PREFIX, Access, Guard, is_loopback
from hpo.dashboard.live import Live
from hpo.dashboard.login import Login
from hpo.dashboard.optuna_pages import OptunaPages
from hpo.dashboard.pages import Pages
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.errors import DashboardError
from hpo.files.artifacts import PREFIX as PREFIX_OF_ARTIFACTS
from hpo.files.artifacts import ArtifactFolder
from hpo.settings import Settings

THREADS = 8


class Artifacts(ArtifactFolder):
    """The artifacts that this machine can read; for another one, an answer that names the machine that has it."""

    def __init__(self, storage: Storage, *places: str | Path) -> None:
        super().__init__(*places)
        self._engine = storage.engine

    def open_reader(self, artifact_id: str) -> BinaryIO:
        try:
            return super().open_reader(artifact_id)
        except ArtifactNotFound:
            host = self._host(artifact_id)
            where = f"on the machine {host}, in the home of hpo there" if host else "on the machine of its worker"
            text = (
                f"Not found on this machine ({socket.gethostname()}): the file lies {where}, or was removed.\n"
                "Workers and dashboard that share a --checkpoint-dir (a folder or an address) share such files too.\n"
            )
            headers = {"Content-Type": "text/plain; charset=utf-8"}
            raise bottle.HTTPResponse(text, 404, headers) from None

    def _host(self, artifact_id: str) -> str:
        """The machine of the worker that attached it; "" if that is not recorded."""
        query = (
            "SELECT w.value_json FROM trial_system_attributes a JOIN trial_user_attributes w USING (trial_id) "
            "WHERE a.key = :key AND w.key = :worker LIMIT 1"
        )
        parameters = {"key": PREFIX_OF_ARTIFACTS + artifact_id, "worker": attributes.WORKER}
        with self._engine.connect() as connection:
            worker = connection.execute(sa.text(query), parameters).scalar()
        return "" if worker is None else str(json.loads(worker)).partition(":")[0]


def make_app(
    storage: Storage,
    artifacts: str | Path | Sequence[str | Path],
    access: Access,
    export: Exporter,
    settings: Settings | None = None,
) -> WSGIApplication:
    """Optuna's dashboard at ``/``, ours under ``/hpo/``, one guard before both.

    ``artifacts``: the folder or address of artifacts; of several, new ones go into the first.
    ``settings``: where logs and checkpoints are; the environment's without it.
    """
    live = Live(storage)
    places = [artifacts] if isinstance(artifacts, str | Path) else artifacts
    optuna_app: WSGIApplication = optuna_dashboard.wsgi(live.loader.storage, artifact_store=Artifacts(storage, *places))
    optuna_pages = OptunaPages(optuna_app, storage)
    our_app: WSGIApplication = Pages(live, access, export, storage, settings or Settings()).app
    web.templates(), static_text("app.css")

    def dispatch(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path in ("", "/"):
            start_response("302 Found", [("Location", f"{PREFIX}/"), ("Content-Length", "0")])
            return []
        ours = path == PREFIX or path.startswith(f"{PREFIX}/")
        return (our_app if ours else optuna_pages)(environ, start_response)

    return Guard(dispatch, access)


def make_access(
    host: str,
    *,
    password: str | None = None,
    read_only: bool = False,
    allowed_hosts: Iterable[str] = (),
    https: bool = False,
) -> Access:
    """Raises DashboardError if others could reach it without a login."""
    if password is not None and not password:
        raise DashboardError("the dashboard's password is empty: give one, or none at all")
    if password is None and not is_loopback(host):
        raise DashboardError(
            f"the dashboard would be open to everyone who reaches {host}: give it a password with "
            "HPO_DASHBOARD_PASSWORD or --password-file, or bind it to 127.0.0.1"
        )
    return Access(
        host=host,
        allowed_hosts=tuple(name for name in allowed_hosts if name),
        login=None if password is None else Login(password),
        read_only=read_only,
        https=https,
    )


class Server:
    """A bound server; ``run`` serves until ``close`` is called from elsewhere, or the process is interrupted."""

    def __init__(self, app: WSGIApplication, host: str, port: int) -> None:
        """Raises DashboardError for a port that is in use or an address that this machine does not have."""
        self._socket = bind(host, port)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"
        self._server = waitress.create_server(
            app, sockets=[self._socket], threads=THREADS, ident=None, clear_untrusted_proxy_headers=True
        )

    def run(self) -> None:
        self._server.run()

    def start(self) -> threading.Thread:
        """Serves in a thread, for tests and notebooks."""
        thread = threading.Thread(target=self.run, name="dashboard", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Ends ``run`` from another thread, once the requests at hand are answered.

        The loop closes its own sockets: if another thread did, the loop would wait on file descriptors that the
        process may already have given to another connection.
        """
        self._server.trigger.pull_trigger(self._end)

    def _end(self) -> None:
        self._server.task_dispatcher.shutdown()
        waitress.wasyncore.close_all(self._server._map)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket's address family follows the host's; see :class:`Server` for what it raises."""
    if not 0 <= port <= 65535:
        raise DashboardError(f"--port must be between 0 and 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise DashboardError(
                f"port {port} on {host} is in use: another dashboard? Choose one with --port"
            ) from None
        if error.errno == errno.EACCES:
            raise DashboardError(f"port {port} needs a privilege that this user lacks: choose one above 1023") from None
        raise DashboardError(f"the dashboard cannot listen on {host}, port {port}: {error.strerror or error}") from None
    return bound
