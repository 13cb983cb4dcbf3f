"""What must hold after a chaotic run, from the database and the trainer's own log: a table of rows that hold or not."""

import json
from collections import Counter, defaultdict
from typing import Any

import psycopg2

from benchmarks.sleeping import Config, value_of

TPE, GRID = "chaos/tpe/0", "chaos/grid/0"
Row = tuple[str, bool, str]
"""What must hold, whether it does, the figures."""

TRIALS = """
SELECT s.study_name, t.trial_id, t.number, t.state::text, h.lineage, h.attempt, h.retried, h.worker,
  extract(epoch FROM t.datetime_complete AT TIME ZONE 'UTC')::float8,
  (SELECT json_object_agg(key, value_json) FROM trial_user_attributes a WHERE a.trial_id = t.trial_id),
  (SELECT json_object_agg(step, intermediate_value) FROM trial_intermediate_values v WHERE v.trial_id = t.trial_id)
FROM trials t JOIN studies s USING (study_id) LEFT JOIN hpo_trials h USING (trial_id) ORDER BY t.trial_id
"""


def check(address: str, lines: list[dict[str, Any]], *, budget: int, num_cells: int) -> list[Row]:
    """Every row of the table. ``lines`` are the trainer's log, ``budget`` the trials of the TPE study."""
    connection = psycopg2.connect(address)
    with connection.cursor() as cursor:
        cursor.execute(TRIALS)
        rows = cursor.fetchall()
    connection.close()
    trials = []
    for study, trial_id, number, state, lineage, attempt, retried, worker, ended, attrs, reports in rows:
        values = {key: json.loads(value) for key, value in (attrs or {}).items()}
        trials.append(
            {
                "study": study, "id": trial_id, "number": number, "state": state, "lineage": lineage,
                "attempt": attempt, "retried": retried, "pid": int(worker.split(":")[1]) if worker else None,
                "ended": ended, "attrs": values, "reports": {int(k): v for k, v in (reports or {}).items()},
            }
        )  # fmt: skip
    gaps_in = {study: [trial["number"] for trial in trials if trial["study"] == study] for study in (TPE, GRID)}
    # A trial without a place in the budget is a person's own. An enqueued one with values that cannot be used has a
    # place and no result.
    refused = Counter(trial["study"] for trial in trials if trial["attrs"].get("hpo:refused"))
    placed = [trial for trial in trials if trial["lineage"] is not None]
    trials = [trial for trial in placed if not trial["attrs"].get("hpo:refused")]
    final = [trial for trial in trials if not trial["retried"]]
    states = Counter((trial["study"], trial["state"]) for trial in final)
    by_seed: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        by_seed[line["seed"]].append(line)
    tpe, grid = TPE, GRID
    finished = {study: states[study, "COMPLETE"] + states[study, "PRUNED"] for study in (tpe, grid)}
    cells = Counter(
        (trial["attrs"]["config"]["lr"], trial["attrs"]["config"]["beta"]) for trial in final if trial["study"] == grid
    )
    left = sum(trial["state"] in ("RUNNING", "WAITING") for trial in trials)

    late_epochs, recorded_late, wrong, compared = 0, 0, 0, 0
    for trial in trials:
        seed, config = trial["attrs"].get("seed"), trial["attrs"].get("config")
        if seed is None or config is None:
            continue
        for epoch, value in trial["reports"].items():
            compared += 1
            wrong += value != value_of(Config(**config), seed, epoch)
        if trial["retried"]:
            own = [line for line in by_seed[seed] if line["pid"] == trial["pid"]]
            # Begun by this worker after it had lost the trial, and before it could have got a later attempt of it.
            again = min(
                (t["id"] for t in trials if t["study"] == trial["study"] and t["lineage"] == trial["lineage"]
                 and t["attempt"] > trial["attempt"] and t["pid"] == trial["pid"]), default=None,
            )  # fmt: skip
            if again is None:
                late_epochs = max(late_epochs, sum(line["started"] > trial["ended"] + 0.05 for line in own))
                late = {line["epoch"] for line in own if line["ended"] > trial["ended"]}
                recorded_late += len(late & {e for e in trial["reports"] if e > trial["attrs"].get("start_epoch", 0)})
    attempts = Counter((trial["study"], trial["lineage"]) for trial in trials)
    seeds = {(trial["study"], trial["lineage"]): trial["attrs"].get("seed") for trial in final}
    excess = 0
    repeated = 0
    for lineage, seed in seeds.items():
        again = len(by_seed[seed]) - len({line["epoch"] for line in by_seed[seed]})
        repeated += again
        excess += max(0, again - (attempts[lineage] - 1))
    gaps = 0
    for numbers in gaps_in.values():
        gaps += numbers != list(range(len(numbers)))
    attempts_made = {(trial["study"], trial["lineage"], trial["attempt"]) for trial in placed}
    unexplained = sum(
        trial["state"] == "FAIL"
        and not (
            trial["attrs"].get("reason") and (trial["study"], trial["lineage"], trial["attempt"] + 1) in attempts_made
        )
        for trial in trials
    )
    return [
        (
            "finished trials equal the budget",
            finished[tpe] + refused[tpe] == budget,
            f"{finished[tpe]} of {budget}" + (f", {refused[tpe]} enqueued ones refused" if refused[tpe] else ""),
        ),
        (
            "every cell finished once",
            len(cells) == num_cells and set(cells.values()) == {1} and finished[grid] == num_cells,
            f"{len(cells)} of {num_cells}, most often {max(cells.values(), default=0)}",
        ),
        ("nothing left RUNNING or WAITING", left == 0, f"{left} left"),
        ("no epoch begun after the lease was lost", late_epochs == 0, f"at most {late_epochs} by one worker"),
        ("nothing recorded after the lease was lost", recorded_late == 0, f"{recorded_late} reports"),
        (
            "work repeated: at most one epoch an interruption",
            excess == 0,
            f"{repeated} of {len(lines)} epochs, {len(trials) - len(final)} interruptions",
        ),
        ("every reported value is what was computed", wrong == 0, f"{compared} compared, {wrong} differ"),
        ("no gaps, every interruption explained", gaps == 0 and unexplained == 0, f"{len(trials)} rows"),
    ]


def as_text(rows: list[Row]) -> str:
    """The table, a line a row."""
    return "\n".join(f"{'holds' if holds else 'FAILS':6} {name:50} {figures}" for name, holds, figures in rows)
