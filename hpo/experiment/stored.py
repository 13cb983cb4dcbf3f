"""What the database holds of experiments, read without the trainer's code.

A study belongs to an experiment if our own table ``hpo_studies`` has a row for it. Its attributes alone do not make it
one: a study that a person copies with Optuna or renames in Optuna's dashboard carries the same attributes, but is his.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from hpo.database import attributes
from hpo.errors import ExperimentError, near_miss

StudyRow = tuple[int, str, dict[str, Any]]
"""Study id, study name, our attributes."""

MOST_NAMES = 8

STUDIES = """
SELECT s.study_id, s.study_name, json_object_agg(a.key, a.value_json)::text
FROM studies s JOIN hpo_studies USING (study_id) JOIN study_user_attributes a USING (study_id)
WHERE a.key LIKE 'hpo:%' AND s.study_id IN (
    SELECT study_id FROM study_user_attributes
    WHERE key = :experiment_key AND (CAST(:name_json AS text) IS NULL OR value_json = :name_json))
GROUP BY s.study_id, s.study_name ORDER BY s.study_id
"""
NAMES = """
SELECT a.value_json, min(study_id) FROM study_user_attributes a JOIN hpo_studies USING (study_id)
WHERE a.key = :experiment_key GROUP BY 1 ORDER BY 2
"""


def study_rows(connection: sa.Connection, name: str | None) -> list[StudyRow]:
    """The studies of the experiment (of all experiments for None), in the order in which they were made."""
    parameters = {
        "experiment_key": attributes.EXPERIMENT,
        "name_json": None if name is None else json.dumps(name),
    }
    rows = connection.execute(sa.text(STUDIES), parameters)
    return [
        (study_id, study_name, {key: json.loads(value) for key, value in json.loads(attrs).items()})
        for study_id, study_name, attrs in rows
    ]


def names(connection: sa.Connection) -> list[str]:
    """The experiments in the database, in the order in which they were made."""
    rows = connection.execute(sa.text(NAMES), {"experiment_key": attributes.EXPERIMENT})
    return [str(json.loads(name)) for name, _ in rows]


def unknown_experiment(name: str, known: Iterable[str], place: str = "") -> ExperimentError:
    """The error for a name that no experiment has; ``place`` is the database's masked address."""
    known = list(known)
    hint = near_miss(name, known)
    if not hint:
        more = ", …" if len(known) > MOST_NAMES else ""
        hint = f"; there are {', '.join(known[:MOST_NAMES])}{more}" if known else "; there is none yet"
    return ExperimentError(f"there is no experiment {name!r}{f' at {place}' if place else ''}{hint}")


def trainer_modules(attrs: Mapping[str, Any]) -> str:
    """The modules that the experiment was launched with, as ``--trainers`` takes them; "" if they are not recorded.

    They are a suggestion for a person. Nothing imports them from here: whoever may write to the database could
    otherwise run code on every machine that reads it.
    """
    modules = attrs.get(attributes.TRAINER_MODULES)
    return modules if isinstance(modules, str) and modules.isprintable() else ""
