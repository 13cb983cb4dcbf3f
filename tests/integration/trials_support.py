"""Small studies without a study file, and what the tests of a worker's parts wait and look with."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.database import claims, trial_writes
from hpo.database.claims import Claim
from hpo.database.storage import Storage
from hpo.database.study_budget import set_budget
from hpo.database.trial_writes import Writes

LIMIT_SECONDS = 120


def new_study(
    storage: Storage,
    trials: int | None,
    epochs: int | None = None,
    per_trial: int = 10,
    seconds: float | None = None,
) -> int:
    """A study of a metric to be maximized, with a budget."""
    study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE])
    with storage.engine.begin() as connection:
        set_budget(connection, study_id, trials, epochs, per_trial, num_seconds=seconds)
    return study_id


def claim_one(storage: Storage, study_id: int, worker: str = "here:1") -> Claim:
    taken, _ = claims.claim(storage.engine, [study_id], worker)
    return taken[0]


def finish(storage: Storage, trial_id: int, value: float = 0.5, epochs: int = 10) -> bool:
    with storage.engine.begin() as connection:
        return trial_writes.finish(connection, trial_id, TrialState.COMPLETE, value, epochs, Writes())


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for something that another thread or process does."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "this should have happened long ago"
        time.sleep(0.01)


@contextlib.contextmanager
def statements(engine: sa.Engine) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are executed within the block, each with its parameters."""
    executed: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        executed.append((" ".join(statement.split()), parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    yield executed
    sa.event.remove(engine, "before_cursor_execute", note)


@contextlib.contextmanager
def attempts_to_connect(engine: sa.Engine) -> Iterator[list[None]]:
    """Grows by one with each attempt to connect within the block, successful or not."""
    attempts: list[None] = []

    def note(dialect: Any, record: Any, arguments: Any, parameters: Any) -> None:
        attempts.append(None)

    sa.event.listen(engine, "do_connect", note)
    yield attempts
    sa.event.remove(engine, "do_connect", note)
