"""Imported trials: finished elsewhere, known to a study's sampler, and nothing else of the study.

They have a table of their own beside Optuna's trials, so they are in no budget, no Optuna client takes one for the
study's best, and an export or a comparison cannot meet one. A study's rows go with the study.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from hpo.database.trial_writes import execute

State = Literal["complete", "pruned"]


@dataclass(frozen=True)
class ImportedTrial:
    """A finished trial of somewhere else, as a point of the study's space.

    Attributes:
        content: equal for what is the same trial: a study has it once, however often it is imported.
        value: the metric's value; None for a pruned trial without one.
        params: of the parameters that are active.
        source: the experiment or file that it is from.
    """

    content: str
    state: State
    value: float | None
    params: Mapping[str, Any]
    source: str


INSERT = """
INSERT INTO hpo_imported (study_id, content, state, value, params, source)
SELECT :s, * FROM unnest(
  CAST(:content AS text[]), CAST(:state AS text[]), CAST(:value AS float8[]), CAST(:params AS text[]),
  CAST(:source AS text[]))
ON CONFLICT (study_id, content) DO NOTHING RETURNING 1
"""


def add(connection: sa.Connection, study_id: int, trials: Iterable[ImportedTrial]) -> int:
    """Adds what the study does not have yet; returns how many those were."""
    rows = list(trials)
    inserted = execute(
        connection,
        INSERT,
        s=study_id,
        content=[trial.content for trial in rows],
        state=[trial.state for trial in rows],
        value=[trial.value for trial in rows],
        params=[json.dumps(dict(trial.params)) for trial in rows],
        source=[trial.source for trial in rows],
    )
    return len(inserted.all())


def of_study(connection: sa.Connection, study_id: int) -> list[ImportedTrial]:
    """The imported trials of a study, in the order in which they came."""
    rows = execute(
        connection,
        "SELECT content, state, value, params, source FROM hpo_imported WHERE study_id = :s ORDER BY imported_id",
        s=study_id,
    )
    return [
        ImportedTrial(content, state, value, json.loads(params), source)
        for content, state, value, params, source in rows
    ]


def count(connection: sa.Connection, study_ids: Sequence[int]) -> dict[int, int]:
    """How many imported trials each of the studies has; those without any are missing."""
    query = "SELECT study_id, count(*) FROM hpo_imported WHERE study_id = ANY(:ids) GROUP BY 1"
    return {row[0]: row[1] for row in execute(connection, query, ids=list(study_ids))}
