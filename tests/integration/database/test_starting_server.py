"""A server that is there and not ready: what it says then, said to the real client, is known to pass."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from hpo.database.retrying import is_transient, persistently
from hpo.database.storage import open_storage
from hpo.errors import StorageError

ENCRYPTION_REQUESTS = (80877103, 80877104)


@contextlib.contextmanager
def refusing(code: str, message: str, detail: str | None = None) -> Iterator[int]:
    """A port whose server greets everyone with one error, as Postgres does before it is ready."""
    fields = [("S", "FATAL"), ("V", "FATAL"), ("C", code), ("M", message)] + ([("D", detail)] if detail else [])
    body = b"".join(kind.encode() + text.encode() + b"\0" for kind, text in fields) + b"\0"

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, client.makefile("rb") as stream:
                    while head := stream.read(8):
                        length, request = struct.unpack("!ii", head)
                        stream.read(length - 8)
                        if request not in ENCRYPTION_REQUESTS:
                            client.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)
                            break
                        client.sendall(b"N")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("code", "message", "detail"),
    [
        ("57P03", "the database system is starting up", None),
        (
            "57P03",
            "the database system is not yet accepting connections",
            "Consistent recovery state has not been yet reached.",
        ),
        ("57P03", "the database system is in recovery mode", None),
        ("57P03", "the database system is shutting down", None),
        ("53300", "sorry, too many clients already", None),
    ],
)
def test_what_a_server_says_before_it_is_ready_passes(
    code: str, message: str, detail: str | None, address: str
) -> None:
    with refusing(code, message, detail) as port:
        not_ready = f"postgresql://hpo:secret@127.0.0.1:{port}/hpo"
        with pytest.raises(StorageError) as caught:
            open_storage(not_ready)
        assert message in str(caught.value)
        assert "secret" not in str(caught.value)
        assert is_transient(caught.value)
        addresses = [address, not_ready, not_ready]
        # A worker that starts meanwhile waits.
        persistently(lambda: open_storage(addresses.pop())).engine.dispose()
    assert addresses == []


def test_a_wrong_password_does_not_pass() -> None:
    with refusing("28P01", 'password authentication failed for user "hpo"') as port:
        with pytest.raises(StorageError, match="the password or user is wrong") as caught:
            persistently(lambda: open_storage(f"postgresql://hpo:secret@127.0.0.1:{port}/hpo"))
        assert not is_transient(caught.value)
