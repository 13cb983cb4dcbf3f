"""The exception tree. A message says what is wrong, where, what was expected and how to mend it.

HPOError
├── UsageError                arguments that make no sense together; exit code 2
│   └── StudyFileError        a study file with mistakes, all of them at once; exit code 2
├── StorageError              the database: unreachable, refused, not ours; exit code 1
├── ExperimentError           an experiment: unknown, changed, failed; exit code 1
│   ├── ConfigurationRefusedError  the trainer's configuration refuses a combination of values; exit code 1
│   ├── ExperimentDeletedError  somebody deleted it while it ran; exit code 1
│   ├── ExperimentStoppedError  a person has stopped it; exit code 1
│   ├── SteeredMeanwhileError   somebody else has steered it since a person looked; exit code 1
│   └── NothingSucceedsError    its trials fail and none has a result; exit code 76
├── CheckpointError           a checkpoint that cannot be written or read; exit code 1
└── DashboardError            the dashboard cannot start; exit code 1
"""

import difflib
from collections.abc import Iterable, Sequence


class HPOError(Exception):
    """An expected failure: the command line prints its message in place of a traceback."""

    exit_code = 1


class UsageError(HPOError):
    """The arguments of a command or call make no sense."""

    exit_code = 2


class StudyFileError(UsageError):
    """A study file has mistakes.

    Attributes:
        source: the file's path, or what else names the text.
        mistakes: one line for each mistake, ``TOML path: what is wrong; what was expected``.
    """

    def __init__(self, source: str, mistakes: Sequence[str]) -> None:
        self.source = source
        self.mistakes = list(mistakes)
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {mistake}" for mistake in self.mistakes)]))


class StorageError(HPOError):
    """The database cannot be reached, refuses us, or does not hold what it should.

    ``transient``: the same operation may succeed a little later, as with a server that restarts.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class ExperimentError(HPOError):
    """An experiment does not exist, differs from its file, or cannot go on."""


class ConfigurationRefusedError(ExperimentError):
    """A trainer's configuration refuses a combination of values.

    Attributes:
        reason: what the configuration says, without the values.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SetUpError(ExperimentError):
    """A worker refuses its study file or its arguments, as every other worker of the launch would."""

    exit_code = 2


class ExperimentDeletedError(ExperimentError):
    """An experiment was deleted while workers ran."""

    def __init__(self) -> None:
        super().__init__("the experiment was deleted while this worker ran")


class ExperimentStoppedError(ExperimentError):
    """A person has stopped an experiment: its launch ends before its budget is spent."""


class SteeredMeanwhileError(ExperimentError):
    """Somebody else has steered an experiment since a person looked at it; ``event`` is what they did."""

    def __init__(self, event: str) -> None:
        super().__init__(f"nothing was changed: meanwhile the experiment was {event}; look at it, and steer again")
        self.event = event


class NothingSucceedsError(ExperimentError):
    """Trials fail and none has a result. A worker ends with this code, and its launcher ends the run."""

    exit_code = 76


class CheckpointError(HPOError):
    """A checkpoint cannot be written or read."""


class DashboardError(HPOError):
    """The dashboard cannot start."""


def near_miss(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'tpe'?)`` where a known name is close, else an empty string."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
