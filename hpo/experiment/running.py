"""What runs now: each running trial of an experiment with its worker and the epochs that it has reported."""

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


def running_trials(connection: sa.Connection, study_ids: Sequence[int]) -> list[dict[str, Any]]:
    """``study_id``, ``trial``, ``worker`` (host:pid:start:random) and ``epochs`` of each running trial."""
    rows = connection.execute(sa.text(RUNNING), {"study_ids": list(study_ids), "most": MOST_RUNNING})
    return [{"study_id": row[0], "trial": row[1], "worker": row[2], "epochs": row[3]} for row in rows]
