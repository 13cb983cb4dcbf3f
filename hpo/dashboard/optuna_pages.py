"""Optuna's own pages and calls, as they are served here: two requests refused, a style sheet and a link added.

A study of an experiment cannot be renamed there: Optuna renames by copying it and deleting the original, and its
copy has neither our rows nor the workers' leases.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import sqlalchemy as sa

from hpo.dashboard.guard import PREFIX
from hpo.database.storage import Storage

RENAME = re.compile(r"/api/studies/(\d{1,18})/rename/?")
LINK = (
    f'<link rel="stylesheet" href="{PREFIX}/static/optuna.css">'
    f'<a id="hpo-back" href="{PREFIX}/from-optuna" title="The page of this experiment, or of all">\u2190 experiment</a>'
)
RENAMED = (
    "This study belongs to an experiment of hpo, whose workers, status and comparison find it by what it is: it is not "
    "renamed, because Optuna renames by copying the study and deleting the original. A note on the study can hold a "
    "name of your own, and another experiment can be launched under another name."
)


class OptunaPages:
    """WSGI middleware around Optuna's dashboard."""

    def __init__(self, app: WSGIApplication, storage: Storage) -> None:
        self._app, self._engine = app, storage.engine

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] == "POST" and (match := RENAME.fullmatch(path)) and self._is_ours(match[1]):
            body = json.dumps({"reason": RENAMED}).encode()
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
            start_response("409 Conflict", headers)
            return [body]
        if environ["REQUEST_METHOD"] == "GET" and (path == "/dashboard" or path.startswith("/dashboard/")):
            return self._page(environ, start_response)
        return self._app(environ, start_response)

    def _is_ours(self, study_id: str) -> bool:
        with self._engine.connect() as connection:
            found = connection.execute(sa.text("SELECT 1 FROM hpo_studies WHERE study_id = :s"), {"s": int(study_id)})
            return found.first() is not None

    def _page(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Optuna's page with our style sheet, which wraps long attributes, and a link to our pages."""
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def keep(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            started.append((status, headers))
            return lambda data: None

        # Whole, as the file is: an answer that the browser has kept, or a part of it, would lack what is added.
        dropped = ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_RANGE", "wsgi.file_wrapper")
        answer = self._app({key: value for key, value in environ.items() if key not in dropped}, keep)
        body = b"".join(answer)
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        status, headers = started[-1]
        is_html = any(name.lower() == "content-type" and value.startswith("text/html") for name, value in headers)
        if is_html and b"</body>" in body:
            body = body.replace(b"</body>", LINK.encode() + b"</body>", 1)
            changed = ("content-length", "last-modified", "etag", "accept-ranges")
            headers = [(name, value) for name, value in headers if name.lower() not in changed]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers)
        return [body]
