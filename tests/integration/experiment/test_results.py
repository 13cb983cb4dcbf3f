"""What counts as a result: failed lineages and how they run again, means over seeds, older versions' figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from hpo.cli.main import app
from hpo.compare.comparison import compare_studies
from hpo.compare.load import Loader
from hpo.database import attributes, retries
from hpo.database.retries import retry_failed
from hpo.database.storage import Storage
from hpo.database.trial_writes import Writes
from hpo.experiment.experiment import Experiment, create_experiment, load_experiment
from hpo.experiment.results import Outcome, best_trials, ranked
from hpo.experiment.status import has_result, is_finished, num_errors, num_failed, snapshot
from hpo.studyfile.load import parse_study_file
from tests.integration.trials_support import claim_one, finish, statements
from tests.searches import fill
from tests.unit.study_files import study as study_table


def test_ranked_by_the_mean_over_seeds() -> None:
    values = {"a": [0.38, 0.40, 0.42], "b": [-0.1, 0.9, 1.0], "c": [0.41], "d": [float("inf")]}
    outcomes = [
        Outcome(0, repeat, number, value, config, seed=10 * number + repeat)
        for number, (config, results) in enumerate(values.items())
        for repeat, value in enumerate(results)
    ]
    found = ranked(outcomes, maximize=False)
    assert [(result.outcome.config_key, result.runs) for result in found] == [("a", 3), ("c", 1), ("b", 3)]
    assert found[0].outcome.value == 0.40  # the run that is nearest to the mean stands for it
    assert found[0].mean == pytest.approx(0.40)
    assert found[0].std == pytest.approx(0.02)
    assert [result.outcome.config_key for result in ranked(outcomes, maximize=True)] == ["b", "c", "a"]
    # The same seed twice is one run.
    twice = [Outcome(0, 0, 0, 1.0, "a", 1), Outcome(0, 1, 0, 1.0, "a", 1)]
    assert ranked(twice, maximize=False)[0].runs == 1


def test_the_export_of_a_grid_with_repeats_is_the_better_mean(storage: Storage) -> None:
    fill(storage, "e", ("grid",), 3, 4)
    values = {0: (0.6, 0.6, 0.6), 1: (0.5, 0.5, 0.7), 2: (0.1, 0.1, 0.99), 3: (0.2, 0.2, 0.2)}
    with storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE trials SET state = 'COMPLETE'"))
        for number, results in values.items():
            for repeat, value in enumerate(results):
                connection.execute(
                    sa.text(
                        "UPDATE trial_values SET value = :v WHERE trial_id = (SELECT trial_id FROM trials "
                        "JOIN studies USING (study_id) WHERE study_name = :s AND number = :n)"
                    ),
                    {"v": value, "s": f"e/grid/{repeat}", "n": number},
                )
    best = best_trials(load_experiment(storage, "e"))[0]
    assert (best.number, best.value, best.mean, best.runs) == (0, 0.6, pytest.approx(0.6), 3)
    compared = compare_studies(Loader(storage).load("e")).samplers["grid"].best
    assert compared is not None
    assert (compared.number, compared.value, compared.runs) == (0, 0.6, 3)


@pytest.fixture
def experiment(storage: Storage) -> Experiment:
    table = study_table(name="e", samplers=["random"], budget={"trials": 3})
    return create_experiment(storage, parse_study_file(table, "study.toml"))[0]


def fail(storage: Storage, study_id: int, reason: str) -> None:
    claim = claim_one(storage, study_id)
    with storage.engine.begin() as connection:
        writes = Writes(user_attrs={attributes.LOG: "here:/logs/0.log"})
        assert retries.retry_or_fail(connection, claim.trial_id, reason, 0, error=reason, writes=writes)


def test_what_breaks_its_process_is_no_error_of_the_search(experiment: Experiment) -> None:
    """It is failed and named, but there is nothing to mend: a launch in which others succeed ends with 0."""
    storage, (study_id,) = experiment.storage, experiment.study_ids
    for _ in range(2):  # with max_retries = 0 a lineage that ends its process is not tried again
        claim = claim_one(storage, study_id)
        with storage.engine.begin() as connection:
            assert retries.retry_or_fail(connection, claim.trial_id, "killed", 0, cause=retries.Cause.DIED)
    assert finish(storage, claim_one(storage, study_id).trial_id)
    status = snapshot(experiment)
    assert is_finished(status)
    assert (num_failed(status), num_errors(status)) == (2, 0)
    assert [failure["reason"] for failure in status["studies"][0]["failures"]] == ["killed", "killed"]


def test_failed_lineages_are_no_results_and_run_again(experiment: Experiment) -> None:
    storage, (study_id,) = experiment.storage, experiment.study_ids
    for lineage in range(3):
        fail(storage, study_id, f"NameError: name 'x{lineage}' is not defined")
    status = snapshot(experiment)
    assert is_finished(status)
    assert (num_failed(status), num_errors(status)) == (3, 3)
    assert not has_result(status)
    assert [(f["lineage"], f["reason"], f["log"]) for f in status["studies"][0]["failures"]] == [
        (lineage, f"NameError: name 'x{lineage}' is not defined", "here:/logs/0.log") for lineage in range(3)
    ]
    assert any("3 trials of the budget failed" in note for note in compare_studies(Loader(storage).load("e")).notes)
    assert retry_failed(storage.engine, experiment.study_ids) == 3
    assert retry_failed(storage.engine, experiment.study_ids) == 0
    for _ in range(3):
        assert finish(storage, claim_one(storage, study_id).trial_id)
    status = snapshot(experiment)
    assert (num_failed(status), has_result(status), is_finished(status)) == (0, True, True)
    assert status["studies"][0]["states"]["complete"] == 3
    assert status["studies"][0]["failures"] == []


def test_refused_draws_are_counted_and_cost_nothing(experiment: Experiment) -> None:
    storage, (study_id,) = experiment.storage, experiment.study_ids
    with storage.engine.begin() as connection:
        for draw in range(2):
            retries.record_refused_draw(connection, study_id, 0, draw, "infeasible: too wide", Writes())
    for _ in range(3):
        assert finish(storage, claim_one(storage, study_id).trial_id)
    (status,) = snapshot(experiment)["studies"]
    assert (status["infeasible"], status["imported"], status["states"]["pruned"]) == (2, 0, 0)
    assert status["states"]["complete"] == 3
    assert status["finished"]


def test_a_look_at_a_running_experiment_does_not_read_every_trial(experiment: Experiment) -> None:
    """What reads every trial that has ended is read again only if more have ended; the end is always fresh."""
    storage, (study_id,) = experiment.storage, experiment.study_ids
    assert finish(storage, claim_one(storage, study_id).trial_id, 0.5)
    first = snapshot(experiment)
    with statements(storage.engine) as executed:
        assert snapshot(experiment) == first
    assert not any("trial_values" in statement for statement, _ in executed)
    for value in (0.1, 0.3):
        assert finish(storage, claim_one(storage, study_id).trial_id, value)
    assert snapshot(experiment)["studies"][0]["best"]["value"] == 0.1


def test_seconds_that_count_slots_are_said_to(storage: Storage) -> None:
    fill(storage, "e", ("random",), 1, 4)
    with storage.engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
                "SELECT trial_id, 'trained_on', '{\"slots\": 16}' FROM trials"
            )
        )
    assert any("time in their slots" in note for note in compare_studies(Loader(storage).load("e")).notes)
    with storage.engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
                "SELECT trial_id, 'wall_seconds', '3.0' FROM trials"
            )
        )
    assert not any("time in their slots" in note for note in compare_studies(Loader(storage).load("e")).notes)


BROKEN = """
import hpo
class BrokenConfig(hpo.Config):
    lr: float = 0.1
