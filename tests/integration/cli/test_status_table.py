"""``hpo status`` without a name: a row for each experiment."""

import json

import pytest
from typer.testing import CliRunner

from hpo.cli.main import app
from hpo.database.storage import Storage
from hpo.experiment.summaries import summaries
from tests.searches import fill


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_row_for_each_experiment(storage: Storage, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_STORAGE", address)
    assert "no experiment yet: hpo launch STUDY_FILE" in run("status")
    fill(storage, "done", ("random", "tpe"), 2, 4)
    fill(storage, "a" * 60, ("random",), 1, 8, finished=3)
    first, second = summaries(storage)
    assert (first.name, first.state, first.studies, first.ended, first.num_trials) == ("done", "finished", 4, 16, 16)
    assert (second.state, second.ended, second.num_trials) == ("running", 3, 8)
    assert first.best is not None
    assert 0.5 < first.best < 0.96
    shown = run("status")
    assert shown.splitlines()[0].split() == ["experiment", "state", "trials", "failed", "best", "began", "took"]
    assert f"{first.best:.6g}" in shown
    assert "16/16" in shown
    listed = json.loads(run("status", "--json"))
    assert listed["experiments"] == ["done", "a" * 60]
    assert listed["summaries"][0]["began"].startswith("2026-03-01T")
