"""Our pages under ``/hpo/``: the experiments, an experiment's comparison, its best configurations, the login."""

import functools
import gzip
import json
import shlex
from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import bottle  # type: ignore[import-untyped]

from hpo import strict_json
from hpo.compare import figures, tables
from hpo.compare.output import dumps
from hpo.compare.render import environment, experiment_view, plotly_script, static_text
from hpo.dashboard.guard import PREFIX, Access, cookie_header, session_cookie
from hpo.dashboard.live import Current, Live
from hpo.errors import ExperimentError, HPOError, StorageError, UsageError

# Writes the best configuration of an experiment: (experiment, sampler, "toml" or "json") -> text.
Exporter = Callable[[str, str, str], str]
MOST_FAILURES = 20
FORMATS = {"toml": "application/toml", "json": "application/json"}
OWN_STATIC = {"app.js": "text/javascript", "optuna.css": "text/css"}
STATIC = {"app.css": "text/css", "figures.js": "text/javascript", "theme.js": "text/javascript"}


class Pages:
    """The bottle application of our pages."""

    def __init__(self, live: Live, access: Access, export: Exporter) -> None:
        self._live, self._access, self._export = live, access, export
        self._payloads: dict[str, tuple[str, bytes, str]] = {}
        self.app = bottle.Bottle()
        for path, method, view in (
            ("/", "GET", self.index),
            ("/experiment", "GET", self.experiment),
            ("/best", "GET", self.best),
            ("/login", "GET", self.login_page),
            ("/login", "POST", self.log_in),
            ("/logout", "POST", self.log_out),
            ("/static/<name>", "GET", self.static),
            ("/api/experiments", "GET", self.api_experiments),
            ("/api/experiment", "GET", self.api_experiment),
            ("/api/comparison", "GET", self.api_comparison),
        ):
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
        return self._page("problem.html", title=title, message=message, retry=code == 503)

    def _not_found(self, error: Any) -> str:
        return self._problem(404, "There is no such page.")

    def _broken(self, error: Any) -> str:
        return self._problem(500, "The server's log has the details.")

    def _page(self, template: str, **values: Any) -> str:
        bottle.response.content_type = "text/html; charset=utf-8"
        values = {"prefix": PREFIX, "access": self._access, "live_url": None, "token": "", **values}
        return environment().get_template(template).render(**values)

    # The experiments.

    def index(self) -> str:
        token, rows = self._live.experiments()
        return self._page(
            "experiments.html", rows=rows, link=experiment_link, token=token, live_url=f"{PREFIX}/api/experiments?"
        )

    def api_experiments(self) -> str:
        token, rows = self._live.experiments()
        if token == bottle.request.query.have:
            return _json({"token": token, "unchanged": True})
        html = environment().get_template("experiment_rows.html").render(rows=rows, link=experiment_link, prefix=PREFIX)
        return _json({"token": token, "shape": "", "sections": {"experiments": html}, "figures": {}, "live": True})

    # One experiment.

    def experiment(self) -> str:
        name = bottle.request.query.name
        current = self._live.comparison(name)
        query = urlencode({"name": name})
        return self._page(
            "experiment.html",
            token="",
            shape=_shape(current),
            live_url=f"{PREFIX}/api/experiment?{query}&",
            query=query,
            **_values(current),
        )

    def api_experiment(self) -> str | bytes:
        name = bottle.request.query.name
        current = self._live.comparison(name)
        if current.token == bottle.request.query.have:
            return _json({"token": current.token, "unchanged": True})
        bottle.response.content_type = "application/json"
        known = self._payloads.get(name)
        if known is None or known[0] != current.token:
            content = {
                "token": current.token,
                "shape": _shape(current),
                "figures": figures.all_figures(current.comparison),
                "sections": _sections(current),
                "live": not current.comparison.finished,
            }
            text = strict_json.dumps(content)
            known = current.token, gzip.compress(text.encode(), 5), text
            self._payloads[name] = known
        return _compressed(known[1], known[2])

    def api_comparison(self) -> str:
        current = self._live.comparison(bottle.request.query.name)
        bottle.response.content_type = "application/json"
        bottle.response.set_header(
            "Content-Disposition", _attachment(f"{current.comparison.experiment}-comparison.json")
        )
        return dumps(current.comparison)

    def best(self) -> str:
        query = bottle.request.query
        form = query.format or "toml"
        if form not in FORMATS:
            raise UsageError(f"There is no format {form!r}: toml or json.")
        text = self._export(query.name, query.sampler, form)
        bottle.response.content_type = f"{FORMATS[form]}; charset=utf-8"
        bottle.response.set_header("Content-Disposition", _attachment(f"{query.name}-{query.sampler}-best.{form}"))
        return text

    # Who is here.

    def login_page(self, message: str = "") -> Any:
        wanted = local_path(bottle.request.query.next or bottle.request.forms.next)
        if self._access.login is None or self._is_logged_in():
            return bottle.redirect(wanted, 303)
        return self._page("login.html", message=message, wanted=wanted)

    def log_in(self) -> Any:
        login, address = self._access.login, str(bottle.request.remote_addr)
        wanted = local_path(bottle.request.forms.next)
        if login is None:
            return bottle.redirect(wanted, 303)
        wait = login.tries.begin(address)
        if wait > 0:
            bottle.response.status = 429
            bottle.response.set_header("Retry-After", str(int(wait) + 1))
            return self.login_page(f"Too many wrong passwords: try again in {int(wait / 60) + 1} minutes.")
        if not login.matches(bottle.request.forms.password):
            bottle.response.status = 403
            return self.login_page("That is not the password.")
        login.tries.forgive(address)
        headers = {"Location": wanted, "Set-Cookie": cookie_header(login.open_session(), self._access)}
        return bottle.HTTPResponse("", 303, headers)

    def log_out(self) -> Any:
        cookie = session_cookie(bottle.request.environ, self._access)
        if self._access.login is not None and cookie is not None:
            self._access.login.end_session(cookie)
        headers = {"Location": f"{PREFIX}/login", "Set-Cookie": cookie_header("", self._access)}
        return bottle.HTTPResponse("", 303, headers)

    def _is_logged_in(self) -> bool:
        login = self._access.login
        return login is not None and login.is_open(session_cookie(bottle.request.environ, self._access))

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
        return content if packed is None else _compressed(packed, content)


