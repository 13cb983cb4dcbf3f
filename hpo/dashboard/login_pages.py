"""The login's pages: the form, a try, the way out."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import bottle  # type: ignore[import-untyped]

from hpo.dashboard import web
from hpo.dashboard.guard import PREFIX, Access, cookie_header, session_cookie


class LoginPages:
    """The views of the login; ``routes`` lists them."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (
            ("/login", "GET", self.form),
            ("/login", "POST", self.log_in),
            ("/logout", "POST", self.log_out),
        )

    def form(self, message: str = "") -> Any:
        wanted = local_path(bottle.request.query.next or bottle.request.forms.next)
        if self._access.login is None or self._is_logged_in():
            return bottle.redirect(wanted, 303)
        if not message and bottle.request.query.expired == "1":
            message = "Your login had expired, so nothing was changed. Log in, and do it again."
        return web.page("login.html", self._access, message=message, wanted=wanted)

    def log_in(self) -> Any:
        login, address = self._access.login, str(bottle.request.remote_addr)
        wanted = local_path(bottle.request.forms.next)
        if login is None:
            return bottle.redirect(wanted, 303)
        wait = login.tries.begin(address)
        if wait > 0:
            bottle.response.status = 429
            bottle.response.set_header("Retry-After", str(int(wait) + 1))
            return self.form(f"Too many wrong passwords: try again in {int(wait / 60) + 1} minutes.")
        if not login.matches(bottle.request.forms.password):
            bottle.response.status = 403
            return self.form("That is not the password.")
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


def local_path(wanted: str) -> str:
    """Where to go after the login: a path of this server, never another site's address."""
    parts = urlsplit(wanted) if wanted and "\\" not in wanted and wanted.isprintable() else None
    if parts is None or parts.scheme or parts.netloc or not wanted.startswith("/") or wanted.startswith("//"):
        return f"{PREFIX}/"
    return quote(wanted, safe="/?&=%+,:;@!$'()*~-._")
