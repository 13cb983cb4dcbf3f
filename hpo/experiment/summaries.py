"""All experiments of a database, a summary each: state, trials, best value, when. ``hpo status`` prints them.

A handful of queries whatever the number of experiments; no trial is read by itself.
"""

import datetime
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.database.study_budget import read_budgets
from hpo.experiment import stored
from hpo.experiment.status import count_trials

TIMES = """
SELECT study_id, min(datetime_start), max(coalesce(datetime_complete, datetime_start)) FROM trials
WHERE study_id = ANY(:study_ids) GROUP BY 1
"""
BESTS = """
SELECT h.study_id, min(v.value), max(v.value) FROM hpo_trials h JOIN trials t USING (trial_id)
JOIN trial_values v USING (trial_id)
WHERE h.study_id = ANY(:study_ids) AND t.state = 'COMPLETE' AND NOT h.retried AND v.objective = 0
  AND v.value_type = 'FINITE' GROUP BY 1
"""


@dataclass(frozen=True)
class Summary:
    """One experiment.

    Attributes:
        state: ``finished``, ``running``, ``not finished`` or ``not started``.
        ended: trials that count and have ended, of them ``failed``; ``running`` trials run.
        num_trials: the budget in trials over all studies; None if it is in epochs or time.
        best: the best value of a single trial; None before the first.
        began, last: when the first trial began and when a trial last began or ended, as local time of the workers.
    """

    name: str
    state: str
    studies: int
    ended: int
    failed: int
    running: int
    num_trials: int | None
    metric: str
    best: float | None
    began: datetime.datetime | None
    last: datetime.datetime | None

    def as_dict(self) -> dict[str, Any]:
        times = {name: time and time.isoformat(timespec="seconds") for name, time in self._times().items()}
        return {**{key: value for key, value in vars(self).items() if key not in times}, **times}

    def _times(self) -> dict[str, datetime.datetime | None]:
        return {"began": self.began, "last": self.last}


def summaries(storage: Storage) -> list[Summary]:
    """A summary of each experiment, in the order in which they were made."""
    with storage.engine.connect() as connection:
        rows = stored.study_rows(connection, None)
        ids = [study_id for study_id, _, _ in rows]
        counts = count_trials(connection, ids)
        budgets = {budget.study_id: budget for budget in read_budgets(connection, ids)}
        times = {row[0]: row[1:] for row in connection.execute(sa.text(TIMES), {"study_ids": ids})}
        bests = {row[0]: row[1:] for row in connection.execute(sa.text(BESTS), {"study_ids": ids})}
    groups: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for study_id, _, attrs in rows:
        groups.setdefault(str(attrs[attributes.EXPERIMENT]), []).append((study_id, attrs))
    found = []
    for name, studies in groups.items():
        own = [study_id for study_id, _ in studies]
        content = studies[0][1].get(attributes.STUDY_FILE) or {}
        index, choose = (1, max) if content.get("direction") == "maximize" else (0, min)
        values = [bests[study_id][index] for study_id in own if study_id in bests]
        states = {state: sum(counts[study_id].states[state] for study_id in own) for state in ("failed", "running")}
        ended = sum(counts[study_id].ended for study_id in own)
        in_trials = [budgets[study_id].num_lineages for study_id in own if study_id in budgets]
        is_finished = all(budgets[study_id].finished for study_id in own if study_id in budgets)
        state = "not finished" if ended else "not started"
        if states["running"]:
            state = "running"
        elif is_finished:
            state = "finished"
        found.append(
            Summary(
                name=name,
                state=state,
                studies=len(own),
                ended=ended,
                failed=states["failed"],
                running=states["running"],
                num_trials=sum(n for n in in_trials if n) if in_trials and None not in in_trials else None,
                metric=str(content.get("metric", "")),
                best=choose(values) if values else None,
                began=min((times[i][0] for i in own if i in times and times[i][0]), default=None),
                last=max((times[i][1] for i in own if i in times and times[i][1]), default=None),
            )
        )
    return found
