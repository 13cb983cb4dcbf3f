"""Workers as tasks on a Ray cluster: Ray finds them a place and starts them again when a node dies.

Nothing but the database's address and the folders need be on the nodes: a worker is the same process as everywhere,
started by a task, so that a fault in it is not one in Ray's own. Exactness is the ledger's, not Ray's.
"""

import os
import signal
import subprocess
import sys
import time
from typing import Any

from hpo.errors import ExperimentError, UsageError
from hpo.launchers.table import LaunchOptions, Progress, is_finished
from hpo.recorder import persistently
from hpo.settings import Settings
from hpo.status import snapshot
from hpo.study import Experiment

STATUS_SECONDS = 1.0


def run(experiment: Experiment, settings: Settings, options: LaunchOptions, progress: Progress) -> None:
    """Runs the experiment to its end on the cluster at ``options.ray_address``, or on a local one.

    Raises:
        UsageError: where Ray is not installed, or the cluster's nodes could not reach an embedded server.
        ExperimentError: where the cluster cannot be reached, or a worker found that it cannot go on.
    """
    try:
        import ray
    except ImportError:
        raise UsageError("the ray launcher needs Ray: pip install 'hpo[ray]'") from None
    address = options.ray_address or os.environ.get("RAY_ADDRESS")
    if settings.storage is None and address is not None:
        raise UsageError("workers on a cluster need a database that they all reach: give --storage or HPO_STORAGE")
    started_here = not ray.is_initialized()
    if started_here:
        try:
            ray.init(address, log_to_driver=False, include_dashboard=False, configure_logging=False)
        except (ConnectionError, ValueError) as error:
            raise ExperimentError(f"the Ray cluster at {address} cannot be reached: {error}") from error
    try:
        _run(ray, experiment, settings, options, progress)
    finally:
        if started_here:
            ray.shutdown()


def _run(ray: Any, experiment: Experiment, settings: Settings, options: LaunchOptions, progress: Progress) -> None:
    resources = ray.cluster_resources()
    num_gpus = 0 if options.gpus is None else int(resources.get("GPU", 0))
    count = options.workers or (num_gpus * options.per_gpu if num_gpus else max(1, int(resources.get("CPU", 1))))
    environment = {name: value for name, value in settings.environment().items() if name.startswith("HPO_")}
    environment.pop("HPO_LAUNCHER_PID", None)
    if not num_gpus:
        environment |= {"HPO_DEVICE": "cpu", "HPO_THREADS": "1"}
    # A worker that died may be started again anywhere: what it held is swept by whoever lives.
    task = ray.remote(_work).options(
        num_cpus=1, num_gpus=1 / options.per_gpu if num_gpus else 0, max_retries=options.max_restarts
    )
    waiting = [task.remote(experiment.name, environment) for _ in range(count)]
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=STATUS_SECONDS)
            for reference in done:
                try:
                    code, last_lines = ray.get(reference)
                except ray.exceptions.RayError as error:
                    raise ExperimentError(f"Ray gave a worker up: {error}") from error
                if code in (1, 2):
                    raise ExperimentError(f"a worker cannot go on:\n{last_lines}")
                if code != 0:
                    progress.line(f"a worker ended with exit code {code}; another takes its place\n{last_lines}")
                    waiting.append(task.remote(experiment.name, environment))
            progress.update(persistently(lambda: snapshot(experiment)))
    finally:
        for reference in waiting:
            ray.cancel(reference)
    status = snapshot(experiment)
    progress.update(status)
    if not is_finished(status):
        raise ExperimentError("the workers ended before the experiment did; launch it again to go on")


def _work(experiment_name: str, environment: dict[str, str]) -> tuple[int, str]:
    """Runs one worker on a node, as a process that ends with this task; returns its exit code and its last lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hpo", "worker", experiment_name],
        # Ray has set CUDA_VISIBLE_DEVICES for this task.
        env={**os.environ, **environment, "HPO_LAUNCHER_PID": str(os.getpid()), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output, _ = process.communicate()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 15
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.kill()
        raise
    return process.returncode, "\n".join(output.decode(errors="backslashreplace").splitlines()[-15:])
