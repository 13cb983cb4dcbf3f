"""Many workers of an experiment as threads of one process: the service's own, with a trainer that only sleeps.

``python -m benchmarks.node_workers`` reads what to do as JSON from standard input (:class:`Orders`), prints ``ready``,
reads when to begin, and prints one line of JSON when every worker has ended. The workers of a node share one pool of
connections; a node is a number of workers, and a process runs several. Two things are not as on a node of their own,
because they would measure how the process is crowded: a trial that one worker has read is kept for the others of the
process, and no worker looks for the processes that its trainer has started.
"""

import dataclasses
import functools
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

import hpo
from hpo.trainers.protocol import EpochEnd, Event, Run
from hpo.trainers.registry import TrainerEntry, register

EPOCHS = 20
PRUNED_SHARE = 8
"""One trial of so many is bad: ASHA prunes it at its first rung, after an epoch."""
READY = "ready\n"
MEAN_EPOCHS = EPOCHS - (EPOCHS - 1) / PRUNED_SHARE


@dataclass(frozen=True)
class Orders:
    """What a process has to do.

    Attributes:
        workers: how many it runs.
        per_node: workers that share a pool; ``connections`` is the most that a node holds, None for two each.
    """

    address: str
    experiment: str
    folder: str
    workers: int
    per_node: int
    connections: int | None


class Config(hpo.Config):
    lr: float = pydantic.Field(0.1, gt=0, le=1)
    beta: float = pydantic.Field(0.9, ge=0, lt=1)
    width_1: int = pydantic.Field(512, ge=1)
    width_2: int = pydantic.Field(128, ge=1)
    weight_decay: float = pydantic.Field(1e-4, ge=0)
    batch_size: int = pydantic.Field(128, ge=1)
    scheduler: str = "constant"
    epochs: int = pydantic.Field(EPOCHS, ge=1)
    epoch_seconds: float = pydantic.Field(3.0, ge=0)


class Sleeper:
    """A trainer with one slot that sleeps through its epochs and saves nothing."""

    capacity = 1

    def __init__(self) -> None:
        self._key: Hashable = None
        self._config: Config | None = None
        self._epoch = 0
        self._value = 0.0

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        self._key, self._config, self._epoch = key, config, run.start_epoch
        self._value = 0.1 if run.lineage % PRUNED_SHARE == PRUNED_SHARE - 1 else 0.5

    def advance(self) -> list[Event]:
        if self._config is None:
            return []
        time.sleep(self._config.epoch_seconds)
        self._epoch += 1
        return [EpochEnd(self._key, self._epoch, {"value": self._value}, self._epoch == self._config.epochs)]

    def stop(self, key: Hashable) -> None:
        if key == self._key:
            self._config = None


register(
    TrainerEntry(
        name="sleeper",
        config=Config,
        build=lambda options: Sleeper(),
        description="Sleeps through its epochs; saves nothing.",
        metrics={"value": "maximize"},
        max_slots=1,
        module=__name__ if __name__ != "__main__" else "benchmarks.node_workers",
    )
)


def run_workers(orders: Orders) -> dict[str, Any]:
    """Runs the workers to the experiment's end; returns how many failed and the processor seconds that they took."""
    import hpo.database.storage as opened
    from hpo.experiment.experiment import load_experiment
    from hpo.machine import new_worker_id, worker_name
    from hpo.worker import report
    from hpo.worker.options import WorkerOptions
    from hpo.worker.worker import run_worker

    opened.frozen_trial = functools.lru_cache(maxsize=65536)(opened.frozen_trial)
    report._family = lambda process: [process]  # type: ignore[assignment]
    folder, failed = Path(orders.folder), []

    def work(experiment: Any, starts: float) -> None:
        time.sleep(max(0.0, starts - time.time()))
        options = WorkerOptions(
            str(folder / "checkpoints"), folder / "artifacts", name=worker_name(new_worker_id(), os.getpid())
        )
        try:
            code = run_worker(experiment, options)
            failed.extend([f"exit code {code}"] if code else [])
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")

    storages, experiments = [], []
    for first in range(0, orders.workers, orders.per_node):
        count = min(orders.per_node, orders.workers - first)
        most = orders.connections or 2 * count
        storages.append(opened.open_storage(orders.address, connections=most, kept=most))
        experiments += [load_experiment(storages[-1], orders.experiment)] * count
    print(READY, end="", flush=True)
    moment = json.loads(sys.stdin.readline())
    starts = [moment["begins"] + moment["over"] * index / orders.workers for index in range(orders.workers)]
    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in zip(experiments, starts, strict=True)]
    parent = os.getppid()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        if os.getppid() != parent:
            os._exit(1)
    for storage in storages:
        storage.engine.dispose()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"failed": failed, "cpu": used.ru_utime + used.ru_stime, "mb": used.ru_maxrss / 1024}


def main() -> None:
    threading.stack_size(512 * 1024)
    print(json.dumps(run_workers(Orders(**json.loads(sys.stdin.readline())))), flush=True)


def as_json(orders: Orders) -> str:
    return json.dumps(dataclasses.asdict(orders))


if __name__ == "__main__":
    # As a module with its own name, so that the trainer is registered once.
    from benchmarks import node_workers

    node_workers.main()
