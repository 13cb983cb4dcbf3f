"""The process's state around a trial: its folder, its environment variables, its random generators.

A trial starts with seeded generators; what it changes of the rest is put back, so that the next trial starts alike.
"""

import contextlib
import os

from hpo.trainers.process_state import restore_environment
from hpo.trainers.protocol import Run
from hpo.trainers.seeding import seed_libraries


class Surroundings:
    """Prepares the process for the trial of ``run``; :meth:`restore` puts folder and environment back."""

    def __init__(self, run: Run) -> None:
        try:
            self._folder: str | None = os.getcwd()
        except FileNotFoundError:
            self._folder = None
        self._environment = dict(os.environ)
        if run.work_in_folder:
            os.chdir(run.folder)
        if run.seed_libraries:
            seed_libraries(run.seed)

    def restore(self) -> None:
        """Puts back the current folder and the environment variables as they were before the trial."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(self._folder)
        restore_environment(self._environment)
