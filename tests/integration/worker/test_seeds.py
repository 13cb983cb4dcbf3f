"""Trials of several seeds in a whole worker, on a real Postgres: mean, spread, budget, pruning, failures, retries."""

import importlib
import json
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

import hpo
from hpo.compare.comparison import compare_studies
from hpo.compare.load import Loader
from hpo.compare.spending import pooled_spread
from hpo.dashboard.overview import overview
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.database.study_budget import read_budgets
from hpo.errors import ExperimentError
from hpo.experiment.experiment import Experiment, create_experiment
from hpo.experiment.status import snapshot
from hpo.experiment.trial_details import trial_details
from hpo.search.seeds import derive_seed, seeds_of_trial
from hpo.studyfile.load import parse_study_file
from hpo.trainers.generator import trainer
from hpo.trainers.protocol import Config, Run
from hpo.worker.options import WorkerOptions
from hpo.worker.worker import Worker

ODD: list[Callable[[Run, int], float | None]] = []
"""What happens to a training at an epoch, or what it adds to the loss, in the test that runs."""


class Noise(Config):
    x: float = 0.5
    epochs: int = 4


@trainer("noise", metrics={"loss": "minimize"})
def noise(config: Noise, run: Run) -> Iterator[dict[str, float]]:
    """A loss with noise of the seed, summed up over the epochs; saves and continues exactly."""
    state = run.checkpoint or {"sum": 0.0}
    for epoch in range(run.start_epoch, config.epochs):
        for happens in ODD:
            state["sum"] += happens(run, epoch) or 0.0
        state["sum"] += random.Random(f"{run.seed}, {epoch}").gauss(0, 1)
        run.save(state)
        yield {"loss": config.x * 10 + state["sum"]}


def loss(x: float, seed: int, epochs: int) -> float:
    return x * 10 + sum(random.Random(f"{seed}, {epoch}").gauss(0, 1) for epoch in range(epochs))


@pytest.fixture(autouse=True)
def nothing_odd() -> None:
    ODD.clear()


@pytest.fixture
def experiment(storage: Storage) -> Callable[..., Experiment]:
    def make(without: Sequence[str] = (), **keys: Any) -> Experiment:
        table = {"name": "noisy", "trainer": "noise", "metric": "loss", "samplers": ["random"], "pruner": "none"}
        table |= {"budget": {"trials": 6}, "space": {"x": {"low": 0.0, "high": 1.0, "grid": 6}}, "seeds_per_trial": 3}
        table = {name: value for name, value in {**table, **keys}.items() if name not in without}
        return create_experiment(storage, parse_study_file(table, "study.toml"))[0]

    return make


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., int]:
    def run(experiment: Experiment, **options: Any) -> int:
        return Worker(experiment, WorkerOptions(str(tmp_path / "checkpoints"), tmp_path / "artifacts", **options)).run()

    return run


def trials_of(experiment: Experiment) -> list[FrozenTrial]:
    return experiment.storage.get_all_trials(experiment.study_ids[0])


def budget_of(experiment: Experiment) -> Any:
    with experiment.storage.engine.connect() as connection:
        return read_budgets(connection, experiment.study_ids)[0]


def test_a_trial_is_the_mean_over_its_seeds(experiment, work, storage: Storage) -> None:
    made = experiment()
    assert work(made) == 0
    trials = trials_of(made)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
    for trial in trials:
        seeds = seeds_of_trial(trial.user_attrs["seed"], 3)
        of_seeds = [loss(trial.params["x"], seed, 4) for seed in seeds]
        assert trial.user_attrs["seed_values"] == of_seeds
        assert trial.value == statistics.fmean(of_seeds)
        assert trial.user_attrs["metrics"] == {"loss": trial.value, "loss_std": statistics.stdev(of_seeds)}
        assert list(trial.intermediate_values) == [1, 2, 3, 4]
        assert trial.user_attrs["epochs"] == 12  # three seeds cost three epochs an epoch
    found = trial_details(made, "0")
    assert found["seeds"] == list(seeds_of_trial(trials[0].user_attrs["seed"], 3))
    assert (found["epochs"], found["seed_values"]) == (12, trials[0].user_attrs["seed_values"])
    assert found["std"] == statistics.stdev(found["seed_values"])
    (study,) = snapshot(made)["studies"]
    assert (study["epochs"], study["epochs_per_trial"]) == (72, 12)

    # What a mean of three varies by is the noise floor of the comparison, on the page and in the table alike.
    (record,) = Loader(storage).load("noisy")
    assert sum(trial.trained_epochs for trial in record.trials) == 72
    better = sorted(trials, key=lambda trial: trial.value)[:3]
    pooled = pooled_spread([trial.user_attrs["seed_values"] for trial in better], "")
    floor = compare_studies([record]).noise
    assert floor.spread == pytest.approx(pooled.spread / math.sqrt(3))
    assert (floor.freedom, floor.configurations) == (6, 3)
    assert floor.source == "the seeds of the better half of the trials, of a mean of 3 seeds"
    assert overview(storage.engine, "noisy", Loader(storage).entries_of("noisy")).noise == floor


