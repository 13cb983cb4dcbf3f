"""What ``hpo status`` says: the keys that it promises, lineages counted once, and the disk that checkpoints take."""

import json
from pathlib import Path

import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from hpo.cli.main import app
from hpo.cli.support import study_notes
from hpo.database import attributes, retries, trial_writes
from hpo.database.claims import Claim
from hpo.database.storage import Storage
from hpo.database.trial_writes import Writes
from hpo.experiment.experiment import Experiment, create_experiment
from hpo.experiment.status import snapshot
from hpo.files.checkpoints import Checkpoint, CheckpointFolder
from hpo.studyfile.load import parse_study_file
from tests.integration.trials_support import claim_one
from tests.unit.study_files import study as study_table

LAUNCHED = """
name = "lines"
trainer = "sleeping"
metric = "value"
samplers = ["random"]
budget = { trials = 6 }
[fixed]
epochs = 2
epoch_seconds = 0.0
[space]
lr = { low = 1e-3, high = 1.0, log = true }
"""


@pytest.fixture
def experiment(storage: Storage) -> Experiment:
    table = study_table(name="e", samplers=["random", {"name": "tpe", "label": "my tpe"}], budget={"trials": 9})
    return create_experiment(storage, parse_study_file({**table, "direction": "minimize"}, "study.toml"))[0]


def end(
    storage: Storage, claim: Claim, state: TrialState, value: float | None, epochs: int, seconds: float = 1.5
) -> None:
    writes = Writes(user_attrs={"seconds": seconds, "config": {"lr": value}}, reports=dict.fromkeys(range(epochs), 0.5))
    with storage.engine.begin() as connection:
        assert trial_writes.finish(connection, claim.trial_id, state, value, epochs, writes)


def test_all_keys_and_their_values(experiment: Experiment, tmp_path: Path) -> None:
    storage = experiment.storage
    first = experiment.study_ids[0]
    worst, best, equal = (claim_one(storage, first) for _ in range(3))
    end(storage, worst, TrialState.COMPLETE, 3.0, 4)
    end(storage, best, TrialState.COMPLETE, 1.0, 4)
    end(storage, equal, TrialState.COMPLETE, 1.0, 4)
    end(storage, claim_one(storage, first), TrialState.PRUNED, 0.5, 2)
    # A lineage of three attempts, each of which took its time, counts once, by the last one.
    for attempt in range(2):
        claim = claim_one(storage, first)
        assert claim.attempt == attempt
        with storage.engine.begin() as connection:
            writes = Writes(user_attrs={"seconds": 10.0}, reports={1: 0.1, 2: 0.1})
            assert retries.retry_or_fail(connection, claim.trial_id, "x", 3, error=str(attempt), writes=writes)
    end(storage, claim_one(storage, first), TrialState.COMPLETE, 2.0, 4)
    failed = claim_one(storage, first)
    with storage.engine.begin() as connection:
        assert retries.retry_or_fail(connection, failed.trial_id, "x", 0, error="boom")
    running = claim_one(storage, first)
    with storage.engine.begin() as connection:
        assert retries.give_back(connection, claim_one(storage, first).trial_id, "asked to end")

    status = snapshot(experiment, str(tmp_path))
    # json.loads(json.dumps()) as a machine reads it.
    assert json.loads(json.dumps(status)) == {
        "experiment": "e",
        "direction": "minimize",
        "warnings": [],
        "running": [{"study": "random/0", "trial": running.number, "worker": "here:1", "epochs": 0}],
        "studies": [
            {
                "name": "e/random/0",
                "sampler": "random",
                "repeat": 0,
                "budget": {"trials": 9},
                "seconds_left": None,
                "busy_share": None,
                "states": {"complete": 4, "pruned": 1, "running": 1, "waiting": 1, "failed": 1},
                "retried": 3,
                "infeasible": 0,
                "imported": 0,
                "knowledge": 0,
                "drawn_by": None,
                "refused": 0,
                "crashed": 0,
                "finished": False,
                "deleted": False,
                "epochs": 18,
                "epochs_per_trial": 8,
                "seconds": 27.5,
                # Two trials of the same configuration, with seeds that are not recorded.
                "best": {"trial": best.number, "value": 1.0, "config": {"lr": 1.0}, "mean": 1.0, "runs": 2},
                "failures": [
                    {
                        "trial": failed.number,
                        "lineage": failed.lineage,
                        "attempts": 1,
                        "reason": "x",
                        "worker": "here:1",
                        "log": None,
                    }
                ],
                "results_seen": None,
            },
            {
                "name": "e/my tpe/0",
                "sampler": "my tpe",
                "repeat": 0,
                "budget": {"trials": 9},
                "seconds_left": None,
                "busy_share": None,
                "states": {"complete": 0, "pruned": 0, "running": 0, "waiting": 0, "failed": 0},
                "retried": 0,
                "infeasible": 0,
                "imported": 0,
                "knowledge": 0,
                "drawn_by": None,
                "refused": 0,
                "crashed": 0,
                "finished": False,
                "deleted": False,
                "epochs": 0,
                "epochs_per_trial": 8,
                "seconds": 0.0,
                "best": None,
                "failures": [],
                "results_seen": None,
            },
        ],
        "checkpoint_bytes": 0,
    }
    assert "checkpoint_bytes" not in snapshot(experiment)