@hpo.trainer("broken_or_not", metrics={"loss": "minimize"})
def broken_or_not(config: BrokenConfig, run: hpo.Run):
    yield {"loss": config.lr * FACTOR}
"""
STUDY = """
name = "mended"
trainer = "broken_or_not"
metric = "loss"
samplers = ["random"]
budget = { trials = 2 }
max_retries = 0
[space]
lr = { low = 0.1, high = 1.0 }
"""


def test_a_launch_in_which_all_fails_exits_1_and_runs_again_once_mended(
    home: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_STORAGE", address)
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "broken_trainer.py").write_text(BROKEN)
    environment = {**os.environ, "HPO_TRAINERS": str(tmp_path / "broken_trainer.py")}
    command = [sys.executable, "-m", "hpo", "launch", str(tmp_path / "study.toml"), "--launcher", "inline"]

    def launch() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    broken = launch()
    assert broken.returncode == 1, broken.stderr
    told = broken.stdout + broken.stderr
    assert "name 'FACTOR' is not defined" in told
    assert "hpo export" not in told
    status = json.loads(CliRunner().invoke(app, ["status", "mended", "--json"]).stdout)
    assert sum(study["states"]["failed"] for study in status["studies"]) >= 1
    (tmp_path / "broken_trainer.py").write_text(BROKEN.replace("FACTOR", "2.0"))
    mended = launch()
    assert mended.returncode == 0, mended.stderr
    assert "hpo export mended --output best.toml" in mended.stdout


def test_a_reader_that_closes_the_pipe_is_no_failure(home: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m hpo list | head -n 1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "0", done.stderr


def test_a_database_that_goes_away_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hpo.cli import main

    def gone() -> None:
        raise sa.exc.OperationalError("SELECT 1", {}, Exception("server closed the connection unexpectedly"))

    monkeypatch.setattr(main, "app", lambda **options: gone())
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Postgres at the given address: it was stopped")
