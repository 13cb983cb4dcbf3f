"""A study file from launch to export, with real worker processes on the embedded server."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
import pytest

import hpo
from hpo.database.storage import open_storage

from .conftest import Hpo

Study = Callable[..., Path]


def states(status: dict, sampler: str) -> dict[str, int]:
    return next(study["states"] for study in status["studies"] if study["sampler"] == sampler)


def test_launch_status_export_train_delete(hpo_command: Hpo, study: Study, tmp_path: Path) -> None:
    file = study(pruner="asha")
    done = hpo_command("launch", str(file), "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "hpo dashboard" in done.stdout

    status = json.loads(hpo_command("status", "sleepy", "--json").stdout)
    assert status["experiment"] == "sleepy"
    assert [entry["name"] for entry in status["studies"]] == ["sleepy/grid/0", "sleepy/random/0", "sleepy/tpe/0"]
    for entry in status["studies"]:
        assert entry["budget"] == {"trials": 12}
        counts = entry["states"]
        assert counts["complete"] + counts["pruned"] == 12
        assert counts["running"] == counts["waiting"] == counts["failed"] == 0
        assert entry["best"]["config"]["epochs"] == 4
        assert entry["epochs"] >= 12
    assert status["checkpoint_bytes"] == 0

    # Finished: launching again does nothing.
    again = hpo_command("launch", str(file), "--workers", "2", "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["studies"] == status["studies"]

    best = max(entry["best"]["value"] for entry in status["studies"])
    exported = hpo_command("export", "sleepy", "--output", "best.toml")
    assert exported.returncode == 0, exported.stderr
    trained = hpo_command("train", "best.toml", "--json")
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert result["expected"] == result["obtained"] == best
    assert result["reproduced"] is True
    text = hpo_command("train", "best.toml")
    assert "reproduced: expected" in text.stdout

    top = hpo_command("export", "sleepy", "--sampler", "grid", "--top", "3", "--format", "json", "--output", "top.json")
    assert top.returncode == 0
    values = [
        json.loads((tmp_path / name).read_text())["provenance"]["value"]
        for name in ("top.json", "top-2.json", "top-3.json")
    ]
    assert values == sorted(values, reverse=True)

    refused = hpo_command("delete", "sleepy")
    assert refused.returncode == 1
    assert hpo_command("delete", "sleepy", "--yes").returncode == 0
    missing = hpo_command("status", "sleepy")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: there is no experiment 'sleepy'")


def test_a_killed_worker_costs_nothing(environment: dict[str, str], study: Study, tmp_path: Path) -> None:
    file = study(samplers='["grid", "tpe"]', epochs=6, seconds=0.1)
    log = tmp_path / "trainer.log"
    launcher = subprocess.Popen(
        [sys.executable, "-m", "hpo", "launch", str(file), "--workers", "2"],
        env={**environment, "SLEEPING_LOG": str(log)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killed = 0
    for share in (10, 40):
        while not log.exists() or log.read_bytes().count(b"\n") < share:
            assert launcher.poll() is None
            time.sleep(0.02)
        psutil.Process(launcher.pid).children()[0].send_signal(signal.SIGKILL)
        killed += 1
    output, _ = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, output
    assert output.count("was ended by SIGKILL; another takes its place") == 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_HOME", environment["HPO_HOME"])
        patch.setenv("HPO_TRAINERS", "benchmarks.sleeping")
        loaded = hpo.load("sleepy")
        retried = 0
        for name in ("sleepy/grid/0", "sleepy/tpe/0"):
            trials = loaded.studies[name].get_trials(deepcopy=False)
            lineages = Counter(t.user_attrs["lineage"] for t in trials if t.state is optuna.trial.TrialState.COMPLETE)
            assert lineages == dict.fromkeys(range(12), 1)
            retries = [trial for trial in trials if trial.user_attrs["attempt"] > 0]
            retried += len(retries)
            for trial in retries:
                # It went on from its checkpoint, and what it had reported before is there.
                assert sorted(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]
        # A worker may hold the trial that it trains and the next one, claimed ahead.
        assert 1 <= retried <= 2 * killed
        loaded._experiment.storage.engine.dispose()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    trained = Counter((line["seed"], line["epoch"]) for line in lines)
    assert len(trained) == 24 * 6
    assert len(lines) - len(trained) <= killed


def test_ctrl_c_gives_trials_back_and_launching_again_goes_on(
    environment: dict[str, str], study: Study, hpo_command: Hpo, tmp_path: Path
) -> None:
    file = study(samplers='["random"]', epochs=20, seconds=0.1, budget="trials = 3")
    log = tmp_path / "trainer.log"
    launcher = subprocess.Popen(
        [sys.executable, "-m", "hpo", "launch", str(file), "--workers", "2"],
        env={**environment, "SLEEPING_LOG": str(log)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not log.exists() or log.read_bytes().count(b"\n") < 8:
        assert launcher.poll() is None
        time.sleep(0.02)
    launcher.send_signal(signal.SIGINT)
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, output
    assert "the same command goes on" in output
    status = json.loads(hpo_command("status", "sleepy", "--json").stdout)
    assert states(status, "random") == {"complete": 0, "pruned": 0, "running": 0, "waiting": 2, "failed": 0}
    assert status["checkpoint_bytes"] > 0
    done = hpo_command("launch", str(file), "--workers", "2", SLEEPING_LOG=str(log))
    assert done.returncode == 0, done.stderr
    status = json.loads(hpo_command("status", "sleepy", "--json").stdout)
    assert states(status, "random")["complete"] == 3
    assert status["checkpoint_bytes"] == 0
    lines = log.read_bytes().count(b"\n")
    assert 60 <= lines <= 62


def test_a_changed_file_is_refused_and_a_larger_budget_taken(hpo_command: Hpo, study: Study) -> None:
    file = study(samplers='["random"]', budget="trials = 3", epochs=2)
    assert hpo_command("launch", str(file), "--workers", "1").returncode == 0
    study(samplers='["random"]', budget="trials = 3", epochs=3)
    refused = hpo_command("launch", str(file), "--workers", "1")
    assert refused.returncode == 1
    assert "fixed.epochs: 2 -> 3" in refused.stderr
    study(samplers='["random"]', budget="trials = 5", epochs=2)
    taken = hpo_command("launch", str(file), "--workers", "1")
    assert taken.returncode == 0, taken.stderr
    assert "budget.trials: 3 -> 5" in taken.stderr
    status = json.loads(hpo_command("status", "sleepy", "--json").stdout)
    assert states(status, "random")["complete"] == 5


def test_random_draws_do_not_depend_on_the_number_of_workers(hpo_command: Hpo, study: Study, tmp_path: Path) -> None:
    drawn = []
    for workers in ("1", "3"):
        file = study(name=f"draws-{workers}", samplers='["random", "qmc"]', budget="trials = 9", epochs=1)
        home = tmp_path / f"home-{workers}"
        assert hpo_command("launch", str(file), "--workers", workers, HPO_HOME=str(home)).returncode == 0
        storage = open_storage(home=home)
        configurations = {}
        for sampler in ("random", "qmc"):
            study_id = storage.get_study_id_from_name(f"draws-{workers}/{sampler}/0")
            for trial in storage.get_all_trials(study_id):
                configurations[sampler, trial.user_attrs["lineage"]] = trial.params
        storage.engine.dispose()
        drawn.append(configurations)
    assert drawn[0] == drawn[1]
    assert len({tuple(params.values()) for params in drawn[0].values()}) == 18


def test_a_bad_file_shows_every_mistake_and_writes_nothing(hpo_command: Hpo, tmp_path: Path, home: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(
        'name = "bad"\ntrainer = "sleping"\nmetric = "value"\nsamplers = ["tpee"]\nbudget = { trials = 0 }\n'
        "reapeats = 3\n"
        "[space]\nlr = { low = 0, high = 1.0, log = true }\n"
    )
    done = hpo_command("launch", str(file))
    assert done.returncode == 2
    for part in ("sleeping", "tpe", "budget", "repeats", "lr"):
        assert part in done.stderr
    assert not home.exists()


def test_the_password_shows_nowhere(hpo_command: Hpo, study: Study) -> None:
    address = "postgresql://someone:s3cret-w0rd@127.0.0.1:1/hpo"
    done = hpo_command("launch", str(study()), "--storage", address)
    assert done.returncode == 1
    assert "nothing listens there" in done.stderr
    assert "s3cret-w0rd" not in done.stdout + done.stderr


def test_one_worker_in_the_foreground_and_inline(hpo_command: Hpo, study: Study) -> None:
    file = study(samplers='["random"]', budget="trials = 4", epochs=2)
    done = hpo_command("launch", str(file), "--launcher", "inline")
    assert done.returncode == 0, done.stderr
    assert hpo_command("worker", "sleepy").returncode == 0
    missing = hpo_command("worker", "sleepi")
    assert missing.returncode == 1
    assert "did you mean 'sleepy'?" in missing.stderr


def test_optuna_itself_reads_the_studies(hpo_command: Hpo, study: Study, home: Path) -> None:
    assert hpo_command("launch", str(study(samplers='["random"]', budget="trials = 4", epochs=2))).returncode == 0
    storage = open_storage(home=home)
    command = [str(Path(sys.executable).with_name("optuna")), "best-trial", "--study-name", "sleepy/random/0"]
    command += ["--format", "json", "--storage", storage.secret_address]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    best = optuna.load_study(study_name="sleepy/random/0", storage=storage).best_trial
    assert json.loads(done.stdout)["number"] == best.number
    storage.engine.dispose()
