"""What a study file forbids is never drawn, by no sampler, and a person who enqueues it is told."""

from pathlib import Path

import optuna
from optuna.trial import TrialState

import benchmarks.sleeping  # noqa: F401  (registers the trainer)
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.experiment.experiment import Experiment, create_experiment
from hpo.experiment.results import best_trials
from hpo.export.files import exported
from hpo.search.sampler_registry import SAMPLERS
from hpo.settings import Settings
from hpo.studyfile.load import parse_study_file
from hpo.worker.options import WorkerOptions
from hpo.worker.worker import Worker

SPECS = {
    "grid": "grid",
    "random": "random",
    "random_2x": "random_2x",
    "qmc": "qmc",
    "tpe": {"name": "tpe", "n_startup_trials": 4},
    "tpe-group": {"name": "tpe", "label": "tpe-group", "n_startup_trials": 4, "group": True},
    "tpe-alone": {"name": "tpe", "label": "tpe-alone", "n_startup_trials": 4, "multivariate": False},
    "auto": {"name": "auto", "n_startup_trials": 4, "draw_share": 1e9},
    "cmaes": {"name": "cmaes", "popsize": 4},
    "gp": {"name": "gp", "n_startup_trials": 4},
}


def run(storage: Storage, folder: Path, **changes: object) -> Experiment:
    table = {
        "name": "forbids",
        "trainer": "sleeping",
        "metric": "value",
        "samplers": list(SPECS.values()),
        "budget": {"trials": 14},
        "fixed": {"epochs": 1, "epoch_seconds": 0.0},
        "space": {
            "lr": {"low": 1e-3, "high": 1.0, "log": True, "grid": [0.001, 0.01, 0.1, 1.0]},
            "beta": {"low": 0.8, "high": 0.99, "grid": [0.8, 0.85, 0.9]},
        },
        "forbidden": [{"lr": {"low": 0.005}, "beta": {"high": 0.88}}, {"lr": {"high": 0.01}, "beta": {"low": 0.89}}],
        **changes,
    }
    experiment, _ = create_experiment(storage, parse_study_file(table, "study.toml"))
    worker = Worker(experiment, WorkerOptions(str(folder / "checkpoints"), folder / "artifacts"))
    assert worker.run() == 0
    return experiment


def test_every_sampler_is_here() -> None:
    assert {spec if isinstance(spec, str) else spec["name"] for spec in SPECS.values()} == set(SAMPLERS) - {"nsgaii"}


def test_no_sampler_draws_what_is_forbidden(storage: Storage, tmp_path: Path) -> None:
    experiment = run(storage, tmp_path)
    space = experiment.study_file.space
    for study in experiment.studies:
        trials = storage.get_all_trials(study.study_id)
        budget = experiment.study_file.budget_for(study.sampler).trials
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * len(trials), study.name
        assert len(trials) == budget, study.name
        for trial in trials:
            assert space.allows(trial.params), (study.name, trial.params)
            # The configuration is what the record says it is.
            assert {name: trial.user_attrs[attributes.GIVEN][name] for name in ("lr", "beta")} == trial.params
    grid = storage.get_all_trials(experiment.studies[0].study_id)
    assert sorted((trial.params["lr"], trial.params["beta"]) for trial in grid) == [
        (0.001, 0.8),
        (0.001, 0.85),
        (0.1, 0.9),
        (1.0, 0.9),
    ]


def test_random_search_draws_the_same_again(storage: Storage, tmp_path: Path) -> None:
    params = []
    for name in ("one", "two"):
        experiment = run(storage, tmp_path / name, name=name, samplers=["random", "qmc"])
        params.append([t.params for study in experiment.studies for t in storage.get_all_trials(study.study_id)])
    assert params[0] == params[1]


def test_an_enqueued_combination_is_refused(storage: Storage, tmp_path: Path) -> None:
    fixed = {"lr": 0.1, "beta": 0.8}
    experiment = run(storage, tmp_path, samplers=["random"], budget={"trials": 2})
    study = optuna.load_study(study_name="forbids/random/0", storage=storage)
    study.enqueue_trial(fixed)
    run(storage, tmp_path, samplers=["random"], budget={"trials": 4})
    trials = storage.get_all_trials(experiment.study_ids[0])
    (refused,) = [trial for trial in trials if trial.system_attrs.get("fixed_params") == fixed]
    assert refused.state is TrialState.FAIL
    assert "forbids" in refused.user_attrs[attributes.REASON]


def test_what_is_exported_is_a_study_file(storage: Storage, tmp_path: Path) -> None:
    """Its space is empty, so nothing in it can be forbidden, and a search's limits are not those of a training."""
    experiment = run(storage, tmp_path, samplers=["random"], budget={"trials": 2}, trial_timeout_seconds=60.0)
    (best,) = best_trials(experiment)
    content = exported(experiment, best, Settings(home=tmp_path))
    assert not {"forbidden", "trial_timeout_seconds"} & content.keys()
    study_file = parse_study_file(content, "best.toml")
    assert study_file.fixed["lr"] == best.given["lr"]
