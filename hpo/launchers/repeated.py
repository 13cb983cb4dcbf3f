"""What workers write before they die, without what was printed already: a crash that repeats is printed once."""

import re

from hpo.worker.failures import normalise

TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,]?\d*")


class PrintedLines:
    """The ends of logs that a launch has printed."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def new_lines(self, name: str, text: str) -> str:
        """``text``, or whose lines it repeats but for numbers, addresses and paths; ``name`` is the worker."""
        kind = normalise(TIME.sub("", text)).strip()
        if kind and kind in self._first:
            return f"    the same lines again as {self._first[kind]} wrote"
        self._first[kind] = name
        return text
