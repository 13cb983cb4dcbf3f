"""The trials of an experiment as a table: filtered, searched, sorted and cut into pages by the database.

Only the page that is shown is read whole, so 10,000 trials cost little more than 100.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hpo.database import attributes
from hpo.database.read_trials import READ_TRIALS_OF, frozen_trial
from hpo.errors import UsageError, near_miss
from hpo.experiment.experiment import Experiment, StudyHandle

STATES = ("complete", "pruned", "failed", "running", "waiting", "retried", "infeasible", "imported")
COLUMNS = {
    "state": "state",
    "value": "value",
    "sampler": "sampler",
    "repeat": "repeat",
    "epochs": "epochs",
    "time": "worker-time",
    "reason": "reason",
    "attempt": "attempt",
    "worker": "worker",
    "began": "began",
}
"""Column -> title, beside the trial's number and the hyperparameters."""
SHOWN = ("state", "value", "sampler", "repeat", "epochs", "time", "reason")
"""Columns that are shown if a person chooses none, with the hyperparameters."""
PAGE = 100
CHUNK = 1000

STATE = """CASE WHEN h.trial_id IS NULL AND t.state = 'WAITING' THEN 'waiting' WHEN h.trial_id IS NULL THEN 'imported'
  WHEN h.infeasible THEN 'infeasible' WHEN h.retried THEN 'retried' WHEN t.state = 'FAIL' THEN 'failed'
  ELSE lower(t.state::text) END"""
NUMBER = """(SELECT CASE WHEN a.value_json ~ '^-?[0-9]+([.][0-9]+)?(e[-+]?[0-9]+)?$'
  THEN CAST(a.value_json AS float8) END FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND a.key = '{}')"""
EPOCHS = f"""coalesce({NUMBER.format(attributes.EPOCHS)},
  (SELECT max(step) FROM trial_intermediate_values i WHERE i.trial_id = t.trial_id)
    * coalesce((SELECT seeds FROM hpo_studies s WHERE s.study_id = t.study_id), 1), 0)"""
TIME = f"""coalesce({NUMBER.format(attributes.SECONDS)}, CASE WHEN t.state = 'RUNNING'
  THEN CAST(extract(epoch FROM now() AT TIME ZONE 'UTC' - t.datetime_start) AS float8) END)"""
VALUE = "CASE WHEN v.value_type = 'FINITE' THEN v.value END"
TEXT = "(SELECT a.value_json FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND a.key = '{}')"
FROM = """
FROM trials t LEFT JOIN hpo_trials h USING (trial_id) LEFT JOIN trial_values v ON v.trial_id = t.trial_id
  AND v.objective = 0 WHERE t.study_id = ANY(:ids)"""
SORTS = {
    "trial": "t.number",
    "state": STATE,
    "value": VALUE,
    "sampler": "array_position(CAST(:ids AS integer[]), t.study_id)",
    "repeat": "array_position(CAST(:by_repeat AS integer[]), t.study_id)",
    "epochs": EPOCHS,
    "time": TIME,
    "reason": TEXT.format(attributes.REASON),
    "attempt": "coalesce(h.attempt, 0)",
    "worker": TEXT.format(attributes.WORKER),
    "began": "t.datetime_start",
}
PARAMETER = "(SELECT p.param_value FROM trial_params p WHERE p.trial_id = t.trial_id AND p.param_name = :sort_name)"
CONDITION = re.compile(r"(\S+?)(<=|>=|!=|=|<|>)(\S+)")
CHOICE = "(CAST(p.distribution_json AS json)->'attributes'->'choices'->>CAST(p.param_value AS integer))"
OBSERVED = """
SELECT DISTINCT p.param_name FROM trial_params p JOIN trials t USING (trial_id) WHERE t.study_id = ANY(:ids) ORDER BY 1
"""


@dataclass(frozen=True)
class Wanted:
    """What a person wants to see.

    Attributes:
        states: those of STATES that are shown; () for all that count, without the attempts that were tried again.
        sampler, repeat: only of these studies.
        search: words in the reason or the worker, a number, conditions such as ``lr<0.01`` and ``value>=0.9``.
        sort: a column, or ``param:NAME``.
    """

    states: tuple[str, ...] = ()
    sampler: str = ""
    repeat: str = ""
    search: str = ""
    sort: str = "trial"
    descending: bool = False


