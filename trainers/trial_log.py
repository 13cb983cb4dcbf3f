"""A trial's log: a file that never grows past a limit and takes any bytes.

If it grows past ``LIMIT_BYTES``, the beginning and the end stay and the middle is replaced by one line that says how
many bytes were left out.
"""

import os
from pathlib import Path

HEAD_BYTES = 2**18
TAIL_BYTES = 2**19
LIMIT_BYTES = 2**20
"""Where the file is cut to its first ``HEAD_BYTES`` and its last ``TAIL_BYTES``."""

LOG_NAME = "log.txt"


class TrialLog:
    """Appends to the file at ``path``, which is made with the first write; what is there already stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left_out = 0

    def write(self, data: bytes) -> None:
        """Appends ``data``. A full disk or a missing folder costs the log, never the trial: no OSError is raised."""
        try:
            try:
                file = self.path.open("ab")
            except FileNotFoundError:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = self.path.open("ab")
            with file:
                file.write(data)
                size = file.tell()
            if size > LIMIT_BYTES:
                self._cut(size)
        except OSError:
            return

    def _cut(self, size: int) -> None:
        with self.path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(size - TAIL_BYTES)
            tail = file.read()
        if self._left_out:
            # The note of the cut before stands right behind the head.
            self._left_out -= len(_note(self._left_out))
        self._left_out += size - HEAD_BYTES - TAIL_BYTES
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        aside.write_bytes(head + _note(self._left_out) + tail)
        os.replace(aside, self.path)


def seed_folder(folder: Path, index: int) -> Path:
    """The folder of one of the seeds of a trial whose folder is ``folder``: the first seed has that one itself."""
    return folder / f"seed-{index}" if index else folder


def whole_log(folder: Path) -> bytes | None:
    """The log of a trial, with those of its further seeds after it; None if there is none."""
    parts, index = [], 0
    while index == 0 or seed_folder(folder, index).is_dir():
        try:
            data = (seed_folder(folder, index) / LOG_NAME).read_bytes()
        except OSError:
            data = b""
        if data:
            parts.append((index, data))
        index += 1
    if index == 1:
        return parts[0][1] if parts else None
    return b"\n".join(f"[hpo] seed {number}\n".encode() + data for number, data in parts) if parts else None


def _note(num_bytes: int) -> bytes:
    return f"\n… {num_bytes} bytes left out …\n".encode()


def as_text(data: bytes) -> str:
    """A log's bytes as text; what is no UTF-8, and control characters but tab and newline, become ``\\x..``."""
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return "".join(c if c in "\t\n\r" or (ord(c) >= 32 and ord(c) != 127) else f"\\x{ord(c):02x}" for c in text)
