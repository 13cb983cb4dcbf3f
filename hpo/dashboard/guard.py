"""The guard before every request: it checks the host, the login and the origin, refuses changes if read-only, and sets
the security headers of every answer.

Optuna's dashboard has no login and takes a POST from any page on the web. It shares a server with our pages, so the
same guard protects both.
"""

import ipaddress
import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from hpo.dashboard.login import SESSION_SECONDS, Login

PREFIX = "/hpo"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
METHODS = SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE"}
WITHOUT_LOGIN = (f"{PREFIX}/login", f"{PREFIX}/static/", "/favicon.ico")
WHEN_READ_ONLY = (f"{PREFIX}/login", f"{PREFIX}/logout")

OUR_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Added to the policy that Optuna's pages bring; its parallel coordinates need unsafe-eval (WebGL).
OPTUNA_POLICY = "form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
ARTIFACT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"

# Types of artifacts that a browser may display. An SVG can hold scripts; the sandbox above keeps them from running.
SHOWN_TYPES = frozenset(
    {
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "image/avif",
        "image/bmp",
        "image/svg+xml",
        "text/plain",
        "text/csv",
        "application/json",
    }
)
SHOWN_FAMILIES = ("audio/", "video/", "model/")


@dataclass(frozen=True)
class Access:
    """Who may reach the dashboard and what they may do.

    Attributes:
        host: the address that it is bound to.
        allowed_hosts: further names by which it is reached, such as a proxy's.
        login: None if none is needed.
        read_only: whether changes are refused.
        https: whether browsers reach it through a proxy that speaks HTTPS; cookies and origins must then be of HTTPS.
    """

    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()
    login: Login | None = None
    read_only: bool = False
    https: bool = False
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = {"localhost", "127.0.0.1", "::1", self.host, *self.allowed_hosts}
        if not is_loopback(self.host):
            names |= {socket.gethostname(), socket.getfqdn()}
        object.__setattr__(self, "names", frozenset(name.lower().strip("[]") for name in names))

    @property
    def cookie(self) -> str:
        return "__Host-hpo-session" if self.https else "hpo-session"

    def knows_host(self, header: str) -> bool:
        """Whether a ``Host`` header names this server.

        Another site can point its own host name at this address and make a browser send requests here (DNS rebinding);
        ``Host`` then holds that name. An IP address cannot be redirected so, and any is accepted beyond loopback.
        """
        try:
            name = (urlsplit(f"//{header}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if not name or name in self.names:
            return bool(name)
        if is_loopback(self.host):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def knows_origin(self, origin: str, host: str) -> bool:
        """Whether an ``Origin`` (or ``Referer``) is a page of this server, reached as ``host``."""
        try:
            parts = urlsplit(origin)
            mine, theirs = urlsplit(f"//{host}"), (parts.hostname, parts.port or _PORTS.get(parts.scheme))
            expected = mine.hostname, mine.port or _PORTS["https" if self.https else "http"]
        except ValueError:
            return False
        return parts.scheme == ("https" if self.https else "http") and theirs == expected


_PORTS = {"http": 80, "https": 443}


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def session_cookie(environ: WSGIEnvironment, access: Access) -> str | None:
    try:
        morsel = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(access.cookie)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def cookie_header(value: str, access: Access) -> str:
    """``Set-Cookie`` for a session; an empty value deletes it."""
    age = SESSION_SECONDS if value else 0
    secure = "; Secure" if access.https else ""
    return f"{access.cookie}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"


class Guard:
    """WSGI middleware that calls ``app`` only for requests that pass the checks."""

    def __init__(self, app: WSGIApplication, access: Access) -> None:
        self._app = app
        self._access = access

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "") or "/"
        headers = self._headers(path)
        refusal = self._refusal(environ, path)
        if refusal is not None:
            status, extra, message = refusal
            return self._answer(environ, start_response, headers, status, extra, message)

        def with_headers(status: str, given: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            return start_response(status, _merged(path, given, headers), exc_info)

        return self._app(environ, with_headers)

    def _refusal(self, environ: WSGIEnvironment, path: str) -> tuple[str, list[tuple[str, str]], str] | None:
        access, method = self._access, environ["REQUEST_METHOD"]
        host = environ.get("HTTP_HOST", "")
        if not access.knows_host(host):
            return "421 Misdirected Request", [], "This server is not known by that name; start it with --allowed-host."
        if method not in METHODS:
            return "405 Method Not Allowed", [], "No such method."
        if method not in SAFE_METHODS:
            source = environ.get("HTTP_ORIGIN") or environ.get("HTTP_REFERER") or ""
            if not access.knows_origin(source, host):
                return "403 Forbidden", [], "A change must come from a page of this dashboard (its origin was checked)."
            if access.read_only and path not in WHEN_READ_ONLY:
                return "403 Forbidden", [], "This dashboard is shared read-only: nothing can be changed here."
        if access.login is None or path.startswith(WITHOUT_LOGIN):
            return None
        if access.login.is_open(session_cookie(environ, access)):
            return None
        if method == "GET" and "/api/" not in path:
            query = environ.get("QUERY_STRING", "")
            wanted = path.encode("latin-1").decode("utf-8", "replace") + (f"?{query}" if query else "")
            return "303 See Other", [("Location", f"{PREFIX}/login?next={quote(wanted, safe='')}")], "Log in first."
        referer = urlsplit(environ.get("HTTP_REFERER", ""))
        if path.startswith(f"{PREFIX}/") and "text/html" in environ.get("HTTP_ACCEPT", ""):
            # A form whose login had expired: nothing is changed, and the person comes back to its page.
            page = referer.path + (f"?{referer.query}" if referer.query else "")
            wanted = f"next={quote(page or PREFIX + '/', safe='')}&expired=1"
            return "303 See Other", [("Location", f"{PREFIX}/login?{wanted}")], "Log in first."
        return "401 Unauthorized", [], "Log in first."

    def _answer(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        headers: dict[str, str],
        status: str,
        extra: list[tuple[str, str]],
        message: str,
    ) -> Iterable[bytes]:
        body = json.dumps({"reason": message}).encode()
        content = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *extra]
        start_response(status, _merged("", content, headers))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _headers(self, path: str) -> dict[str, str]:
        headers = {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
            "Content-Security-Policy": ARTIFACT_POLICY if path.startswith("/artifacts/") else OUR_POLICY,
        }
        if self._access.https:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        return headers


def _merged(path: str, given: list[tuple[str, str]], ours: dict[str, str]) -> list[tuple[str, str]]:
    """The answer's headers: ours replace the application's; Optuna's pages keep their content policy, narrowed."""
    kept = [(name, value) for name, value in given if not name.lower().startswith("access-control-")]
    names = {name.lower(): value for name, value in kept}
    theirs = names.get("content-security-policy")
    if theirs is not None and path.startswith("/dashboard"):
        ours = {**ours, "Content-Security-Policy": f"{theirs}; {OPTUNA_POLICY}"}
    if path.startswith("/artifacts/"):
        shown, disposition = artifact_type(names.get("content-type", ""))
        ours = {**ours, "Content-Type": shown, "Content-Disposition": disposition}
    if "cache-control" not in names and "last-modified" not in names:
        ours = {**ours, "Cache-Control": "no-store"}
    replaced = {name.lower() for name in ours}
    return [(name, value) for name, value in kept if name.lower() not in replaced] + list(ours.items())


def artifact_type(declared: str) -> tuple[str, str]:
    """Content type and disposition of an artifact: displayed if that is harmless, else offered as a download.

    The declared type comes from the trial's code and is not trusted: HTML is sent as plain text.
    """
    kind = declared.partition(";")[0].strip().lower()
    if kind in SHOWN_TYPES or kind.startswith(SHOWN_FAMILIES):
        return (f"{kind}; charset=utf-8" if kind.startswith("text/") else kind), "inline"
    if kind.startswith("text/") or kind.endswith(("xml", "html", "javascript")):
        return "text/plain; charset=utf-8", "attachment"
    return "application/octet-stream", "attachment"
