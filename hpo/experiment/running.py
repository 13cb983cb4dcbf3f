"""What runs now: each running trial with its worker and the epochs that it has reported, and what workers warn of."""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

MOST_RUNNING = 1000
"""Running trials that are listed; a live view shows far fewer."""

RUNNING = """
SELECT t.study_id, t.number, h.worker,
  (SELECT count(*) FROM trial_intermediate_values v WHERE v.trial_id = t.trial_id)
FROM trials t JOIN hpo_trials h USING (trial_id)
WHERE t.study_id = ANY(:study_ids) AND t.state = 'RUNNING' ORDER BY h.worker, t.study_id, t.number LIMIT :most
"""


WARNINGS = """
SELECT report FROM hpo_workers WHERE study_id = ANY(:study_ids) AND ended_at IS NULL
AND seen_at > now() AT TIME ZONE 'UTC' - make_interval(secs => 60) ORDER BY started_at LIMIT :most
"""
MOST_WARNINGS = 10


def worker_warnings(connection: sa.Connection, study_ids: Sequence[int]) -> list[str]:
    """The newest warnings in the logs of the workers that are alive, each text once."""
    reports = connection.execute(sa.text(WARNINGS), {"study_ids": list(study_ids), "most": MOST_RUNNING}).scalars()
    texts = [text for report in reports for text in json.loads(report).get("warnings", ())]
    return list(dict.fromkeys(texts))[:MOST_WARNINGS]


def running_trials(connection: sa.Connection, study_ids: Sequence[int]) -> list[dict[str, Any]]:
    """``study_id``, ``trial``, ``worker`` (host:pid:start:random) and ``epochs`` of each running trial."""
    rows = connection.execute(sa.text(RUNNING), {"study_ids": list(study_ids), "most": MOST_RUNNING})
    return [{"study_id": row[0], "trial": row[1], "worker": row[2], "epochs": row[3]} for row in rows]