def test_a_study_file_without_the_key_or_with_one_seed_is_the_same_experiment(experiment) -> None:
    one = experiment(seeds_per_trial=1)
    assert "seeds_per_trial" not in one.content
    table = {name: value for name, value in one.content.items() if name not in ("starts", "name")}
    assert parse_study_file({**table, "name": "noisy", "samplers": ["random"], "pruner": "none"}, "").to_json() == (
        one.content
    )
    with pytest.raises(ExperimentError, match="seeds_per_trial"):
        experiment(seeds_per_trial=3)


def test_a_launch_that_does_not_say_it_goes_on_with_the_seeds_that_there_are(experiment, work) -> None:
    made = experiment(seeds_per_trial=2, budget={"trials": 2})
    assert work(made) == 0
    again = experiment(without=["seeds_per_trial"], budget={"trials": 3})
    assert again.content["seeds_per_trial"] == 2
    assert work(again) == 0
    assert [len(trial.user_attrs["seed_values"]) for trial in trials_of(again)] == [2, 2, 2]


def test_a_budget_in_epochs_counts_the_epochs_of_all_seeds_and_is_never_exceeded(experiment, work) -> None:
    made = experiment(budget={"epochs": 100}, pruner={"name": "median", "n_startup_trials": 2})
    assert work(made) == 0
    spent = sum(trial.user_attrs["epochs"] for trial in trials_of(made))
    budget = budget_of(made)
    assert (budget.epochs_spent, budget.epochs_per_trial, budget.seeds) == (spent, 12, 3)
    assert 100 - 12 < spent <= 100
    assert spent % 3 == 0
    assert {trial.state for trial in trials_of(made)} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_the_pruner_judges_the_mean(experiment, work) -> None:
    made = experiment(pruner={"name": "threshold", "upper": 6.0}, budget={"trials": 12})
    assert work(made) == 0
    pruned = [trial for trial in trials_of(made) if trial.state is TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        last = max(trial.intermediate_values)
        seeds = seeds_of_trial(trial.user_attrs["seed"], 3)
        of_seeds = [loss(trial.params["x"], seed, last) for seed in seeds]
        assert trial.intermediate_values[last] == statistics.fmean(of_seeds) > 6.0
        assert trial.user_attrs["seed_values"] == of_seeds
        assert trial.user_attrs["epochs"] == 3 * last


@pytest.mark.parametrize("seed_index", [0, 2])
def test_a_seed_that_diverges_ranks_its_trial_last(seed_index: int, experiment, work) -> None:
    made = experiment(budget={"trials": 2})
    bad_seed = seeds_of_trial(_first_seed(made), 3)[seed_index]
    ODD.append(lambda run, epoch: math.nan if run.seed == bad_seed and epoch == 1 else None)
    assert work(made) == 0
    bad, good = trials_of(made)
    assert (bad.state, bad.value, good.state) == (TrialState.PRUNED, None, TrialState.COMPLETE)
    reason = f"loss is nan at epoch 2: that of seed {seed_index} (nan) of 3, counted from 0"
    assert bad.user_attrs["reason"] == reason
    assert bad.user_attrs["seed_values"][seed_index] is None
    assert sum(value is None for value in bad.user_attrs["seed_values"]) == 1


def _first_seed(experiment: Experiment) -> int:
    study = experiment.studies[0]
    return derive_seed(experiment.study_file.seed, study.sampler.label, study.repeat, "train", 0)


def test_a_seed_that_fails_has_its_trial_tried_again_from_the_last_epoch_of_all(experiment, work) -> None:
    whole = experiment(name="whole", budget={"trials": 2})
    assert work(whole) == 0
    failed: list[int] = []

    def fails(run: Run, epoch: int) -> None:
        if run.seed == seeds_of_trial(first_seed, 3)[1] and epoch == 2 and not failed:
            failed.append(epoch)
            raise RuntimeError("this seed fails once")

    made = experiment(budget={"trials": 2})
    first_seed = _first_seed(made)
    ODD.append(fails)
    assert work(made) == 0
    attempts = trials_of(made)
    assert sorted(trial.state.name for trial in attempts) == ["COMPLETE", "COMPLETE", "FAIL"]
    (first,) = [trial for trial in attempts if trial.state is TrialState.FAIL]
    (retry,) = [trial for trial in attempts if trial.user_attrs["lineage"] == 0 and trial.user_attrs["attempt"] == 1]
    assert first.user_attrs["reason"] == "RuntimeError: this seed fails once"
    assert (first.user_attrs["epochs"], retry.user_attrs["start_epoch"], retry.user_attrs["epochs"]) == (6, 6, 12)
    of_whole = {trial.user_attrs["lineage"]: trial for trial in trials_of(whole)}
    assert retry.value == of_whole[0].value
    assert retry.intermediate_values == of_whole[0].intermediate_values
    assert retry.user_attrs["seed_values"] == of_whole[0].user_attrs["seed_values"]
    assert budget_of(made).epochs_spent == 24


def test_a_seed_that_fails_again_fails_the_trial_for_good(experiment, work) -> None:
    made = experiment(budget={"trials": 2})
    last_seed = seeds_of_trial(_first_seed(made), 3)[2]

    def fails(run: Run, epoch: int) -> None:
        if run.seed == last_seed and epoch == 1:
            raise ValueError("this seed always fails")

    ODD.append(fails)
    assert work(made) == 0
    assert sorted(trial.state.name for trial in trials_of(made)) == ["COMPLETE", "FAIL", "FAIL"]


def test_packed_trials_of_several_seeds_are_the_mean_of_what_one_seed_gives(
    storage: Storage, work, tmp_path: Path
) -> None:
    importlib.import_module("hpo.trainers.classifier.entry")
    fixed = {"dataset": "digits", "network": "mlp", "epochs": 2, "width_1": 16, "width_2": 8, "train_size": 200}
    table = {
        "name": "packed",
        "trainer": "classifier",
        "metric": "val_loss",
        "samplers": ["random"],
        "slots": 7,
        "budget": {"trials": 4},
        "space": {"lr": {"low": 0.01, "high": 0.1, "log": True}},
        "fixed": {**fixed, "val_size": 100},
        "seeds_per_trial": 3,
    }
    made = create_experiment(storage, parse_study_file(table, "study.toml"))[0]
    assert work(made, threads=1) == 0
    trials = trials_of(made)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    for trial in trials:
        assert trial.value == statistics.fmean(trial.user_attrs["seed_values"])
        assert len(set(trial.user_attrs["seed_values"])) == 3
        assert trial.user_attrs["trained_on"]["slots"] == 7
    settings = hpo.Settings(storage=storage.address, home=tmp_path / "home")
    (path,) = hpo.export("packed", tmp_path / "best.toml", settings=settings)
    text = Path(path).read_text()
    assert "seeds_per_trial = 3" in text
    best = min(trials, key=lambda trial: trial.value)
    result = hpo.train(path, settings=settings)
    assert (result["expected"], result["reproduced"]) == (best.value, True)
    assert [result["runs"][0][f"val_loss_seed_{index}"] for index in range(3)] == best.user_attrs["seed_values"]
    Path(path).write_text(text.replace("seeds_per_trial = 3", "seeds_per_trial = 2"))
    assert hpo.train(path, settings=settings)["reproduced"] is False
    fresh = hpo.train(path, seeds=2, settings=settings)  # single trainings, whose spread it is
    assert [run["seed"] for run in fresh["runs"]] == [0, 1]
    assert "val_loss_seed_0" not in fresh["runs"][0]


def test_the_attributes_are_json(experiment, work) -> None:
    made = experiment(budget={"trials": 1})
    assert work(made) == 0
    (trial,) = trials_of(made)
    assert json.loads(json.dumps(trial.user_attrs, allow_nan=False)) == trial.user_attrs
    assert attributes.SEED_VALUES in trial.user_attrs