def test_finished(experiment: Experiment) -> None:
    storage = experiment.storage
    for study_id in experiment.study_ids:
        assert not any(study["finished"] for study in snapshot(experiment)["studies"] if study["states"]["running"])
        for _ in range(9):
            end(storage, claim_one(storage, study_id), TrialState.PRUNED, 1.0, 1)
    status = snapshot(experiment)
    assert [study["finished"] for study in status["studies"]] == [True, True]
    # A pruned trial is never the best.
    assert [study["best"] for study in status["studies"]] == [None, None]


def test_the_disk_that_checkpoints_take(experiment: Experiment, storage: Storage, tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    other, _ = create_experiment(storage, parse_study_file(study_table(name="another"), "study.toml"))
    for index, handle in enumerate([*experiment.studies, *other.studies]):
        for lineage in range(2):
            for epoch in range(1, 5):
                state = {"weights": "w" * 1000 * (index + 1)}
                CheckpointFolder(root, handle.key).save(lineage, Checkpoint(epoch, state, []))
    for each in (experiment, other):
        files = [path for handle in each.studies for path in (root / handle.key).rglob("*.ckpt")]
        # Two are kept of each lineage.
        assert len(files) == 4 * len(each.studies)
        size = snapshot(each, str(root))["checkpoint_bytes"]
        assert size == sum(path.stat().st_size for path in files) > 4000
    for handle in experiment.studies:
        for lineage in range(2):
            CheckpointFolder(root, handle.key).remove(lineage)
    assert snapshot(experiment, str(root))["checkpoint_bytes"] == 0
    assert snapshot(other, str(root))["checkpoint_bytes"] > 0


@pytest.fixture
def runner(home: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("HPO_STORAGE", address)
    monkeypatch.setenv("HPO_TRAINERS", "benchmarks.sleeping")
    return CliRunner()


def test_each_line_of_a_launch_with_json_is_json(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(LAUNCHED)
    done = runner.invoke(app, ["launch", str(tmp_path / "study.toml"), "--launcher", "inline", "--json"])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["studies"][0]["states"]["complete"] == 6
    assert lines[-1]["checkpoint_bytes"] == 0
    watched = runner.invoke(app, ["status", "lines", "--watch", "--json"])
    assert json.loads(watched.stdout.splitlines()[-1]) == lines[-1]
    assert json.loads(runner.invoke(app, ["status", "lines", "--json"]).stdout) == lines[-1]
    assert json.loads(runner.invoke(app, ["status", "--json"]).stdout)["experiments"] == ["lines"]
    assert "lines" in runner.invoke(app, ["status"]).stdout


def test_the_disk_is_shown_to_people_too(runner: CliRunner, home: Path, tmp_path: Path, address: str) -> None:
    (tmp_path / "study.toml").write_text(LAUNCHED)
    assert runner.invoke(app, ["launch", str(tmp_path / "study.toml"), "--launcher", "inline"]).exit_code == 0
    assert "checkpoints:" not in runner.invoke(app, ["status", "lines"]).stdout
    storage = Storage(address)
    experiment = create_experiment(storage, parse_study_file(study_table(name="with files"), "study.toml"))[0]
    storage.engine.dispose()
    state = {"weights": "w" * 1_500_000}
    CheckpointFolder(home / "checkpoints", experiment.studies[0].key).save(0, Checkpoint(1, state, []))
    assert f"checkpoints: 1.5 MB in {home}/checkpoints" in runner.invoke(app, ["status", "with files"]).stdout


def test_what_the_sampler_had_seen(experiment: Experiment) -> None:
    """The mean over trials, of first attempts, that a sampler which learns has drawn."""
    storage = experiment.storage
    learning = experiment.study_ids[1]
    for results, running in ((0, 3), (5, 2)):
        claim = claim_one(storage, learning)
        writes = Writes(user_attrs={attributes.SEEN: {"results": results, "running": running}})
        with storage.engine.begin() as connection:
            assert trial_writes.finish(connection, claim.trial_id, TrialState.COMPLETE, 1.0, 1, writes)
    random, tpe = snapshot(experiment)["studies"]
    assert random["results_seen"] is None
    assert tpe["results_seen"] == {"drawn": 2, "mean": 2.5, "mean_running": 2.5}
    assert "had seen 2.5 results on average while 2.5 other trials ran" in study_notes(tpe, verbose=True)[0]
    assert study_notes(tpe) == []
