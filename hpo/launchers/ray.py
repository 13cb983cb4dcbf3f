"""Workers as tasks on a Ray cluster: Ray finds them a place and starts them again when a node dies.

The nodes need nothing but the database's address and the folders: a worker is the same process as everywhere, started
by a task, so that a fault in it is not one in Ray's own. Exactness is the database's, not Ray's. What a worker writes
goes to Ray's own logs.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import importlib.util
import os
import socket
import subprocess
import threading
import time
import urllib.parse
from collections import deque
from dataclasses import replace
from typing import Any

from hpo.database.address import is_served
from hpo.database.served import address_file, read_address
from hpo.errors import ExperimentError, UsageError
from hpo.experiment.experiment import Experiment
from hpo.launchers.local import worker_command
from hpo.launchers.registry import Progress, RayOptions
from hpo.launchers.signals import interruptible
from hpo.launchers.supervise import END_SECONDS, SHOWN_LINES, WorkerEnd, printable, supervise
from hpo.machine import WORKER_ID_VARIABLE, new_worker_id, worker_name
from hpo.settings import Settings
from hpo.worker.exit_codes import EXIT_BUG
from hpo.worker.process_end import end_children

CONNECT_SECONDS = 10.0
STARTING_SECONDS = 60.0
"""A Ray client server starts a process for each client, which takes a while on a busy machine."""
INSTALL = "the ray launcher needs Ray: pip install 'hpo-service[ray]'"


def check(settings: Settings, options: RayOptions) -> None:
    """Raises UsageError if Ray is not installed, or the cluster's nodes could not do what is asked."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError(INSTALL)
    if settings.storage is None and not is_served(settings) and _address(options) != "local":
        raise UsageError(
            f"workers on the Ray cluster at {_address(options)} need a database that they all reach: "
            "give --serve, --storage or HPO_STORAGE"
        )
    if isinstance(options.gpus, tuple):
        raise UsageError(
            f"--gpus {','.join(options.gpus)} chooses among the GPUs of one machine, and Ray places the workers: "
            "leave it out for all GPUs of the cluster, or give --gpus none"
        )


def run(experiment: Experiment, settings: Settings, options: RayOptions, progress: Progress) -> None:
    """Runs the experiment to its end on the cluster at ``options.ray_address``, or on a local one.

    Raises:
        UsageError: if a part of Ray is not installed.
        ExperimentError: if the cluster cannot be reached, or as :func:`hpo.launchers.supervise.supervise` does.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, once the workers have given their trials back.
    """
    # Nothing about a search is anybody else's to know; and without the second one Ray warns about its own future.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if is_served(settings) and _address(options) != "local":
        # The nodes need not share the home that has the address.
        settings = replace(settings, storage=read_address(address_file(settings.home_path)))
    started_here = not ray.is_initialized()
    with interruptible():
        if started_here:
            _connect(ray, _address(options))
        try:
            # supervise() sets the handlers once more, because connecting made SIGTERM Ray's.
            supervise(
                experiment,
                RayFleet(ray, experiment.name, settings, options, experiment.content.get("gpus_per_trial", 1)),
                options,
                progress,
            )
        finally:
            if started_here:
                ray.shutdown()


def _address(options: RayOptions) -> str:
    """Where the cluster is. Left to itself, Ray would join whatever cluster was last started on this machine."""
    return options.ray_address or os.environ.get("RAY_ADDRESS") or "local"


def _connect(ray: Any, address: str) -> None:
    lost = f"the Ray cluster at {address} cannot be reached"
    parts = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    try:
        if parts.hostname and parts.port:
            # Ray itself tries for minutes and writes all over the terminal.
            socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()
        deadline = time.monotonic() + STARTING_SECONDS
        while True:
            try:
                ray.init(address, log_to_driver=False, include_dashboard=False, configure_logging=False)
                break
            except (ConnectionError, RuntimeError) as error:
                # The server is there and its process for this client is not yet.
                if "Starting Ray client server failed" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
    except ImportError as error:
        raise UsageError(f"{INSTALL} ({error})") from error
    except OSError as error:
        raise ExperimentError(
            f"{lost}: {error}; is it running, and is the address host:port or ray://host:port?"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ExperimentError(f"{lost}: {error}") from error


class RayFleet:
    """The workers of a launch on a Ray cluster; see :class:`hpo.launchers.supervise.Fleet`."""

    def __init__(
        self, ray: Any, experiment_name: str, settings: Settings, options: RayOptions, gpus_per_trial: int = 1
    ) -> None:
        self._ray = ray
        self._experiment_name = experiment_name
        resources = ray.cluster_resources()
        num_gpus = 0 if options.gpus == "none" else int(resources.get("GPU", 0))
        gpus_each = gpus_per_trial if gpus_per_trial > 1 else 1 / options.per_gpu
        cores = max(1, int(resources.get("CPU", 1)))
        self.num_places = options.workers or (int(num_gpus / gpus_each) if num_gpus else cores)
        environment = {name: value for name, value in settings.environment().items() if name.startswith("HPO_")}
        # A task has one core, and its GPU is the one that Ray shows it.
        self._environment = environment | {"HPO_THREADS": "1", "HPO_DEVICE": "cuda:0" if num_gpus else "cpu"}
        # Ray starts a task again if its node or its process died; the others sweep what it held.
        self._task = ray.remote(_work).options(
            num_cpus=1, num_gpus=gpus_each if num_gpus else 0, max_retries=options.max_restarts
        )
        self._references: dict[Any, int] = {}

    def describe(self, place: int) -> str:
        return f"worker {place}"

    def start(self, place: int) -> None:
        reference = self._task.remote(self._experiment_name, self._environment, os.getcwd())
        self._references[reference] = place

    def wait(self, timeout_seconds: float) -> list[WorkerEnd]:
        if not self._references:
            return []
        done, _ = self._ray.wait(list(self._references), timeout=timeout_seconds)
        return [self._end_of(reference) for reference in done]

    def stop(self) -> list[WorkerEnd]:
        references = list(self._references)
        for reference in references:
            self._ray.cancel(reference)
        if references:
            # Ray would kill them.
            self._ray.wait(references, num_returns=len(references), timeout=END_SECONDS)
        self._references.clear()
        return []

    def _end_of(self, reference: Any) -> WorkerEnd:
        place = self._references.pop(reference)
        try:
            worker, code, last_lines = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            cause = f"was given up by Ray ({type(error).__name__})"
            return WorkerEnd(place, None, EXIT_BUG, printable(str(error)), cause)
        return WorkerEnd(place, worker, code, last_lines)


def _work(experiment_name: str, environment: dict[str, str], folder: str) -> tuple[str, int, str]:
    """Runs one worker on a node, as a process that ends with this task; returns its name, exit code and last lines.

    It runs in the launcher's ``folder`` if the node has it, so that a trainer's module is found there as well.
    """
    worker_id = new_worker_id()
    own = {"HPO_LAUNCHER_PID": str(os.getpid()), "PYTHONUNBUFFERED": "1", WORKER_ID_VARIABLE: worker_id}
    process = subprocess.Popen(
        worker_command(experiment_name),
        env={**os.environ, **environment, **own},
        start_new_session=True,
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
    finally:
        end_children(worker_id, process.pid)
    copying.join(1.0)
    return worker_name(worker_id, process.pid), process.returncode, printable("\n".join(last_lines))
