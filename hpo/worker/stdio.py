"""Standard output and error of a worker, put back where a trainer has closed them.

Else the next file or connection that is opened would get the number 1 or 2, and whatever is printed would go into it.
"""

import contextlib
import fcntl
import io
import os
import sys

LOWEST_COPY = 64
"""Above the numbers that a program which closes "everything that I opened" guesses."""


class Outputs:
    """Copies of descriptors 1 and 2 as they are now; those that are closed now stay so."""

    def __init__(self) -> None:
        self._copies: dict[int, int] = {}
        for number in (1, 2):
            with contextlib.suppress(OSError):
                self._copies[number] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, LOWEST_COPY)

    def restore(self) -> None:
        """Opens again what was closed since, the streams over it too."""
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
        """Lets the copies go; may be repeated."""
        while self._copies:
            os.close(self._copies.popitem()[1])
