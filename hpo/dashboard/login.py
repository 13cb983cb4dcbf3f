"""The password, the sessions that it opens, and how often it may be tried."""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable

import itsdangerous

SESSION_SECONDS = 12 * 3600
WINDOW_SECONDS = 300.0
TRIES_PER_ADDRESS = 5
TRIES_IN_ALL = 50  # many addresses together guess no faster than this


class Tries:
    """Counts wrong passwords of the last five minutes, by address and in all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, list[float]] = {}

    def begin(self, address: str) -> float:
        """Counts a try before the password is checked; returns the seconds to wait if there were too many, else 0."""
        with self._lock:
            now = self._clock()
            for known, moments in list(self._failures.items()):
                kept = [moment for moment in moments if now - moment < WINDOW_SECONDS]
                if kept:
                    self._failures[known] = kept
                else:
                    del self._failures[known]
            mine = self._failures.get(address, [])
            everyone = sorted(moment for moments in self._failures.values() for moment in moments)
            for moments, limit in ((mine, TRIES_PER_ADDRESS), (everyone, TRIES_IN_ALL)):
                if len(moments) >= limit:
                    return WINDOW_SECONDS - (now - moments[-limit])
            self._failures.setdefault(address, []).append(now)
            return 0.0

    def forgive(self, address: str) -> None:
        """A right password clears the address."""
        with self._lock:
            self._failures.pop(address, None)


class Login:
    """Checks the password and signs session cookies; sessions end with the process, after 12 hours, or on logout."""

    def __init__(self, password: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._digest = _digest(password)
        self._signer = itsdangerous.TimestampSigner(
            secrets.token_bytes(32), salt="hpo-session", digest_method=hashlib.sha256
        )
        self._ended: set[bytes] = set()
        self.tries = Tries(clock)

    def matches(self, password: str) -> bool:
        """Whether it is the password, in a time that tells nothing of how much of it was right."""
        return hmac.compare_digest(_digest(password), self._digest)

    def open_session(self) -> str:
        return self._signer.sign(secrets.token_urlsafe(18)).decode()

    def is_open(self, cookie: str | None) -> bool:
        session = self._session(cookie)
        return session is not None and session not in self._ended

    def _session(self, cookie: str | None) -> bytes | None:
        """The session that a cookie with a valid signature names. A signature has several spellings, a session one."""
        if not cookie:
            return None
        try:
            return self._signer.unsign(cookie, max_age=SESSION_SECONDS)
        except itsdangerous.BadData:
            return None

    def end_session(self, cookie: str) -> None:
        if (session := self._session(cookie)) is not None:
            self._ended.add(session)


def _digest(password: str) -> bytes:
    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).digest()
