"""The lines of a worker's log: whose trial a line is about, errors that repeat, and the newest warnings.

Lines of the service name their trial. Lines of the user's code and of libraries get the trials in front that were
running when they were written.
"""

import logging
import traceback
from collections import deque
from collections.abc import Callable
from typing import TextIO

from hpo.worker.failures import describe, normalise

MOST_WARNINGS = 3
MOST_NAMES = 3


class LogLines:
    """How this process logs; one of it, :data:`LOG_LINES`.

    Attributes:
        running: gives the names of the trials that are being trained, such as ``tpe/0 #17``.
        warnings: the newest warnings, without errors, which their trials have.
    """

    def __init__(self) -> None:
        self.running: Callable[[], list[str]] = list
        self.warnings: deque[str] = deque(maxlen=MOST_WARNINGS)
        self._seen: dict[tuple[object, ...], str] = {}

    def write_to(self, stream: TextIO) -> None:
        """Sends warnings of every logger, and what the service itself notes, to ``stream``."""
        handler = logging.StreamHandler(stream)
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(trial)s%(message)s", defaults={"trial": ""})
        )
        handler.addFilter(self._note)
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.WARNING)
        logging.getLogger("hpo").setLevel(logging.INFO)
        logging.captureWarnings(True)

    def _note(self, record: logging.LogRecord) -> bool:
        is_ours = record.name.partition(".")[0] == "hpo"
        record.trial = "" if is_ours else self._prefix()
        if record.levelno == logging.WARNING:
            text = record.getMessage().partition("\n")[0]
            if text not in self.warnings:
                self.warnings.append(text)
        return True

    def _prefix(self) -> str:
        names = self.running()
        more = [f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
        return f"[{', '.join([*names[:MOST_NAMES], *more])}] " if names else ""

    def first_of(self, error: BaseException, name: str) -> str | None:
        """The trial in which this worker has met the same error, from the same lines of code; None at the first time.

        ``name`` is the trial that has it now. Errors that differ in numbers, addresses or paths alone are the same.
        """
        frames = tuple((frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__))
        key = (type(error), normalise(describe(error)), frames)
        if key in self._seen:
            return self._seen[key]
        self._seen[key] = name
        return None


LOG_LINES = LogLines()