@dataclass(frozen=True)
class TrialRow:
    """A trial of the table; ``epochs`` finished, ``began`` a POSIX timestamp.

    ``seconds`` are its worker-seconds, in a pack its share of them; while it runs the time since it began.
    """

    study: StudyHandle
    trial_id: int
    number: int
    state: str
    value: float | None
    attempt: int
    epochs: int
    seconds: float | None
    began: float | None
    reason: str
    worker: str
    params: dict[str, Any]

    @property
    def name(self) -> str:
        """``SAMPLER/REPEAT/NUMBER``, as the commands take it."""
        return f"{self.study.sampler.label}/{self.study.repeat}/{self.number}"

    def cell(self, column: str) -> Any:
        """What stands in one of COLUMNS."""
        return {
            "state": self.state,
            "value": self.value,
            "sampler": self.study.sampler.label,
            "repeat": self.study.repeat,
            "epochs": self.epochs,
            "time": self.seconds,
            "reason": self.reason,
            "attempt": self.attempt,
            "worker": self.worker,
            "began": self.began,
        }[column]


class TrialTable:
    """The trials of an experiment that a person wants to see.

    Raises:
        UsageError: for a state, a column or a condition that there is not.
    """

    def __init__(self, experiment: Experiment, wanted: Wanted) -> None:
        self._engine = experiment.storage.engine
        self._studies = {study.study_id: study for study in experiment.studies}
        self.wanted = wanted
        self.parameters = self._parameter_names(experiment)
        chosen = [
            study
            for study in experiment.studies
            if wanted.sampler in ("", study.sampler.label) and wanted.repeat in ("", str(study.repeat))
        ]
        by_sampler = sorted(chosen, key=lambda study: (study.sampler.label, study.repeat))
        self._bound: dict[str, Any] = {
            "ids": [study.study_id for study in by_sampler],
            "by_repeat": [study.study_id for study in sorted(chosen, key=lambda study: study.repeat)],
        }
        self._where = self._conditions(wanted)
        self._order = self._sorting(wanted)

    def _parameter_names(self, experiment: Experiment) -> list[str]:
        names = list(experiment.content.get("space") or {})
        if names:
            return names
        with self._engine.connect() as connection:
            return list(connection.execute(sa.text(OBSERVED), {"ids": experiment.study_ids}).scalars())

    def _conditions(self, wanted: Wanted) -> str:
        for state in wanted.states:
            if state not in STATES:
                raise UsageError(f"there is no state {state!r}{near_miss(state, STATES)}: {', '.join(STATES)}")
        self._bound["states"] = list(wanted.states) or [s for s in STATES if s not in ("retried", "infeasible")]
        parts = [f"({STATE}) = ANY(:states)"]
        for index, word in enumerate(wanted.search.split()):
            if (match := CONDITION.fullmatch(word)) is not None:
                parts.append(self._comparison(index, *match.groups()))
            else:
                self._bound[f"word{index}"] = "%" + _escaped(json.dumps(word)[1:-1]) + "%"
                self._bound[f"number{index}"] = word.removeprefix("#")
                parts.append(
                    f"(CAST(t.number AS text) = :number{index} OR EXISTS (SELECT 1 FROM trial_user_attributes a "
                    f"WHERE a.trial_id = t.trial_id AND a.key IN ('{attributes.REASON}', '{attributes.WORKER}') "
                    f"AND a.value_json ILIKE :word{index}))"
                )
        return " AND ".join(parts)

    def _comparison(self, index: int, name: str, sign: str, text: str) -> str:
        sign = "<>" if sign == "!=" else sign
        number = _number(text)
        self._bound[f"number{index}"] = number
        columns = {"value": VALUE, "epochs": EPOCHS, "time": TIME, "trial": "t.number", "attempt": SORTS["attempt"]}
        if name in self.parameters:
            self._bound |= {f"name{index}": name, f"text{index}": text}
            is_choice = 'p.distribution_json LIKE \'{"name": "CategoricalDistribution"%\''
            of_choice = f"{CHOICE} {sign} :text{index}" if sign in ("=", "<>") else "false"
            return (
                "EXISTS (SELECT 1 FROM trial_params p WHERE p.trial_id = t.trial_id AND "
                f"p.param_name = :name{index} AND CASE WHEN {is_choice} THEN {of_choice} "
                f"ELSE p.param_value {sign} CAST(:number{index} AS float8) END)"
            )
        if name not in columns:
            known = [*columns, *self.parameters]
            raise UsageError(f"there is no column {name!r}{near_miss(name, known)}; conditions take {', '.join(known)}")
        if number is None:
            raise UsageError(f"{name}{sign}{text} is refused; expected a number")
        return f"({columns[name]}) {sign} CAST(:number{index} AS float8)"

    def _sorting(self, wanted: Wanted) -> str:
        direction = "DESC" if wanted.descending else "ASC"
        if wanted.sort.startswith("param:"):
            self._bound["sort_name"] = wanted.sort.removeprefix("param:")
            expression = PARAMETER
        elif wanted.sort in SORTS:
            expression = SORTS[wanted.sort]
        else:
            raise UsageError(f"there is no column {wanted.sort!r}{near_miss(wanted.sort, SORTS)} to sort by")
        return f"{expression} {direction} NULLS LAST, array_position(CAST(:ids AS integer[]), t.study_id), t.number"

    def count_states(self) -> dict[str, int]:
        """How many trials there are in each state, in the order of STATES."""
        query = f"SELECT {STATE}, count(*) {FROM} AND {self._where} GROUP BY 1"
        with self._engine.connect() as connection:
            found = {state: int(number) for state, number in connection.execute(sa.text(query), self._bound)}
        return {state: found[state] for state in STATES if state in found}

    def page(self, number: int, size: int = PAGE) -> list[TrialRow]:
        """The trials of a page, from 1."""
        return self.rows_of(self._ids(f"LIMIT {int(size)} OFFSET {int(size) * (max(1, number) - 1)}"))

    def all(self) -> Iterator[TrialRow]:
        """Every trial, read in parts."""
        ids = self._ids("")
        for start in range(0, len(ids), CHUNK):
            yield from self.rows_of(ids[start : start + CHUNK])

    def _ids(self, limit: str) -> list[int]:
        query = f"SELECT t.trial_id {FROM} AND {self._where} ORDER BY {self._order} {limit}"
        with self._engine.connect() as connection:
            return list(connection.execute(sa.text(query), self._bound).scalars())

    def rows_of(self, ids: Sequence[int]) -> list[TrialRow]:
        """These trials, in this order."""
        facts = f"SELECT t.trial_id, t.study_id, {STATE}, coalesce(h.attempt, 0), {EPOCHS}, {TIME}, {VALUE} {FROM} "
        with self._engine.connect() as connection:
            bound = {"ids": self._bound["ids"], "trial_ids": list(ids)}
            rows = connection.execute(sa.text(f"{facts} AND t.trial_id = ANY(:trial_ids)"), bound).all()
            read = connection.execute(sa.text(READ_TRIALS_OF), {"trial_ids": list(ids)}).all()
        trials = {row[0]: frozen_trial(row) for row in read}
        found = {}
        for trial_id, study_id, state, attempt, epochs, seconds, value in rows:
            trial = trials[trial_id]
            began = trial.datetime_start
            found[trial_id] = TrialRow(
                self._studies[study_id],
                trial_id,
                trial.number,
                state,
                value,
                max(0, attempt),
                int(epochs),
                seconds,
                None if began is None else began.timestamp(),
                str(trial.user_attrs.get(attributes.REASON, "")),
                str(trial.user_attrs.get(attributes.WORKER, "")),
                trial.params,
            )
        return [found[trial_id] for trial_id in ids if trial_id in found]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _escaped(text: str) -> str:
    """The text in a pattern of LIKE."""
    return text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
