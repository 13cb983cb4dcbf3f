"""The table of launchers and what they share: check everything first, then run, then say how it went."""

import contextlib
import importlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from hpo.errors import UsageError
from hpo.database.retrying import persistently
from hpo.settings import Settings
from hpo.experiment.status import snapshot
from hpo.experiment.experiment import Experiment


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


@dataclass(frozen=True)
class LauncherEntry:
    """One row of the table: ``module`` has a function ``run(experiment, settings, options, progress)``.

    It may have a function ``check(settings, options)``, which raises UsageError before anything is written.
    """

    name: str
    module: str
    description: str


LAUNCHERS = {
    entry.name: entry
    for entry in (
        LauncherEntry("local", "hpo.launchers.local", "worker processes on this machine, replaced when they die"),
        LauncherEntry("inline", "hpo.launchers.inline", "one worker in this process, for a debugger"),
        LauncherEntry("ray", "hpo.launchers.ray", "workers as tasks on a Ray cluster (pip install 'hpo[ray]')"),
    )
}


def check_launch(name: str, settings: Settings, options: LaunchOptions) -> None:
    """Raises UsageError for what could not run whatever the experiment is; nothing has been opened or written yet."""
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers must be at least 1, not {options.workers}")
    if options.per_gpu < 1:
        raise UsageError(f"--per-gpu must be at least 1, not {options.per_gpu}")
    if settings.slots is not None and settings.slots < 1:
        raise UsageError(f"--slots must be at least 1, not {settings.slots}")
    check = getattr(importlib.import_module(LAUNCHERS[name].module), "check", None)
    if check is not None:
        check(settings, options)


def launch(name: str, experiment: Experiment, settings: Settings, options: LaunchOptions, progress: Progress) -> bool:
    """Runs an experiment to its end with the named launcher. Returns False for one that was finished already.

    Raises:
        HPOError: where the experiment cannot be finished; what was done stays, and launching again goes on.
    """
    if is_finished(persistently(lambda: snapshot(experiment))):
        return False
    run: Launcher = importlib.import_module(LAUNCHERS[name].module).run
    run(experiment, settings, options, progress)
    return True


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
