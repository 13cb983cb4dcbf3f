"""Reopens a worker's standard output and error after a trainer has closed them.

Otherwise the next file or connection that is opened would get descriptor 1 or 2, and printed text would go into it.
"""

import contextlib
import fcntl
import io
import os
import sys

LOWEST_COPY = 64
"""High enough that code which closes file descriptors 3 to 63 does not close our copies."""


class StdioGuard:
    """Holds copies of descriptors 1 and 2 as they are now; one that is closed now stays closed."""

    def __init__(self) -> None:
        self._copies: dict[int, int] = {}
        for number in (1, 2):
            with contextlib.suppress(OSError):
                self._copies[number] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, LOWEST_COPY)

    def restore(self) -> None:
        """Reopens the descriptors that were closed since, and the streams over them."""
        for number, copy in self._copies.items():
            try:
                os.fstat(number)
            except OSError:
                os.dup2(copy, number)
        for name, number in (("stdout", 1), ("stderr", 2)):
            if number in self._copies and getattr(sys, name) is not None and getattr(sys, name).closed:
                raw = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
                setattr(sys, name, io.TextIOWrapper(raw, errors="backslashreplace", write_through=True))

    def close(self) -> None:
        """Closes the copies; may be repeated."""
        while self._copies:
            os.close(self._copies.popitem()[1])
