"""What asks a dashboard over a socket, and the dashboard that is asked."""

import http.client
import json
from contextlib import closing
from urllib.parse import urlencode

import pytest

from hpo.cli.dashboard import exporter
from hpo.dashboard.server import Server, make_access, make_app
from hpo.settings import Settings


class Browser:
    """Asks a server over a socket and keeps its cookie; paths go out as they are."""

    def __init__(self, port: int) -> None:
        self.port, self.cookie = port, ""

    def ask(self, method, path, body=None, *, origin="same", host=None, headers=None):
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.putrequest(method, path, skip_host=True)
            name = f"127.0.0.1:{self.port}" if host is None else host
            if name:
                connection.putheader("Host", name)
            if origin == "same":
                origin = f"http://127.0.0.1:{self.port}"
            if origin and method not in ("GET", "HEAD"):
                connection.putheader("Origin", origin)
            if self.cookie:
                connection.putheader("Cookie", self.cookie)
            content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            given = {"Content-Type": "application/json", **(headers or {})}
            for key, value in given.items():
                connection.putheader(key, value)
            connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            answer = connection.getresponse()
            answer.content = answer.read()
            answer.text = answer.content.decode("utf-8", "replace")
            return answer

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def log_in(self, password, wanted="/hpo/"):
        form = urlencode({"password": password, "next": wanted}).encode()
        answer = self.ask("POST", "/hpo/login", form, headers={"Content-Type": "application/x-www-form-urlencoded"})
        cookie = answer.getheader("Set-Cookie")
        if answer.status == 303 and cookie:
            self.cookie = cookie.partition(";")[0]
        return answer


@pytest.fixture(name="serve")
def serve_fixture(storage, tmp_path):
    """Starts a dashboard on the test's database; returns what asks it."""
    opened = []

    def start(**options) -> Browser:
        access = make_access("127.0.0.1", **options)
        settings = Settings(home=tmp_path)
        app = make_app(storage, tmp_path / "artifacts", access, exporter(storage, settings), settings)
        server = Server(app, "127.0.0.1", 0)
        opened.append((server, server.start()))
        return Browser(server.port)

    yield start
    for server, thread in opened:
        server.close()
        thread.join(5)
