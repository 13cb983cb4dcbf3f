"""Where an experiment stands: finished or not, how its lineages ended, what failed and why, the best result.

Every view uses these definitions: ``hpo status``, a launch, the comparison, the dashboard.

- A lineage counts once, by its last attempt. It is *complete*, *pruned*, *failed* (it will not be tried again by
  itself), *running* or *waiting*.
- A study is *finished* if its budget is given out and none of its lineages runs or waits, but for those that were given
  back when the time or the epochs of its budget were over (:mod:`hpo.database.study_budget`). A study that somebody
  deleted has nothing left to do.
- *Imported* trials were added by a person with Optuna, *infeasible* ones were refused draws; neither costs budget.
  *Knowledge* is what ``hpo import`` has brought: finished trials of elsewhere, which only the sampler sees.
- *Crashed* trials are failed ones that break their process or device whenever they are trained.
- *Refused* trials are failed ones that a person enqueued with values that cannot be used; they are not tried again.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa

from hpo.database import attributes, imported
from hpo.database.study_budget import StudyBudget, read_budgets
from hpo.experiment import results
from hpo.experiment.experiment import Experiment, StudyHandle
from hpo.experiment.running import running_trials, worker_warnings
from hpo.files.checkpoints import CheckpointFolder

State = Literal["complete", "pruned", "failed", "running", "waiting"]
STATES: dict[str, State] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "RUNNING": "running",
    "WAITING": "waiting",
    "FAIL": "failed",
}
MOST_FAILURES = 20
"""Failed lineages that are listed with their reason, for each study."""
PAUSE_FACTOR = 10.0
"""While trials keep ending, what reads every trial is read again after this multiple of the time that it took."""

COUNTS = """
SELECT t.study_id, t.state::text,
  CASE WHEN h.trial_id IS NULL THEN 'imported' WHEN h.infeasible THEN 'infeasible' WHEN h.retried THEN 'retried'
    WHEN t.state = 'FAIL' AND EXISTS (
      SELECT 1 FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND a.key = :refused) THEN 'refused'
    WHEN t.state = 'FAIL' AND EXISTS (
      SELECT 1 FROM trial_user_attributes a WHERE a.trial_id = t.trial_id AND a.key = :crashed) THEN 'crashed'
    ELSE 'counts' END, count(*)
FROM trials t LEFT JOIN hpo_trials h USING (trial_id) WHERE t.study_id = ANY(:study_ids) GROUP BY 1, 2, 3
"""
ACTIVE_EPOCHS = """
SELECT t.study_id, count(*) * s.seeds FROM trials t JOIN hpo_trials h USING (trial_id)
JOIN trial_intermediate_values v USING (trial_id) JOIN hpo_studies s ON s.study_id = t.study_id
WHERE t.study_id = ANY(:study_ids) AND t.state IN ('RUNNING', 'WAITING') GROUP BY t.study_id, s.seeds
"""
SECONDS = """
SELECT h.study_id,
  sum(CASE WHEN a.value_json ~ '^[0-9]+([.][0-9]+)?(e[-+]?[0-9]+)?$' THEN CAST(a.value_json AS float8) END)
FROM hpo_trials h JOIN trial_user_attributes a USING (trial_id)
WHERE h.study_id = ANY(:study_ids) AND a.key = :key GROUP BY 1
"""
DRAWN_BY = """
SELECT DISTINCT ON (t.study_id) t.study_id, a.value_json
FROM trials t JOIN trial_user_attributes a USING (trial_id)
WHERE t.study_id = ANY(:study_ids) AND a.key = :key ORDER BY t.study_id, t.number DESC
"""
SEEN = """
SELECT h.study_id, count(*), avg(CAST(CAST(a.value_json AS json) ->> 'results' AS float8)),
  avg(CAST(CAST(a.value_json AS json) ->> 'running' AS float8))
