"""What persons do to an experiment while it runs: stop, pause, resume it, prune a trial of it; and who did it.

An order is columns of our tables, written in one transaction under the locks on all studies of the experiment, so two
persons who steer at once are one after the other. No claim is made from then on; workers obey with their next
heartbeat (:mod:`hpo.worker.steering`). Every order is kept in ``hpo_steering``.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from hpo.database.claims import lock_studies
from hpo.database.trial_writes import execute
from hpo.errors import ExperimentDeletedError, SteeredMeanwhileError

Halt = Literal["paused", "stopped"]
EXTENDED = "extended"
"""The action of a larger budget."""


@dataclass(frozen=True)
class Event:
    """What a person did; ``at`` is in UTC."""

    steering_id: int
    at: datetime.datetime
    who: str
    action: str
    detail: str

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.action}{detail} by {self.who} at {self.at.astimezone():%Y-%m-%d %H:%M:%S}"


@dataclass(frozen=True)
class Order:
    """How an experiment is steered now.

    Attributes:
        halt: ``"paused"`` or ``"stopped"``; None if its workers may claim trials.
        stops: how often it was stopped: a worker ends if this is more than when it started.
        finish_running: whether running trials train to their end before the workers halt.
        last: the last event; None if nobody has steered it.
    """

    halt: str | None
    stops: int
    finish_running: bool
    last: Event | None = None

    @property
    def last_id(self) -> int:
        return 0 if self.last is None else self.last.steering_id


ORDER = """
SELECT max(halt), coalesce(max(stops), 0), coalesce(bool_or(finish_running), false), count(*)
FROM hpo_studies WHERE study_id = ANY(:ids)
"""
EVENTS = """
SELECT steering_id, at, who, action, detail FROM hpo_steering WHERE study_id = ANY(:ids)
ORDER BY steering_id DESC LIMIT :most
"""


def read_order(connection: sa.Connection, study_ids: Sequence[int]) -> Order:
    """How the experiment with these studies is steered.

    Raises:
        ExperimentDeletedError: if none of the studies is there.
    """
    halt, stops, finish_running, count = execute(connection, ORDER, ids=list(study_ids)).one()
    if not count:
        raise ExperimentDeletedError
    found = events(connection, study_ids, 1)
    return Order(halt, stops, finish_running, found[0] if found else None)


def events(connection: sa.Connection, study_ids: Sequence[int], most: int = 20) -> list[Event]:
    """What persons did to the experiment, the newest first."""
    rows = execute(connection, EVENTS, ids=list(study_ids), most=most)
    return [Event(row[0], row[1].replace(tzinfo=datetime.UTC), *row[2:]) for row in rows]


def begin(connection: sa.Connection, study_ids: Sequence[int], expected: int | None = None) -> Order:
    """Locks the experiment for an order and returns how it is steered.

    ``expected``: the id of the last event that the person has seen.

    Raises:
        SteeredMeanwhileError: if somebody else has steered it since; nothing is changed.
        ExperimentDeletedError: if somebody has deleted it.
    """
    lock_studies(connection, study_ids)
    order = read_order(connection, study_ids)
    if expected is not None and order.last is not None and order.last.steering_id != expected:
        raise SteeredMeanwhileError(str(order.last))
    return order


def note(connection: sa.Connection, study_ids: Sequence[int], who: str, action: str, detail: str = "") -> None:
    """Records what a person did."""
    execute(
        connection,
        "INSERT INTO hpo_steering (study_id, at, who, action, detail) "
        "SELECT min(study_id), now() AT TIME ZONE 'UTC', :who, :action, :detail FROM hpo_studies "
        "WHERE study_id = ANY(:ids) HAVING min(study_id) IS NOT NULL",
        ids=list(study_ids),
        who=who,
        action=action,
        detail=detail,
    )


def halt(
    engine: sa.Engine,
    study_ids: Sequence[int],
    how: Halt,
    who: str,
    *,
    finish_running: bool = False,
    expected: int | None = None,
) -> Order:
    """Pauses or stops the experiment; returns how it was steered before. May be repeated.

    Raises: as :func:`begin`.
    """
    with engine.begin() as connection:
        before = begin(connection, study_ids, expected)
        execute(
            connection,
            "UPDATE hpo_studies SET halt = :how, finish_running = :finish, "
            "stops = CAST(:stops AS integer) WHERE study_id = ANY(:ids)",
            how=how,
            finish=finish_running,
            stops=before.stops + (how == "stopped"),
            ids=list(study_ids),
        )
        note(connection, study_ids, who, how, "after the running trials" if finish_running else "")
    return before


def resume(engine: sa.Engine, study_ids: Sequence[int], who: str, *, expected: int | None = None) -> Order:
    """Lets the experiment go on that was paused or stopped; returns how it was steered before.

    Workers that a stop has ended stay ended. Raises: as :func:`begin`.
    """
    with engine.begin() as connection:
        before = begin(connection, study_ids, expected)
        if before.halt is not None:
            _clear(connection, study_ids)
            note(connection, study_ids, who, "resumed")
    return before


def end_stop(engine: sa.Engine, study_ids: Sequence[int], who: str) -> Order:
    """Lets a stopped experiment go on because a person has launched it; a paused one stays paused.

    Returns how it was steered before.
    """
    with engine.begin() as connection:
        before = begin(connection, study_ids)
        if before.halt == "stopped":
            _clear(connection, study_ids)
            note(connection, study_ids, who, "launched again")
    return before


def _clear(connection: sa.Connection, study_ids: Sequence[int]) -> None:
    query = "UPDATE hpo_studies SET halt = NULL, finish_running = false WHERE study_id = ANY(:ids)"
    execute(connection, query, ids=list(study_ids))


def spread(connection: sa.Connection, study_ids: Sequence[int]) -> None:
    """Halts studies that were added to an experiment like those that were there."""
    execute(
        connection,
        "UPDATE hpo_studies s SET halt = o.halt, stops = o.stops, finish_running = o.finish_running "
        "FROM (SELECT max(halt) AS halt, max(stops) AS stops, bool_or(finish_running) AS finish_running "
        "FROM hpo_studies WHERE study_id = ANY(:ids)) AS o "
        "WHERE s.study_id = ANY(:ids) AND (s.halt, s.stops) IS DISTINCT FROM (o.halt, o.stops)",
        ids=list(study_ids),
    )


def keeps_extension(connection: sa.Connection, study_ids: Sequence[int]) -> bool:
    """Whether a person has extended the budget: a launch with the file of before then goes on with the larger one."""
    query = "SELECT 1 FROM hpo_steering WHERE study_id = ANY(:ids) AND action = :action LIMIT 1"
    return execute(connection, query, ids=list(study_ids), action=EXTENDED).first() is not None


PRUNE = """
UPDATE hpo_trials h SET prune = :reason FROM trials t
WHERE h.trial_id = :t AND t.trial_id = h.trial_id AND t.state IN ('RUNNING', 'WAITING') RETURNING t.state::text
"""
TO_PRUNE = """
SELECT trial_id, prune FROM hpo_trials WHERE trial_id = ANY(:ids) AND prune IS NOT NULL
"""


def prune(
    engine: sa.Engine,
    study_ids: Sequence[int],
    trial_id: int,
    shown: str,
    who: str,
    *,
    expected: int | None = None,
) -> str | None:
    """Has a trial pruned that runs or waits; returns its state, None if it does neither.

    The worker that has it, or the next that gets it, prunes it. ``shown`` names it for people. Raises: as
    :func:`begin`.
    """
    with engine.begin() as connection:
        begin(connection, study_ids, expected)
        state: str | None = execute(connection, PRUNE, t=trial_id, reason=f"pruned by {who}").scalar()
        if state is not None:
            note(connection, study_ids, who, "pruned a trial", shown)
    return state


def to_prune(connection: sa.Connection, trial_ids: Sequence[int]) -> dict[int, str]:
    """Those of these trials that a person has pruned, with the reason."""
    if not trial_ids:
        return {}
    return dict(tuple(row) for row in execute(connection, TO_PRUNE, ids=list(trial_ids)))
