"""Checks a launch before anything is written, then runs it with the launcher of that name."""

import importlib

from hpo.experiment.experiment import Experiment
from hpo.experiment.status import is_finished
from hpo.launchers.registry import Launcher, LaunchOptions, Progress, launcher_entry
from hpo.launchers.supervise import order_of, raise_if_stopped, read_status
from hpo.settings import Settings


def check_launch(launcher: str, settings: Settings, options: LaunchOptions) -> None:
    """Raises UsageError for what cannot run whatever the experiment is; nothing has been opened or written yet."""
    check = getattr(importlib.import_module(launcher_entry(launcher).module), "check", None)
    if check is not None:
        check(settings, options)


def launch(
    launcher: str, experiment: Experiment, settings: Settings, options: LaunchOptions, progress: Progress
) -> bool:
    """Runs an experiment to its end with the named launcher. Returns False if it was finished already.

    Raises:
        HPOError: if the experiment cannot be finished; what was done stays, and launching again goes on.
    """
    if is_finished(read_status(experiment)):
        return False
    run: Launcher = importlib.import_module(launcher_entry(launcher).module).run
    stops = order_of(experiment).stops
    run(experiment, settings, options, progress)
    if not is_finished(read_status(experiment)):
        raise_if_stopped(experiment, stops)
    return True