FROM hpo_trials h JOIN trial_user_attributes a USING (trial_id)
WHERE h.study_id = ANY(:study_ids) AND a.key = :key AND h.attempt = 0 GROUP BY 1
"""
FAILURES = """
SELECT study_id, trial_id, number, lineage, attempt FROM (
  SELECT t.study_id, t.trial_id, t.number, h.lineage, h.attempt,
    row_number() OVER (PARTITION BY t.study_id ORDER BY t.number DESC) AS place
  FROM trials t JOIN hpo_trials h USING (trial_id)
  WHERE t.study_id = ANY(:study_ids) AND t.state = 'FAIL' AND NOT h.retried
) AS failed WHERE place <= :most ORDER BY study_id, number
"""
ENDED: tuple[State, ...] = ("complete", "pruned", "failed")


class Counts:
    """The trials of one study by state and by whether they count."""

    def __init__(self) -> None:
        self.states: dict[State, int] = dict.fromkeys(STATES.values(), 0)
        self.knowledge = 0
        self.retried = self.imported = self.infeasible = self.refused = self.crashed = 0

    def add(self, state: str, kind: str, count: int) -> None:
        if kind in ("counts", "refused", "crashed"):
            self.states[STATES[state]] += count
            self.refused += count if kind == "refused" else 0
            self.crashed += count if kind == "crashed" else 0
        elif kind == "retried":
            self.retried += count
        elif kind == "infeasible":
            self.infeasible += count
        elif STATES[state] in ENDED:
            self.imported += count
        elif state == "WAITING":
            self.states["waiting"] += count  # a person has enqueued it

    def key(self) -> tuple[int, ...]:
        """Changes whenever a trial begins, ends, or is tried again."""
        return (
            *self.states.values(),
            self.retried,
            self.imported,
            self.infeasible,
            self.refused,
            self.crashed,
            self.knowledge,
        )

    @property
    def ended(self) -> int:
        return sum(self.states[state] for state in ENDED)


def count_trials(connection: sa.Connection, study_ids: Sequence[int]) -> dict[int, Counts]:
    """The counts of each of the studies."""
    counts = {study_id: Counts() for study_id in study_ids}
    parameters = {"study_ids": list(study_ids), "refused": attributes.REFUSED, "crashed": attributes.CRASHED}
    for study_id, state, kind, number in connection.execute(sa.text(COUNTS), parameters):
        counts[study_id].add(state, kind, number)
    for study_id, number in imported.count(connection, study_ids).items():
        counts[study_id].knowledge = number
    return counts


def failures(connection: sa.Connection, study_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """The newest failed lineages of each study, with the reason, the worker and where its log is."""
    rows = connection.execute(sa.text(FAILURES), {"study_ids": list(study_ids), "most": MOST_FAILURES}).all()
    attrs = results.trial_attributes(connection, [row[1] for row in rows])
    found: dict[int, list[dict[str, Any]]] = {study_id: [] for study_id in study_ids}
    for study_id, trial_id, number, lineage, attempt in rows:
        of = attrs[trial_id]
        found[study_id].append(
            {
                "trial": number,
                "lineage": lineage,
                "attempts": attempt + 1,
                "reason": str(of.get(attributes.REASON, "no reason was recorded")),
                "worker": of.get(attributes.WORKER),
                "log": of.get(attributes.LOG),
            }
        )
    return found


def snapshot(experiment: Experiment, checkpoint_root: str | None = None) -> dict[str, Any]:
    """What ``hpo status --json`` prints; needs none of the experiment's trainers.

    With ``checkpoint_root`` also ``checkpoint_bytes``, the disk that the experiment's checkpoints take.
    """
    ids = experiment.study_ids
    with experiment.storage.engine.connect() as connection:
        budgets = {b.study_id: b for b in read_budgets(connection, ids)}
        counts = count_trials(connection, ids)
        active = _by_study(connection, ACTIVE_EPOCHS, study_ids=ids)
        is_over = all(_is_finished(budgets.get(study_id)) for study_id in ids)
        totals = _totals(experiment, connection, counts, fresh=is_over)
        deciding = [handle.study_id for handle in experiment.studies if handle.sampler.name == "auto"]
        drawn_by = _by_study(connection, DRAWN_BY, study_ids=deciding, key=attributes.DRAWN_BY) if deciding else {}
        running = running_trials(connection, ids)
        warnings = [] if is_over else worker_warnings(connection, ids)
    studies = [
        _entry(handle, budgets.get(handle.study_id), counts[handle.study_id], active.get(handle.study_id, 0), totals)
        for handle in experiment.studies
    ]
    for study, handle in zip(studies, experiment.studies, strict=True):
        study["drawn_by"] = json.loads(drawn_by.get(handle.study_id, "null"))
    direction = experiment.direction
    result: dict[str, Any] = {"experiment": experiment.name, "direction": direction, "studies": studies}
    names = {handle.study_id: f"{handle.sampler.label}/{handle.repeat}" for handle in experiment.studies}
    result["running"] = [{"study": names[trial.pop("study_id")], **trial} for trial in running]
    result["warnings"] = warnings
    if checkpoint_root is not None:
        result["checkpoint_bytes"] = sum(
            CheckpointFolder(checkpoint_root, handle.key).size_bytes() for handle in experiment.studies
        )
    return result


def _entry(
    handle: StudyHandle, spent: StudyBudget | None, counts: Counts, active_epochs: int, totals: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": handle.name,
        "sampler": handle.sampler.label,
        "repeat": handle.repeat,
        "budget": {} if spent is None else spent.units,
        "seconds_left": None if spent is None or (left := spent.clock_seconds_left) is None else round(left, 1),
        "states": counts.states,
        "retried": counts.retried,
        "infeasible": counts.infeasible,
        "imported": counts.imported,
        "knowledge": counts.knowledge,
        "refused": counts.refused,
        "crashed": counts.crashed,
        "finished": _is_finished(spent),
        "deleted": spent is None,
        "epochs": (0 if spent is None else spent.epochs_spent) + active_epochs,
        "epochs_per_trial": 1 if spent is None else spent.epochs_per_trial,
        "seconds": round(totals["seconds"].get(handle.study_id) or 0.0, 1),
        "busy_share": _share(totals["busy"].get(handle.study_id), totals["slots"].get(handle.study_id)),
        "best": totals["best"].get(handle.study_id),
        "failures": totals["failures"][handle.study_id],
        "results_seen": totals["results_seen"].get(handle.study_id),
    }


def _share(busy: float | None, slots: float | None) -> float | None:
    """Share of the workers' slots' time in which they trained or evaluated; None before a trial has ended."""
    return round(busy / slots, 4) if busy is not None and slots else None


def _is_finished(spent: StudyBudget | None) -> bool:
    return spent is None or spent.finished


def _totals(
    experiment: Experiment, connection: sa.Connection, counts: Mapping[int, Counts], *, fresh: bool
) -> dict[str, Any]:
    """What reads every trial that has ended: read again only if more have ended, and not all the time."""
    key = [(study_id, count.retried, count.ended) for study_id, count in counts.items()]
    kept = experiment.cache.get("totals")
    if kept is not None:
        is_recent = not fresh and time.monotonic() - kept["at"] < PAUSE_FACTOR * kept["took"]
        if kept["key"] == key or is_recent:
            return dict(kept["totals"])
    started = time.monotonic()
    ids = list(counts)
    outcomes: dict[int, list[results.Outcome]] = {}
    for outcome in results.outcomes(connection, ids):
        outcomes.setdefault(outcome.study_id, []).append(outcome)
    best = {study_id: results.ranked(found, experiment.maximize) for study_id, found in outcomes.items()}
    attrs = results.trial_attributes(connection, [found[0].outcome.trial_id for found in best.values() if found])
    totals = {
        "best": {
            study_id: {
                "trial": found[0].outcome.number,
                "value": found[0].outcome.value,
                "config": results.configuration(attrs[found[0].outcome.trial_id]),
                "mean": found[0].mean,
                "runs": found[0].runs,
            }
            for study_id, found in best.items()
            if found
        },
        "seconds": _by_study(connection, SECONDS, study_ids=ids, key=attributes.SECONDS),
        "busy": _by_study(connection, SECONDS, study_ids=ids, key=attributes.BUSY_SECONDS),
        "slots": _by_study(connection, SECONDS, study_ids=ids, key=attributes.SLOT_SECONDS),
        "failures": failures(connection, ids),
        "results_seen": _results_seen(connection, ids),
    }
    now = time.monotonic()
    experiment.cache["totals"] = {"key": key, "at": now, "took": now - started, "totals": totals}
    return totals


def _results_seen(connection: sa.Connection, study_ids: Sequence[int]) -> dict[int, dict[str, float]]:
    """How much samplers that learn knew: ``drawn`` trials, ``mean`` results that were there when they were drawn, and
    ``mean_running``, how many other trials ran then."""
    rows = connection.execute(sa.text(SEEN), {"study_ids": list(study_ids), "key": attributes.SEEN})
    return {
        study_id: {"drawn": drawn, "mean": round(mean, 1), "mean_running": round(running, 1)}
        for study_id, drawn, mean, running in rows
    }


def _by_study(connection: sa.Connection, sql: str, **parameters: Any) -> dict[int, Any]:
    return {row[0]: row[1] for row in connection.execute(sa.text(sql), parameters)}


def is_finished(status: Mapping[str, Any]) -> bool:
    """Whether every study of a :func:`snapshot` has spent its budget and nothing runs or waits."""
    return all(study["finished"] for study in status["studies"])


def num_failed(status: Mapping[str, Any]) -> int:
    """How many lineages of a :func:`snapshot` have failed: they are in the budget, and no results.

    Trials that a person enqueued with values that cannot be used are not among them: nothing is to be mended here.
    """
    return sum(int(study["states"]["failed"]) - int(study["refused"]) for study in status["studies"])


def num_errors(status: Mapping[str, Any]) -> int:
    """How many of :func:`num_failed` ended by an error that somebody can mend.

    The others break their process or device whenever they are trained: the configuration's fault, and no reason to call
    a search failed in which others succeed.
    """
    return num_failed(status) - sum(int(study["crashed"]) for study in status["studies"])


def has_result(status: Mapping[str, Any]) -> bool:
    """Whether a :func:`snapshot` has a configuration to export."""
    return any(study["best"] is not None for study in status["studies"])
