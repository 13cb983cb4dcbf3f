"""``hpo doctor``: a check of each thing, with the mend for what is missing."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpo.cli.main import app
from hpo.doctor import examine
from hpo.settings import Settings


def test_all_is_well(address: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_STORAGE", address)
    done = CliRunner().invoke(app, ["doctor", "--json", "--home", str(home)])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    names = [check["name"] for check in told["checks"]]
    assert told["ok"]
    assert {"python", "optuna", "home", "disk", "postgres", "rights", "gpus", "data", "machine"} <= set(names)
    assert not [check for check in told["checks"] if check["verdict"] == "ok" and not check["found"]]
    shown = CliRunner().invoke(app, ["doctor", "--home", str(home)]).stdout
    assert "searches can run here" in shown


def test_each_problem_has_its_mend(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    settings = Settings.given(
        storage="postgresql://u:secret@127.0.0.1:1/x", home=file / "home", data_dir=tmp_path / "nothing"
    )
    problems = {check.name: check for check in examine(settings) if check.verdict == "problem"}
    assert problems.keys() >= {"home", "postgres", "data"}
    assert all(check.mend for check in problems.values())
    assert "secret" not in problems["postgres"].found
    assert "HPO_HOME" in problems["home"].mend
    assert "--data-dir" in problems["data"].mend
    done = CliRunner().invoke(app, ["doctor", "--storage", "postgresql://127.0.0.1:1/x", "--home", str(file / "home")])
    assert done.exit_code == 1
    assert "-> " in done.stdout
