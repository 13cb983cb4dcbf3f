"""What a person does to an experiment that runs: stop, pause, resume, prune a trial, retry, extend, enqueue.

The commands, the Python API and the dashboard's pages all come here. Nothing needs the trainer's code; a check that
only the trainer can make is made where it is loaded. Orders are carried by the database (:mod:`hpo.database.steering`),
so it does not matter on which machine a person or a worker is.
"""

import contextlib
import getpass
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpo.database import retries, steering, workers
from hpo.database.steering import Event, Order
from hpo.errors import ExperimentError
from hpo.experiment.experiment import Experiment, StudyHandle
from hpo.experiment.trial_log import named_trial


@dataclass(frozen=True)
class Steered:
    """What came of it.

    Attributes:
        message: a sentence for the person.
        alive: number of workers that are alive.
        needs_workers: there is something to train, which only workers do.
    """

    message: str
    alive: int
    needs_workers: bool = False


def person() -> str:
    """Who steers from this process, ``user@host``."""
    user = "somebody"
    with contextlib.suppress(Exception):
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"


def order_of(experiment: Experiment) -> Order:
    """How the experiment is steered now."""
    with experiment.storage.engine.connect() as connection:
        return steering.read_order(connection, experiment.study_ids)


def events_of(experiment: Experiment, most: int = 20) -> list[Event]:
    """What persons did to it, the newest first."""
    with experiment.storage.engine.connect() as connection:
        return steering.events(connection, experiment.study_ids, most)


def _alive(experiment: Experiment) -> int:
    with experiment.storage.engine.connect() as connection:
        return workers.num_alive(connection, experiment.study_ids)


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def stop(
    experiment: Experiment, *, finish_running: bool = False, who: str | None = None, expected: int | None = None
) -> Steered:
    """Has the workers of the experiment give their trials back, with their checkpoints, and end.

    Args:
        finish_running: whether the trials that run are trained to their end before.
        who: the person, for others to see.
        expected: the id of the last event that the person has seen, see :func:`order_of`.

    Raises:
        SteeredMeanwhileError: if somebody else has steered it since ``expected``; nothing is changed.
    """
    engine, ids = experiment.storage.engine, experiment.study_ids
    before = steering.halt(engine, ids, "stopped", who or person(), finish_running=finish_running, expected=expected)
    alive = _alive(experiment)
    was = f"; it was {before.last} already" if before.halt == "stopped" else ""
    how = "end once their running trials have ended" if finish_running else "give their trials back and end"
    what = f"{_workers(alive)} will {how}" if alive else "no worker is alive"
    return Steered(f"{experiment.name} is stopped: {what}{was}", alive)


def pause(
    experiment: Experiment, *, finish_running: bool = False, who: str | None = None, expected: int | None = None
) -> Steered:
    """Has the workers give their trials back, with their checkpoints, and wait without a device; as :func:`stop`.

    Raises:
        ExperimentError: if it is stopped: then nothing is left to pause.
        SteeredMeanwhileError: as :func:`stop`.
    """
    engine, ids = experiment.storage.engine, experiment.study_ids
    if (now := order_of(experiment)).halt == "stopped":
        raise ExperimentError(f"{experiment.name} is not running: it was {now.last}")
    before = steering.halt(engine, ids, "paused", who or person(), finish_running=finish_running, expected=expected)
    alive = _alive(experiment)
    was = f"; it was {before.last} already" if before.halt == "paused" else ""
    how = "wait once their running trials have ended" if finish_running else "give their trials back and wait"
    what = f"{_workers(alive)} will {how}" if alive else "no worker is alive"
    return Steered(f"{experiment.name} is paused: {what}{was}", alive)


def resume(experiment: Experiment, *, who: str | None = None, expected: int | None = None) -> Steered:
    """Lets a paused or stopped experiment go on. Workers that a stop has ended have to be started again.

    Raises: as :func:`stop`.
    """
    before = steering.resume(experiment.storage.engine, experiment.study_ids, who or person(), expected=expected)
    alive = _alive(experiment)
    if before.halt is None:
        return Steered(f"{experiment.name} was neither paused nor stopped", alive, not alive)
    return Steered(f"{experiment.name} goes on: {_workers(alive) if alive else 'no worker'} alive", alive, not alive)


def prune(experiment: Experiment, trial: str, *, who: str | None = None, expected: int | None = None) -> Steered:
    """Has a trial pruned that runs, or waits to go on; it ends with the value that it has.

    Args:
        trial: its number, ``SAMPLER/REPEAT/NUMBER`` if the experiment has several studies.

    Raises:
        UsageError: for a text that names no trial.
        ExperimentError: if there is no such trial, or it neither runs nor waits.
        SteeredMeanwhileError: as :func:`stop`.
    """
    study, number, trial_id = named_trial(experiment, trial)
    shown = trial_name(study, number)
    engine = experiment.storage.engine
    state = steering.prune(engine, experiment.study_ids, trial_id, shown, who or person(), expected=expected)
    if state is None:
        held = experiment.storage.get_trial(trial_id)
        now = "was enqueued and has not begun" if not held.state.is_finished() else f"is {held.state.name.lower()}"
        raise ExperimentError(f"trial {shown} of {experiment.name} {now}: only a trial that has begun can be pruned")
    who_does = "its worker prunes it" if state == "RUNNING" else "the next worker that gets it prunes it"
    return Steered(f"trial {shown} of {experiment.name} will be pruned: {who_does}", _alive(experiment))


def retry(
    experiment: Experiment, trial: str | None = None, *, who: str | None = None, expected: int | None = None
) -> Steered:
    """Queues failed trials again, from their last checkpoints: workers that run, or the next launch, train them.

    Args:
        trial: one of them, as in :func:`prune`; all of them without it.

    Raises:
        UsageError, ExperimentError: as :func:`prune`, and if the trial has not failed.
        SteeredMeanwhileError: as :func:`stop`.
    """
    engine, ids = experiment.storage.engine, experiment.study_ids
    only: int | None = None
    if trial is not None:
        *_, only = named_trial(experiment, trial)
    with engine.begin() as connection:
        steering.begin(connection, ids, expected)
        count = retries.queue_failed(connection, ids, only)
        if count:
            steering.note(connection, ids, who or person(), "retried", trial or f"{count} failed trials")
    if trial is not None and not count:
        raise ExperimentError(f"trial {trial} of {experiment.name} has not failed for good: there is nothing to retry")
    trials = "1 failed trial is" if count == 1 else f"{count} failed trials are"
    alive = _alive(experiment)
    return Steered(f"{trials} tried again", alive, needs_workers=bool(count) and not alive)


def trial_name(study: StudyHandle, number: int) -> str:
    """``SAMPLER/REPEAT/NUMBER``, as the commands take it."""
    return f"{study.sampler.label}/{study.repeat}/{number}"


def shown_values(values: Mapping[str, Any]) -> str:
    """``lr=0.1 width=64``."""
    return " ".join(f"{name}={value}" for name, value in values.items())
