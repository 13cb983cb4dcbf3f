"""The short chaos run: everything is killed, stopped, cut and restarted, and every row of its table holds.

And the table can fail: in copies of the finished run's database one thing is made wrong, which shows in its row alone.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from benchmarks.chaos import Run, finished_run, short_plan
from benchmarks.chaos_record import Row, as_text

BUDGET = "finished trials equal the budget"
CELLS = "every cell finished once"
LEFT = "nothing left RUNNING or WAITING"
BEGUN_LATE = "no epoch begun after the lease was lost"
RECORDED_LATE = "nothing recorded after the lease was lost"
REPEATED = "work repeated: at most one epoch an interruption"
VALUES = "every reported value is what was computed"
GAPS = "no gaps, every interruption explained"
ROWS = [BUDGET, CELLS, LEFT, BEGUN_LATE, RECORDED_LATE, REPEATED, VALUES, GAPS]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, list[Row]]]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HPO_STORAGE", "HPO_HOME", "HPO_CHECKPOINT_DIR", "HPO_DATA"):
            patch.delenv(name, raising=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with finished_run(short_plan(), tmp_path_factory.mktemp("chaos"), limit_seconds=240) as (run, _):
            yield run, run.check()


def test_every_row_holds(finished: tuple[Run, list[Row]]) -> None:
    run, rows = finished
    plan = short_plan()
    assert run.done == {
        "kill": plan.kills,
        "stop": plan.stops,
        "cut": plan.cuts,
        "launcher": plan.launcher_kills,
        "server-kill": 1,
        "server-down": 1,
    }
    assert [name for name, _, _ in rows] == ROWS
    assert all(holds for _, holds, _ in rows), as_text(rows)


STUDY = "(SELECT study_id FROM studies WHERE study_name = 'chaos/{study}/0')"
# A trial after all others, finished or not, in a lineage of its own.
INSERT = f"""
WITH added AS (
  INSERT INTO trials (study_id, number, state)
  VALUES ({STUDY}, (SELECT count(*) FROM trials WHERE study_id = {STUDY}), '{{state}}') RETURNING trial_id, study_id
), placed AS (
  INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt)
  SELECT trial_id, study_id, (SELECT max(lineage) + 1 FROM hpo_trials h WHERE h.study_id = added.study_id), 0 FROM added
)
INSERT INTO trial_user_attributes (trial_id, key, value_json)
SELECT added.trial_id, key, value_json FROM added, trial_user_attributes a
WHERE key = 'config' AND a.trial_id = (SELECT min(trial_id) FROM trials WHERE study_id = {STUDY})
"""
ONE_REPORT = """
SELECT trial_intermediate_value_id FROM trial_intermediate_values JOIN hpo_trials USING (trial_id)
WHERE NOT retried ORDER BY 1 LIMIT 1
"""
LAST = f"(SELECT max(trial_id) FROM trials WHERE study_id = {STUDY.format(study='tpe')})"
RETRIED = "SELECT trial_id FROM hpo_trials JOIN trials USING (trial_id) WHERE retried"


@pytest.mark.parametrize(
    ("sql", "wrong"),
    [
        ("SELECT 1", []),
        (INSERT.format(study="tpe", state="COMPLETE"), [BUDGET]),
        (INSERT.format(study="grid", state="COMPLETE"), [CELLS]),
        (INSERT.format(study="tpe", state="RUNNING"), [LEFT]),
        (INSERT.format(study="tpe", state="WAITING"), [LEFT]),
        (f"UPDATE hpo_trials SET retried = true WHERE trial_id = {LAST}", [BUDGET]),
        (
            "UPDATE trial_intermediate_values SET intermediate_value = intermediate_value + 1e-15 "
            f"WHERE trial_intermediate_value_id IN ({ONE_REPORT})",
            [VALUES],
        ),
        (f"UPDATE trials SET number = number + 1 WHERE trial_id = {LAST}", [GAPS]),
        (f"DELETE FROM trial_user_attributes WHERE key = 'reason' AND trial_id IN ({RETRIED})", [GAPS]),
        # As if all of them had been lost an hour earlier: then all that their workers did since was too late.
        (
            "UPDATE trials SET datetime_complete = datetime_complete - interval '1 hour' "
            f"WHERE trial_id IN ({RETRIED})",
            [BEGUN_LATE, RECORDED_LATE],
        ),
    ],
)
def test_the_table_shows_what_is_wrong(finished: tuple[Run, list[Row]], sql: str, wrong: list[str]) -> None:
    run, _ = finished
    copy = run.server.address.removesuffix("/hpo") + "/copy"
    execute(run.server.address.removesuffix("/hpo") + "/postgres", "CREATE DATABASE copy TEMPLATE hpo")
    try:
        execute(copy, sql)
        assert failing(run.check(copy)) == wrong
    finally:
        execute(run.server.address.removesuffix("/hpo") + "/postgres", "DROP DATABASE copy")


def test_the_table_shows_work_done_twice(finished: tuple[Run, list[Row]]) -> None:
    run, _ = finished
    lines = run.lines()
    # More repetitions than there were interruptions of anything, by a process that is none of the workers.
    again: list[dict[str, Any]] = [{**lines[0], "pid": -1}] * 50
    run.log.write_bytes(run.log.read_bytes() + b"".join(json.dumps(line).encode() + b"\n" for line in again))
    assert failing(run.check()) == [REPEATED]


def failing(rows: list[Row]) -> list[str]:
    return [name for name, holds, _ in rows if not holds]


def execute(address: str, sql: str) -> None:
    connection = psycopg2.connect(address)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(sql)
    connection.close()
