"""One worker in this process: breakpoints work, and what a trainer prints is seen at once."""

import threading

from hpo.errors import ExperimentError
from hpo.experiment.experiment import Experiment
from hpo.experiment.status import snapshot
from hpo.launchers.options import LaunchOptions, Progress
from hpo.settings import Settings
from hpo.worker.options import worker_options
from hpo.worker.worker import Worker


def run(experiment: Experiment, settings: Settings, options: LaunchOptions, progress: Progress) -> None:
    """Runs the experiment here. Raises HPOError where it cannot go on, KeyboardInterrupt on Ctrl-C."""
    worker = Worker(experiment, worker_options(settings))
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(1.0):
            progress.update(snapshot(experiment))

    thread = threading.Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        code = worker.run()
    finally:
        ended.set()
        thread.join()
    progress.update(snapshot(experiment))
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise ExperimentError("its one worker ended, for the reason above; the same command goes on")
