"""The short run with a person in it: every row of its table holds."""

from pathlib import Path

import pytest

from benchmarks.chaos_record import as_text
from benchmarks.chaos_users import run_plan, short_plan

REPOSITORY = Path(__file__).parents[2]


def test_every_row_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HPO_STORAGE", "HPO_HOME", "HPO_CHECKPOINT_DIR", "HPO_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    run, _, rows = run_plan(short_plan(), tmp_path, limit_seconds=200)
    assert all(count >= 1 for count in run.done.values())
    assert {"enqueue_bad", "add_finished", "rename", "edit", "worker SIGKILL", "launcher SIGHUP"} <= set(run.done)
    assert all(holds for _, holds, _ in rows), as_text(rows)
