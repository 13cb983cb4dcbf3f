"""Extending the budget and enqueuing configurations: what is refused, and what the database then holds."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

import hpo
from hpo.database.claims import claim
from hpo.database.storage import Storage
from hpo.database.study_budget import read_budgets
from hpo.errors import ExperimentError, StorageError, UsageError
from hpo.experiment import enqueueing, extension, steering
from hpo.experiment.experiment import Experiment, create_experiment, load_experiment
from hpo.studyfile.load import parse_study_file
from hpo.trainers.loading import load_trainers

load_trainers("")

TABLE: dict[str, Any] = {
    "name": "steered",
    "trainer": "program",
    "command": ["train", "--lr", "{lr}", "--width", "{width}", "{act}"],
    "metric": "loss",
    "direction": "minimize",
    "samplers": ["grid", "random", "tpe"],
    "pruner": "none",
    "budget": {"trials": 4},
    "space": {
        "lr": {"low": 0.001, "high": 1.0, "log": True, "grid": 2},
        "width": {"choices": [32, 64], "grid": [32, 64]},
        "act": {"choices": ["relu", "tanh", "it's <b>🚀</b>"], "grid": ["relu"]},
    },
    "forbidden": [{"width": 64, "act": "tanh"}],
}


@pytest.fixture
def make(storage: Storage) -> Callable[..., Experiment]:
    def made(**keys: Any) -> Experiment:
        return create_experiment(storage, parse_study_file({**TABLE, **keys}, "study.toml"))[0]

    return made


def budgets(experiment: Experiment) -> list[int | None]:
    with experiment.storage.engine.connect() as connection:
        return [budget.num_lineages for budget in read_budgets(connection, experiment.study_ids)]


def test_extend_counts_for_each_search_but_grid_and_a_launch_with_the_old_file_keeps_it(make, storage) -> None:
    experiment = make()
    before = budgets(experiment)
    done = extension.extend(experiment, {"trials": "+2"}, who="ann")
    assert "trials 4 to 6" in done.message
    assert budgets(experiment) == [before[0], 6, 6]
    extension.extend(experiment, {"trials": "10"})
    assert budgets(load_experiment(storage, experiment.name)) == [before[0], 10, 10]
    again, changes = create_experiment(storage, parse_study_file(TABLE, "study.toml"))
    assert changes == []
    assert budgets(again) == [before[0], 10, 10]
    larger, changes = create_experiment(storage, parse_study_file({**TABLE, "budget": {"trials": 12}}, "study.toml"))
    assert changes == ["budget.trials: 10 -> 12"]
    assert budgets(larger)[1:] == [12, 12]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "expected --trials"),
        ({"epochs": "9"}, "--epochs: the budget of this experiment is trials = 4; expected --trials"),
        ({"trials": "3"}, "not more than the 4"),
        ({"trials": "+0"}, "not more than the 4"),
        ({"trials": "-1"}, "not more than the 4"),
        ({"trials": "many"}, "expected a whole number"),
        ({"trials": "+1.5"}, "expected a whole number"),
        ({"trials": str(10**12)}, "refused"),
    ],
)
def test_a_budget_that_does_not_grow_is_refused(make, wanted, message) -> None:
    experiment = make()
    with pytest.raises(UsageError, match=message.replace("+", r"\+")):
        extension.extend(experiment, wanted)
    assert budgets(experiment)[1:] == [4, 4]


def test_a_time_is_extended(make) -> None:
    experiment = make(budget={"trials": 4, "hours": 1.0})
    extension.extend(experiment, {"hours": "+0.5"})
    with experiment.storage.engine.connect() as connection:
        assert {budget.num_seconds for budget in read_budgets(connection, experiment.study_ids)} == {5400.0}


def test_an_enqueued_configuration_is_the_next_trial_of_each_study_that_can_take_it(make) -> None:
    experiment = make()
    values = enqueueing.parse_values(["lr=1", "width=64", "act=relu"])
    assert values == {"lr": 1, "width": 64, "act": "relu"}
    done = enqueueing.enqueue(experiment, values, who="ann")
    assert done.message == "enqueued lr=1.0 width=64 act=relu in random/0, tpe/0"
    with pytest.raises(ExperimentError, match="waits already"):
        enqueueing.enqueue(experiment, values)
    claims, _ = claim(experiment.storage.engine, experiment.study_ids[1:], "worker", 2)
    assert [found.enqueued for found in claims] == [True, True]
    with experiment.storage.engine.connect() as connection:
        query = "SELECT value_json FROM trial_system_attributes WHERE trial_id = :t"
        stored = connection.execute(sa.text(query), {"t": claims[0].trial_id}).scalar()
    assert stored == '{"lr": 1.0, "width": 64, "act": "relu"}'


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["lr"], "expected NAME=VALUE"),
        ([], "no value is given"),
        (["lr=1", "lr=2"], "given twice"),
        (["lrr=0.1"], "lrr is not in .space. .did you mean 'lr'.."),
        (["lr=2"], "expected a number from 0.001 to 1"),
        (["lr=fast"], "expected a number from 0.001 to 1"),
        (["lr=true"], "expected a number"),
        (["width=48"], "expected one of 32, 64"),
        (["width=64", "act=tanh"], "forbids the enqueued values"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(make, texts, message) -> None:
    experiment = make()
    with pytest.raises(UsageError, match=message):
        enqueueing.enqueue(experiment, enqueueing.parse_values(texts))


def test_studies_are_chosen_by_sampler_and_repeat(make) -> None:
    experiment = make(repeats=2)
    done = enqueueing.enqueue(experiment, {"lr": 0.1}, sampler="tpe", repeat=1)
    assert done.message.endswith("in tpe/1")
    with pytest.raises(UsageError, match="no sampler 'tpee'"):
        enqueueing.enqueue(experiment, {"lr": 0.1}, sampler="tpee")
    with pytest.raises(UsageError, match="no repeat 7; it has 0 to 1"):
        enqueueing.enqueue(experiment, {"lr": 0.1}, repeat=7)
    with pytest.raises(UsageError, match="grid search trains its own cells"):
        enqueueing.enqueue(experiment, {"lr": 0.1}, sampler="grid")


def test_a_budget_that_is_given_out_takes_no_further_configuration(make) -> None:
    experiment = make(samplers=["random"], budget={"trials": 1})
    enqueueing.enqueue(experiment, {"lr": 0.1})
    with pytest.raises(ExperimentError, match="make room first: hpo extend"):
        enqueueing.enqueue(experiment, {"lr": 0.2})
    extension.extend(experiment, {"trials": "+1"})
    enqueueing.enqueue(experiment, {"lr": 0.2})


def test_nothing_is_claimed_while_it_is_paused_also_in_a_study_that_a_launch_adds(make, storage) -> None:
    experiment = make()
    steering.pause(experiment, who="ann")
    assert claim(storage.engine, experiment.study_ids, "worker", 4) == ([], False)
    larger, _ = create_experiment(storage, parse_study_file({**TABLE, "repeats": 2}, "study.toml"))
    assert claim(storage.engine, larger.study_ids, "worker", 4) == ([], False)
    enqueueing.enqueue(larger, {"act": "it's <b>🚀</b>"}, sampler="tpe", repeat=0)
    with pytest.raises(ExperimentError, match="only a trial that has begun"):
        steering.prune(larger, "tpe/0/0")
    steering.resume(larger)
    assert len(claim(storage.engine, larger.study_ids, "worker", 4)[0]) == 4


def test_pausing_what_is_stopped_is_refused_and_stopping_twice_says_who_did(make) -> None:
    experiment = make()
    steering.stop(experiment, who="ann")
    assert "it was stopped by ann" in steering.stop(experiment, who="bob").message
    with pytest.raises(ExperimentError, match="not running: it was stopped by bob"):
        steering.pause(experiment)
    assert "neither paused nor stopped" in [steering.resume(experiment), steering.resume(experiment)][1].message


def test_each_is_a_function_in_python(make, storage, monkeypatch) -> None:
    experiment = make()
    name, where = experiment.name, storage.secret_address
    claim(storage.engine, experiment.study_ids[1:2], "worker", 1)
    assert "is paused" in hpo.pause(name, storage=where)
    assert "goes on" in hpo.resume(name, storage=where)
    assert "will be pruned" in hpo.prune(name, "random/0/0", storage=where)
    assert "4 to 6" in hpo.extend(name, trials="+2", storage=where)
    assert "in tpe/0" in hpo.enqueue(name, {"lr": 0.1}, sampler="tpe", storage=where)
    assert "is stopped" in hpo.stop(name, finish_running=True, storage=where)
    with pytest.raises(ExperimentError, match="did you mean 'steered'"):
        hpo.stop("sterred", storage=where)


def test_an_order_while_the_database_is_away_changes_nothing_and_says_so(stoppable, stoppable_storage) -> None:
    experiment = create_experiment(stoppable_storage, parse_study_file({**TABLE, "name": "away"}, "study.toml"))[0]
    stoppable.stop()
    try:
        with pytest.raises((sa.exc.DBAPIError, StorageError)):
            steering.stop(experiment)
    finally:
        stoppable.start()
    assert steering.order_of(experiment).halt is None
    steering.stop(experiment)
    assert steering.order_of(experiment).halt == "stopped"
