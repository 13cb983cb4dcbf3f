"""The table of launchers: checks a launch before anything is written, then runs it."""

import importlib
from dataclasses import dataclass

from hpo.database.retrying import persistently
from hpo.errors import UsageError
from hpo.experiment.experiment import Experiment
from hpo.experiment.status import snapshot
from hpo.launchers.options import Launcher, LaunchOptions, Progress, is_finished
from hpo.settings import Settings


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
        LauncherEntry("ray", "hpo.launchers.ray", "workers as tasks on a Ray cluster (pip install 'hpo-service[ray]')"),
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
