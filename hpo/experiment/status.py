"""Where an experiment stands, in a few queries whatever its size."""

import json
from typing import Any

import sqlalchemy as sa

from hpo.database import attributes
from hpo.database.claims import read_budgets
from hpo.experiment.experiment import Experiment
from hpo.files.checkpoints import CheckpointFolder

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "running", "WAITING": "waiting", "FAIL": "failed"}

COUNTS = """
SELECT t.study_id, t.state::text, h.retried, count(*) FROM trials t JOIN hpo_trials h USING (trial_id)
WHERE t.study_id = ANY(:study_ids) AND NOT h.infeasible GROUP BY 1, 2, 3
"""
EPOCHS = """
SELECT h.study_id, count(*) FROM hpo_trials h JOIN trial_intermediate_values v USING (trial_id)
WHERE h.study_id = ANY(:study_ids) AND NOT h.retried GROUP BY 1
"""
SECONDS = """
SELECT h.study_id, sum(CAST(a.value_json AS float8)) FROM hpo_trials h JOIN trial_user_attributes a USING (trial_id)
WHERE h.study_id = ANY(:study_ids) AND a.key = :key GROUP BY 1
"""
BEST = """
SELECT DISTINCT ON (t.study_id) t.study_id, t.number, v.value,
  (SELECT value_json FROM trial_user_attributes WHERE trial_id = t.trial_id AND key = :key)
FROM trials t JOIN trial_values v USING (trial_id)
WHERE t.study_id = ANY(:study_ids) AND t.state = 'COMPLETE' AND v.value IS NOT NULL
ORDER BY t.study_id, v.value {}, t.number
"""


def snapshot(experiment: Experiment, checkpoint_root: str | None = None) -> dict[str, Any]:
    """What ``hpo status --json`` prints: states count lineages, so a retried trial counts once.

    With ``checkpoint_root`` also ``checkpoint_bytes``, the disk that the experiment's checkpoints take.
    """
    ids = experiment.study_ids
    direction = "DESC" if experiment.study_file.direction == "maximize" else "ASC"
    with experiment.storage.engine.connect() as connection:

        def rows(sql: str, **parameters: Any) -> list[Any]:
            return list(connection.execute(sa.text(sql), {"study_ids": ids, **parameters}))

        counts = rows(COUNTS)
        epochs = dict(map(tuple, rows(EPOCHS)))
        seconds = dict(map(tuple, rows(SECONDS, key=attributes.SECONDS)))
        best = {row[0]: row for row in rows(BEST.format(direction), key=attributes.CONFIG)}
        budgets = {budget.study_id: budget for budget in read_budgets(connection, ids)}
    studies = []
    for handle in experiment.studies:
        states = dict.fromkeys(STATES.values(), 0)
        retried = 0
        for study_id, state, was_retried, count in counts:
            if study_id == handle.study_id:
                if was_retried:
                    retried += count
                else:
                    states[STATES[state]] += count
        entry: dict[str, Any] = {
            "name": handle.name,
            "sampler": handle.sampler.label,
            "repeat": handle.repeat,
            "budget": experiment.study_file.budget_for(handle.sampler).as_dict(),
            "states": states,
            "retried": retried,
            "finished": handle.study_id in budgets and budgets[handle.study_id].finished,
            "epochs": epochs.get(handle.study_id, 0),
            "seconds": round(seconds.get(handle.study_id) or 0.0, 1),
            "best": None,
        }
        if (row := best.get(handle.study_id)) is not None:
            entry["best"] = {"trial": row[1], "value": row[2], "config": json.loads(row[3]) if row[3] else {}}
        studies.append(entry)
    result: dict[str, Any] = {"experiment": experiment.name, "studies": studies}
    if checkpoint_root is not None:
        result["checkpoint_bytes"] = sum(
            CheckpointFolder(checkpoint_root, handle.key).size_bytes() for handle in experiment.studies
        )
    return result
