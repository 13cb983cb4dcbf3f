"""The table of launchers and what they share: check everything first, then run, then say how it went."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from hpo.experiment.experiment import Experiment
from hpo.settings import Settings


@dataclass(frozen=True)
class LaunchOptions:
    """How many workers, and where.

    Attributes:
        workers: number of worker processes; None: one for each GPU and place on it, or one for each core
            that has a GiB of free memory.
        gpus: indices of the GPUs to use, () for all that there are, None for none.
        per_gpu: workers that share one GPU.
        max_restarts: how many dead workers are replaced before the launch gives up.
        ray_address: of the Ray cluster; None starts a local one.
    """

    workers: int | None = None
    gpus: tuple[str, ...] | None = ()
    per_gpu: int = 1
    max_restarts: int = 10
    ray_address: str | None = None


class Progress(Protocol):
    """What a launcher tells while it runs."""

    def update(self, status: dict[str, Any]) -> None: ...

    def line(self, text: str) -> None: ...


Launcher = Callable[[Experiment, Settings, LaunchOptions, Progress], None]


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Within it SIGTERM is taken as Ctrl-C is. Beside the main thread Python takes no signals, so nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def is_finished(status: dict[str, Any]) -> bool:
    """Whether every study has spent its budget and nothing runs or waits."""
    return all(study["finished"] for study in status["studies"])
