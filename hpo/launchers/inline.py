"""One worker in this process: breakpoints work, and what a trainer prints appears at once.

Signal handlers, the current folder, logging and the number of torch's threads are afterwards what they were before.
"""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

from hpo.errors import ExperimentError, NothingSucceedsError, UsageError
from hpo.experiment.experiment import Experiment
from hpo.launchers.registry import InlineOptions, Progress
from hpo.launchers.signals import kept_handlers
from hpo.launchers.supervise import STATUS_SECONDS, read_status
from hpo.machine import gpu_indices, missing_gpus, no_gpu
from hpo.settings import Settings
from hpo.worker.exit_codes import EXIT_MEMORY, EXIT_PAUSED, REPLACED
from hpo.worker.options import WorkerOptions, worker_options
from hpo.worker.worker import run_worker


def check(settings: Settings, options: InlineOptions) -> None:
    """Raises UsageError for more than one worker or GPU, or a GPU that is not there."""
    if options.workers not in (None, 1):
        raise UsageError(f"the launcher inline runs one worker, not {options.workers}: leave --workers out")
    if isinstance(options.gpus, tuple):
        if len(options.gpus) > 1:
            raise UsageError(f"the launcher inline uses one GPU, not {','.join(options.gpus)}")
        if missing := missing_gpus(options.gpus):
            raise UsageError(no_gpu(missing))


def run(experiment: Experiment, settings: Settings, options: InlineOptions, progress: Progress) -> None:
    """Runs the experiment here.

    Raises:
        HPOError: if it cannot go on.
        KeyboardInterrupt: on Ctrl-C, once the trials are given back.
    """
    worker_settings = replace(worker_options(settings), device=device_of(options), launcher_pid=None)
    with state_kept(), _reporting(experiment, progress):
        restarts = 0
        while code := _work(experiment, worker_settings):
            if code == 130:
                raise KeyboardInterrupt
            if code == EXIT_PAUSED:
                continue
            restarts += 1
            if code not in REPLACED | {EXIT_MEMORY} or restarts > options.max_restarts:
                raise ExperimentError("its one worker ended, for the reason above; the same command goes on")
            progress.line("the worker asked to be replaced; another takes its place")
    progress.update(read_status(experiment))


def _work(experiment: Experiment, options: WorkerOptions) -> int:
    try:
        return run_worker(experiment, options)
    except NothingSucceedsError as error:
        raise ExperimentError(str(error)) from None  # its exit code is a worker's, not a launch's


def device_of(options: InlineOptions) -> str:
    """The device in this process, whose visible GPUs may be fixed already: torch numbers them from 0."""
    gpus = gpu_indices()
    if options.gpus == "none" or not gpus:
        return "cpu"
    if isinstance(options.gpus, tuple) and options.gpus[0] in gpus:
        return f"cuda:{gpus.index(options.gpus[0])}"
    return "cuda:0"


@contextlib.contextmanager
def _reporting(experiment: Experiment, progress: Progress) -> Iterator[None]:
    """Within the block a thread reads and reports the status."""
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(STATUS_SECONDS):
            progress.update(read_status(experiment))

    thread = threading.Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def state_kept() -> Iterator[None]:
    """After the block this process has the signal handlers, folder, logging and threads that it had before."""
    folder = os.getcwd()
    loggers = [logging.getLogger(), logging.getLogger("hpo"), logging.getLogger("optuna")]
    before = [(logger, logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else None
    with kept_handlers():
        try:
            yield
        finally:
            os.chdir(folder)
            for logger, level, handlers, propagate in before:
                logger.setLevel(level)
                logger.handlers[:] = handlers
                logger.propagate = propagate
            if torch is not None and threads != torch.get_num_threads():
                torch.set_num_threads(threads)
