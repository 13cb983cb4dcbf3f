"""Reads many trials of a study in one statement, as Optuna's FrozenTrial."""

import datetime
import functools
import json
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

# One row a trial, or one of nulls for a study in which there is none to read; no row where there is no such study.
# The child tables are read through their unique indexes on trial_id, so the cost is that of the trials that are
# wanted, and 10,000 of them come in one round trip.
TRIAL_COLUMNS = """
SELECT t.trial_id, t.number, t.state::text, t.datetime_start, t.datetime_complete,
  (SELECT json_agg(json_build_array(value, value_type::text) ORDER BY objective)::text
     FROM trial_values WHERE trial_id = t.trial_id),
  (SELECT json_agg(json_build_array(param_name, param_value, distribution_json) ORDER BY param_id)::text
     FROM trial_params WHERE trial_id = t.trial_id),
  (SELECT json_object_agg(key, value_json)::text FROM trial_user_attributes WHERE trial_id = t.trial_id),
  (SELECT json_object_agg(key, value_json)::text FROM trial_system_attributes WHERE trial_id = t.trial_id),
  (SELECT json_agg(json_build_array(step, intermediate_value, intermediate_value_type::text) ORDER BY step)::text
     FROM trial_intermediate_values WHERE trial_id = t.trial_id)
"""
READ_TRIALS = TRIAL_COLUMNS + "FROM studies s LEFT JOIN trials t ON {} WHERE s.study_id = :study_id ORDER BY t.trial_id"
READ_MARKS = """
SELECT t.trial_id, t.number, h.lineage, h.attempt, a.key, a.value_json
FROM trial_system_attributes a JOIN trials t USING (trial_id) LEFT JOIN hpo_trials h USING (trial_id)
WHERE a.trial_system_attribute_id > :after AND t.study_id = :study_id ORDER BY a.trial_system_attribute_id
"""
LAST_MARK = "SELECT coalesce(max(trial_system_attribute_id), 0) FROM trial_system_attributes"
READ_TRIALS_OF = TRIAL_COLUMNS + "FROM trials t WHERE t.trial_id = ANY(:trial_ids)"


@dataclass(frozen=True)
class Mark:
    """A system attribute of a trial, such as the value with which it has passed a rung.

    ``lineage`` and ``attempt`` are None for a trial that a person has added.
    """

    trial_id: int
    number: int
    lineage: int | None
    attempt: int | None
    key: str
    value: Any


_SPECIAL = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}


_distribution = functools.lru_cache(maxsize=4096)(json_to_distribution)


@functools.lru_cache(maxsize=65536)
def _external(distribution_json: str, value: float) -> Any:
    return _distribution(distribution_json).to_external_repr(value)


def frozen_trial(row: Any) -> FrozenTrial:
    trial_id, number, state, start, complete, values, params, user_attrs, system_attrs, reports = row
    parameters: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for name, value, distribution_json in json.loads(params) if params else ():
        distributions[name] = _distribution(distribution_json)
        parameters[name] = _external(distribution_json, value)
    return FrozenTrial(
        number=number,
        state=TrialState[state],
        value=None,
        values=[_SPECIAL.get(kind, value) for value, kind in json.loads(values)] if values else None,
        datetime_start=_local(start),
        datetime_complete=_local(complete),
        params=parameters,
        distributions=distributions,
        user_attrs=_decoded(user_attrs),
        system_attrs=_decoded(system_attrs),
        intermediate_values={s: _SPECIAL.get(kind, v) for s, v, kind in json.loads(reports)} if reports else {},
        trial_id=trial_id,
    )


def _decoded(attributes: str | None) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in json.loads(attributes).items()} if attributes else {}


def _local(utc: datetime.datetime | None) -> datetime.datetime | None:
    """Optuna stores naive UTC and shows naive local time."""
    return None if utc is None else utc.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)
