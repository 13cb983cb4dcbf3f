"""How a worker obeys what a person orders: it looks twice in a heartbeat, and acts between two epochs.

An epoch that goes on at the second look is interrupted, so an order is obeyed within a heartbeat whatever an epoch
takes: the trial then goes on from the checkpoint before. A worker with several slots interrupts an epoch to halt, not
to prune one trial: that waits for the end of the epoch.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from hpo.database import steering
from hpo.database.retrying import persistently
from hpo.database.steering import Order
from hpo.database.study_budget import read_budgets
from hpo.errors import ExperimentDeletedError
from hpo.experiment.experiment import Experiment
from hpo.worker.exit_codes import EXIT_PAUSED
from hpo.worker.options import WorkerOptions
from hpo.worker.report import Reporter
from hpo.worker.signals import Interrupted, interrupt_epoch, raising_interrupted

log = logging.getLogger("hpo")

WAIT_SECONDS = 0.5


class SteeringWatch:
    """What a person has ordered, as a worker knows it; ``training`` returns the ids of the trials in its ``capacity``
    slots.

    Attributes:
        halt: the order that ends this worker; None if there is none.
        prunes: trials that this worker has to prune, with the reason.
    """

    def __init__(
        self, engine: sa.Engine, study_ids: Sequence[int], capacity: int, training: Callable[[], Sequence[int]]
    ) -> None:
        self._engine = engine
        self._study_ids = study_ids
        self._capacity = capacity
        self._training = training
        self._first = persistently(self._read)
        self._seen: tuple[bool, dict[int, str]] = False, {}
        self.halt: Order | None = None
        self.prunes: dict[int, str] = {}

    def _read(self) -> Order:
        with self._engine.connect() as connection:
            return steering.read_order(connection, self._study_ids)

    def look(self) -> None:
        """Reads the orders; interrupts an epoch that still goes on since an order was read before."""
        try:
            with self._engine.connect() as connection:
                order = steering.read_order(connection, self._study_ids)
                prunes = steering.to_prune(connection, self._training())
        except ExperimentDeletedError:
            return  # the next claim finds that out
        # A stop counts although the experiment was launched again meanwhile.
        is_halt = order.stops > self._first.stops or order.halt == "paused"
        if self.halt is None and is_halt:
            self.halt = order
        elif self.halt is not None and not is_halt and self.halt.finish_running:
            self.halt = None  # resumed before the running trials had ended
        elif self.halt is not None and not order.finish_running and is_halt:
            self.halt = order
        must_halt = self.halt is not None and not self.halt.finish_running
        is_known = (must_halt and self._seen[0]) or (self._capacity == 1 and bool(prunes.keys() & self._seen[1].keys()))
        self.prunes = prunes
        self._seen = must_halt, prunes
        if is_known and interrupt_epoch():
            log.info("an epoch is interrupted: %s", self.reason if must_halt else "its trial is pruned")

    def must_halt(self, *, has_running: bool) -> bool:
        """Whether the worker has to end now; ``has_running``: it still trains trials, which it may have to finish."""
        return self.halt is not None and not (self.halt.finish_running and has_running)

    @property
    def is_stopped(self) -> bool:
        return self.halt is not None and self.halt.stops > self._first.stops

    @property
    def exit_code(self) -> int:
        """With which this worker ends because of :attr:`halt`."""
        return 0 if self.is_stopped else EXIT_PAUSED

    @property
    def reason(self) -> str:
        """Why the trials are given back."""
        how = "stopped" if self.is_stopped else "paused"
        who = f" by {self.halt.last.who}" if self.halt is not None and self.halt.last is not None else ""
        return f"the experiment was {how}{who}"


def wait_while_paused(experiment: Experiment, options: WorkerOptions) -> int | None:
    """Waits, without a device, as long as the experiment is paused.

    Returns None if the worker may train, else the exit code with which it ends: the experiment is stopped or finished,
    or the worker was asked to end.
    """
    engine, study_ids = experiment.storage.engine, experiment.study_ids
    reporter: Reporter | None = None

    def read() -> tuple[Order, bool]:
        with engine.connect() as connection:
            order = steering.read_order(connection, study_ids)
            return order, order.halt == "paused" and all(b.finished for b in read_budgets(connection, study_ids))

    try:
        with raising_interrupted():
            while True:
                order, is_finished = persistently(read, lambda: _is_orphan(options))
                if order.halt == "stopped":
                    log.info("the experiment is stopped (%s): hpo resume lets its workers train", order.last)
                if order.halt == "stopped" or is_finished or (order.halt is not None and _is_orphan(options)):
                    return 0
                if order.halt is None:
                    return None
                if reporter is None:
                    log.info("the experiment is paused (%s): this worker waits", order.last)
                    reporter = Reporter(experiment, options, 0)
                reporter.report("paused", every_seconds=options.heartbeat_seconds)
                time.sleep(WAIT_SECONDS)
    except Interrupted:
        return 130
    finally:
        if reporter is not None:
            reporter.end("ended")


def _is_orphan(options: WorkerOptions) -> bool:
    return options.launcher_pid is not None and os.getppid() != options.launcher_pid
