"""Workers as tasks on a Ray cluster: Ray finds them a place and starts them again when a node dies.

Nothing but the database's address and the folders need be on the nodes: a worker is the same process as everywhere,
started by a task, so that a fault in it is not one in Ray's own. Exactness is the ledger's, not Ray's. What a worker
writes goes to Ray's own logs.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import deque
from typing import Any

from hpo.database.retrying import persistently
from hpo.errors import ExperimentError, UsageError
from hpo.experiment.experiment import Experiment
from hpo.experiment.status import snapshot
from hpo.launchers.options import LaunchOptions, Progress, interrupted_by_sigterm, is_finished
from hpo.settings import Settings
from hpo.worker.exit_codes import EXIT_RESTART

STATUS_SECONDS = 1.0
CONNECT_SECONDS = 10.0
END_SECONDS = 20.0
SHOWN_LINES = 15
INSTALL = "the ray launcher needs Ray: pip install 'hpo-service[ray]'"


def check(settings: Settings, options: LaunchOptions) -> None:
    """Raises UsageError where Ray is not installed, or the cluster's nodes could not do what is asked."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError(INSTALL)
    if settings.storage is None and _address(options) != "local":
        raise UsageError(
            f"workers on the Ray cluster at {_address(options)} need a database that they all reach: "
            "give --storage or HPO_STORAGE"
        )
    if options.gpus:
        raise UsageError(
            f"--gpus {','.join(options.gpus)} chooses among the GPUs of one machine, and Ray places the workers: "
            "leave it out for all GPUs of the cluster, or give --gpus none"
        )


def run(experiment: Experiment, settings: Settings, options: LaunchOptions, progress: Progress) -> None:
    """Runs the experiment to its end on the cluster at ``options.ray_address``, or on a local one.

    Raises:
        UsageError: where a part of Ray is not installed.
        ExperimentError: where the cluster cannot be reached, more workers died than are replaced, or a worker found
            that it cannot go on.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once the workers have given their trials back.
    """
    # Nothing about a search is anybody else's to know; and without the second one Ray warns about its own future.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    started_here = not ray.is_initialized()
    with interrupted_by_sigterm():
        if started_here:
            _connect(ray, _address(options))
        try:
            # Once more, because connecting made SIGTERM Ray's.
            with interrupted_by_sigterm():
                _run(ray, experiment, settings, options, progress)
        finally:
            if started_here:
                ray.shutdown()
    status = persistently(lambda: snapshot(experiment))
    progress.update(status)
    if not is_finished(status):
        raise ExperimentError("the workers ended before the experiment did; launch it again to go on")


def _address(options: LaunchOptions) -> str:
    """Where the cluster is. Left to itself, Ray would join whatever cluster was last started on this machine."""
    return options.ray_address or os.environ.get("RAY_ADDRESS") or "local"


def _connect(ray: Any, address: str) -> None:
    lost = f"the Ray cluster at {address} cannot be reached"
    parts = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    try:
        if parts.hostname and parts.port:
            # Ray itself tries for minutes and writes all over the terminal.
            socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()
        ray.init(address, log_to_driver=False, include_dashboard=False, configure_logging=False)
    except ImportError as error:
        raise UsageError(f"{INSTALL} ({error})") from error
    except OSError as error:
        raise ExperimentError(
            f"{lost}: {error}; is it running, and is the address host:port or ray://host:port?"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ExperimentError(f"{lost}: {error}") from error


def _run(ray: Any, experiment: Experiment, settings: Settings, options: LaunchOptions, progress: Progress) -> None:
    resources = ray.cluster_resources()
    num_gpus = 0 if options.gpus is None else int(resources.get("GPU", 0))
    count = options.workers or (num_gpus * options.per_gpu if num_gpus else max(1, int(resources.get("CPU", 1))))
    environment = {name: value for name, value in settings.environment().items() if name.startswith("HPO_")}
    # A task has one core, and its GPU is the one that Ray shows it.
    environment |= {"HPO_THREADS": "1", "HPO_DEVICE": "cuda:0" if num_gpus else "cpu"}
    # Ray starts a task again where its node or its process died: what it held is swept by whoever lives.
    task = ray.remote(_work).options(
        num_cpus=1, num_gpus=1 / options.per_gpu if num_gpus else 0, max_retries=options.max_restarts
    )
    waiting = [task.remote(experiment.name, environment, os.getcwd()) for _ in range(count)]
    restarts = 0
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=STATUS_SECONDS)
            for reference in done:
                try:
                    code, last_lines = ray.get(reference)
                except ray.exceptions.RayError as error:
                    raise ExperimentError(f"Ray gave a worker up: {error}") from error
                if code == 0:
                    continue
                if code in (1, 2):
                    raise ExperimentError(f"a worker cannot go on:\n{last_lines}")
                restarts += code != EXIT_RESTART
                if restarts > options.max_restarts:
                    raise ExperimentError(
                        f"{restarts} workers died; the last one with exit code {code}, after writing:\n{last_lines}"
                    )
                progress.line(f"a worker ended with exit code {code}; another takes its place\n{last_lines}")
                waiting.append(task.remote(experiment.name, environment, os.getcwd()))
            progress.update(persistently(lambda: snapshot(experiment)))
    finally:
        _end(ray, waiting)


def _end(ray: Any, references: list[Any]) -> None:
    """Asks the workers that still run to end, and waits while they give their trials back: Ray would kill them."""
    for reference in references:
        ray.cancel(reference)
    if references:
        ray.wait(references, num_returns=len(references), timeout=END_SECONDS)


def _work(experiment_name: str, environment: dict[str, str], folder: str) -> tuple[int, str]:
    """Runs one worker on a node, as a process that ends with this task; returns its exit code and its last lines.

    It runs in the launcher's ``folder`` where the node has it, so that a trainer's module is found there as well.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "hpo", "worker", experiment_name],
        env={**os.environ, **environment, "HPO_LAUNCHER_PID": str(os.getpid()), "PYTHONUNBUFFERED": "1"},
        cwd=folder if os.path.isdir(folder) else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    last_lines: deque[str] = deque(maxlen=SHOWN_LINES)

    def copy() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            last_lines.append(line.decode(errors="backslashreplace").rstrip())
            print(last_lines[-1], flush=True)

    copying = threading.Thread(target=copy, daemon=True)
    copying.start()
    try:
        # Ray cancels a task by an exception between two of its steps, which a blocking wait has not.
        while process.poll() is None:
            time.sleep(0.1)
    except BaseException:
        process.terminate()
        try:
            process.wait(END_SECONDS * 0.75)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    copying.join(1.0)
    return process.returncode, "\n".join(f"    {line}" for line in last_lines)