@functools.cache
def _packed_plotly() -> bytes:
    return gzip.compress(plotly_script().encode(), 6)


@functools.cache
def _own_text(name: str) -> str:
    return (files("hpo.dashboard") / "templates" / name).read_text(encoding="utf-8")


def _compressed(packed: bytes, text: str) -> bytes | str:
    bottle.response.set_header("Vary", "Accept-Encoding")
    if "gzip" not in bottle.request.get_header("Accept-Encoding", ""):
        return text
    bottle.response.set_header("Content-Encoding", "gzip")
    return packed


def _json(content: dict[str, Any]) -> str:
    bottle.response.content_type = "application/json"
    return strict_json.dumps(content)


def experiment_link(name: str) -> str:
    return f"{PREFIX}/experiment?{urlencode({'name': name})}"


def local_path(wanted: str) -> str:
    """Where to go after the login: a path of this server, never another site's address."""
    parts = urlsplit(wanted) if wanted and "\\" not in wanted and wanted.isprintable() else None
    if parts is None or parts.scheme or parts.netloc or not wanted.startswith("/") or wanted.startswith("//"):
        return f"{PREFIX}/"
    return quote(wanted, safe="/?&=%+,:;@!$'()*~-._")


def _attachment(name: str) -> str:
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name.replace('/', '_'), safe='')}"


def _values(current: Current) -> dict[str, Any]:
    """What the templates of an experiment need."""
    return {
        "view": experiment_view(current.comparison),
        "study_rows": _study_table(current),
        "ids": ",".join(str(entry.study_id) for entry in current.entries),
        "sampler_ids": {
            name: ",".join(map(str, sampler.study_ids)) for name, sampler in current.comparison.samplers.items()
        },
        "failures": _failures(current),
        "more_failures": max(0, len(current.failed) - MOST_FAILURES),
        "retry": shlex.join(["hpo", "retry", current.comparison.experiment]),
        "prefix": PREFIX,
        "export_query": lambda sampler, form: urlencode(
            {"name": current.comparison.experiment, "sampler": sampler, "format": form}
        ),
    }


def _failures(current: Current) -> list[dict[str, Any]]:
    """The last failed lineages, with what a person wants to know of each."""
    return [
        {
            "study": study,
            "study_id": current.comparison.studies.get(study),
            "number": trial.number,
            "reason": trial.reason or "no reason was recorded",
            "log": trial.log or f"of the worker {trial.worker}",
        }
        for study, trial in current.failed[-MOST_FAILURES:]
    ]


def _study_table(current: Current) -> list[dict[str, Any]]:
    return [
        {
            "id": entry.study_id,
            "name": entry.name,
            "finished": entry.counts.states["complete"] + entry.counts.states["pruned"],
            "running": entry.counts.states["running"],
            "failed": entry.counts.states["failed"],
            "sampler": entry.sampler,
            "best": tables.text(entry.best),
        }
        for entry in current.entries
    ]


def _sections(current: Current) -> dict[str, str]:
    """The parts of an experiment's page that change, by their place."""
    module = environment().get_template("parts.html").make_module(_values(current))
    found: dict[str, str] = {}
    view = experiment_view(current.comparison)
    for figure in (view.curves, view.final, view.pairs, view.importance):
        if figure is not None:
            found[f"{figure.key}-table"] = "".join(str(module.table(t)) for t in figure.tables)  # type: ignore[attr-defined]
    found["cost"] = "".join(str(module.table(t)) for t in view.cost)  # type: ignore[attr-defined]
    for name in ("verdicts", "configs", "studies", "status", "failed"):
        found[name] = str(getattr(module, name)())
    return found


def _shape(current: Current) -> str:
    """Differs where the page needs other places than it has: it is then loaded anew."""
    drawn = "importance" if any(current.comparison.importance.values()) else ""
    again = "".join("r" for sampler in current.comparison.samplers.values() if sampler.retrained is not None)
    return "|".join([drawn, again, *current.comparison.samplers])
