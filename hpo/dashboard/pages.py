"""Our pages under ``/hpo/``: the list of experiments, styles and scripts, and the routes of the other pages.

An experiment's page is in ``experiment_pages.py``, the login in ``login_pages.py``; each brings its ``routes``.
"""

import functools
import gzip
import json
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import bottle  # type: ignore[import-untyped]
import sqlalchemy as sa

from hpo.compare.render import plotly_script, static_text
from hpo.dashboard import web
from hpo.dashboard.experiment_pages import ExperimentPages, Exporter
from hpo.dashboard.guard import PREFIX, Access
from hpo.dashboard.live import Live
from hpo.dashboard.login_pages import LoginPages
from hpo.dashboard.steering import SteeringPages
from hpo.dashboard.trial_page import TrialPage
from hpo.dashboard.trials import TrialsPages
from hpo.dashboard.workers import WorkersPage
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.errors import ExperimentError, HPOError, StorageError
from hpo.settings import Settings

OWN_STATIC = {
    "live.js": "text/javascript",
    "lazy.js": "text/javascript",
    "list.js": "text/javascript",
    "page.css": "text/css",
    "trials.css": "text/css",
    "optuna.css": "text/css",
}
STATIC = {"app.css": "text/css", "figures.js": "text/javascript", "theme.js": "text/javascript"}
OPTUNA_STUDY = re.compile(r"/dashboard/studies/(\d{1,18})(/.*)?")


class Pages:
    """The bottle application of our pages."""

    def __init__(self, live: Live, access: Access, export: Exporter, storage: Storage, settings: Settings) -> None:
        self._live, self._access = live, access
        self.app = bottle.Bottle()
        routes: list[tuple[str, str, Callable[..., Any]]] = [
            ("/", "GET", self.index),
            ("/from-optuna", "GET", self.from_optuna),
            ("/static/<name>", "GET", self.static),
            ("/api/experiments", "GET", self.api_experiments),
            *ExperimentPages(live, access, export).routes,
            *LoginPages(access).routes,
            *TrialsPages(storage, access).routes,
            *TrialPage(storage, access, settings).routes,
            *WorkersPage(storage, access).routes,
            *SteeringPages(storage, access, settings).routes,
        ]
        for path, method, view in routes:
            self.app.route(PREFIX + path, method, self._guarded(view, as_json=path.startswith("/api/")))
        self.app.route(PREFIX, "GET", lambda: bottle.redirect(f"{PREFIX}/", 302))
        self.app.error_handler.update({404: self._not_found, 405: self._not_found, 500: self._broken})

    def _guarded(self, view: Callable[..., Any], as_json: bool) -> Callable[..., Any]:
        """Turns expected failures into an answer that says what is wrong."""

        @functools.wraps(view)
        def answer(**arguments: str) -> Any:
            try:
                return view(**arguments)
            except HPOError as error:
                code = 503 if isinstance(error, StorageError) else 404 if isinstance(error, ExperimentError) else 400
                if as_json:
                    return bottle.HTTPResponse(
                        json.dumps({"error": str(error)}), code, {"Content-Type": "application/json"}
                    )
                return bottle.HTTPResponse(self._problem(code, str(error)), code)

        return answer

    def _problem(self, code: int, message: str) -> str:
        titles = {404: "Not found", 503: "The database cannot be reached", 400: "This does not work"}
        title = titles.get(code, "Something went wrong")
        return web.page("problem.html", self._access, title=title, message=message, retry=code == 503)

    def _not_found(self, error: Any) -> str:
        return self._problem(404, "There is no such page.")

    def _broken(self, error: Any) -> str:
        return self._problem(500, "The server's log has the details.")

    def index(self) -> str:
        token, rows = self._live.experiments()
        return web.page(
            "experiments.html",
            self._access,
            rows=rows,
            link=web.experiment_link,
            token=token,
            live_url=f"{PREFIX}/api/experiments?",
            is_live=_is_any_running(rows),
        )

    def api_experiments(self) -> bytes | str:
        token, rows = self._live.experiments()
        is_live = _is_any_running(rows)
        if token == bottle.request.query.have:
            return web.as_json({"token": token, "unchanged": True, "live": is_live})
        template = web.templates().get_template("experiment_rows.html")
        html = template.render(rows=rows, link=web.experiment_link, prefix=PREFIX)
        return web.as_json({"token": token, "shape": "", "sections": {"experiments": html}, "live": is_live})

    def from_optuna(self) -> Any:
        """Redirects from a page of Optuna's, which the Referer header names, to the page of its experiment."""
        path = urlsplit(bottle.request.get_header("Referer", "")).path
        match = OPTUNA_STUDY.fullmatch(path)
        name = None if match is None else self._experiment_of(int(match[1]))
        return bottle.redirect(f"{PREFIX}/" if name is None else web.experiment_link(name), 303)

    def _experiment_of(self, study_id: int) -> str | None:
        query = (
            "SELECT value_json FROM study_user_attributes JOIN hpo_studies USING (study_id) "
            "WHERE study_id = :s AND key = :key"
        )
        parameters = {"s": study_id, "key": attributes.EXPERIMENT}

        def read() -> Any:
            with self._live.engine.connect() as connection:
                return connection.execute(sa.text(query), parameters).scalar()

        found = self._live.read(read)
        return None if found is None else str(json.loads(found))

    def static(self, name: str) -> bytes | str:
        if name == "plotly.js":
            content, packed, kind = plotly_script(), _packed_plotly(), "text/javascript"
        elif name in STATIC:
            content, packed, kind = static_text(name), None, STATIC[name]
        elif name in OWN_STATIC:
            content, packed, kind = _own_text(name), None, OWN_STATIC[name]
        else:
            raise bottle.HTTPError(404)
        bottle.response.content_type = f"{kind}; charset=utf-8"
        bottle.response.set_header("Cache-Control", "public, max-age=31536000, immutable" if packed else "no-cache")
        return content if packed is None else web.compressed(packed, content)


def _is_any_running(rows: Any) -> bool:
    return any(row.state == "running" for row in rows)


@functools.cache
def _packed_plotly() -> bytes:
    return gzip.compress(plotly_script().encode(), 6)


@functools.cache
def _own_text(name: str) -> str:
    return (files("hpo.dashboard") / "templates" / name).read_text(encoding="utf-8")
