"""Searches of two metrics by whole workers: both values, the Pareto front everywhere, exact under a worker's end."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pydantic
import pytest

from hpo.compare import report
from hpo.compare.output import to_json
from hpo.compare.render import standalone
from hpo.database.storage import Storage
from hpo.errors import NothingSucceedsError, UsageError
from hpo.experiment.experiment import Experiment, create_experiment, load_experiment
from hpo.experiment.results import best_trials
from hpo.export.python import write_exported
from hpo.settings import Settings
from hpo.studyfile.load import load_study_file, parse_study_file
from hpo.trainers.generator import trainer
from hpo.trainers.protocol import Config, Run
from hpo.trainers.registry import TRAINERS
from hpo.worker.options import WorkerOptions
from hpo.worker.worker import Worker


class Tradeoff(Config):
    width: int = pydantic.Field(8, ge=1, le=64)
    waste: float = pydantic.Field(0.0, ge=0, le=1)
    names: bool = True
    epochs: int = pydantic.Field(2, ge=1)


@trainer("tradeoff", metrics={"accuracy": "maximize", "num_parameters": None})
def tradeoff(config: Tradeoff, run: Run) -> Iterator[dict[str, float]]:
    """More width is more accurate; waste costs accuracy. The size is yielded with the first epoch only."""
    for epoch in range(run.start_epoch, config.epochs):
        size = {"num_parameters": 10.0 * config.width} if epoch == 0 and config.names else {}
        yield {"accuracy": 1 - 1 / config.width - config.waste / 2 - 0.01 * (config.epochs - epoch), **size}


@pytest.fixture
def search(storage: Storage, tmp_path: Path) -> Callable[..., Experiment]:
    def run(**keys: Any) -> Experiment:
        table = {"name": "two", "trainer": "tradeoff", "metric": ["accuracy", "num_parameters"], "samplers": ["tpe"]}
        table |= {
            "budget": {"trials": 30},
            "space": {"width": {"low": 1, "high": 64}, "waste": {"low": 0.0, "high": 1.0}},
        }
        made = create_experiment(storage, parse_study_file({**table, **keys}, "study.toml"))[0]
        Worker(made, WorkerOptions(str(tmp_path / "checkpoints"), tmp_path / "artifacts")).run()
        return made

    return run


def test_every_sampler_searches_two_metrics_to_their_front(
    search: Callable[..., Experiment], storage: Storage, tmp_path: Path
) -> None:
    samplers = ["grid", "random", "qmc", "tpe", "auto", {"name": "nsgaii", "population_size": 8}]
    space = {
        "width": {"low": 1, "high": 64, "grid": [2, 8, 32]},
        "waste": {"low": 0.0, "high": 1.0, "grid": [0.0, 0.5]},
    }
    experiment = search(samplers=samplers, space=space, budget={"trials": 16})
    for handle in experiment.studies:
        study = optuna.load_study(study_name=handle.name, storage=storage, pruner=optuna.pruners.NopPruner())
        assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
        trials = study.get_trials(deepcopy=False)
        assert len(trials) == (6 if handle.sampler.name == "grid" else 16)
        for trial in trials:  # the last epoch's accuracy, and the size that the first epoch gave
            width, waste = trial.params["width"], trial.params["waste"]
            assert trial.values == pytest.approx([1 - 1 / width - waste / 2 - 0.01, 10.0 * width])
        ours = [(best.value, best.second) for best in best_trials(experiment, handle.sampler.label, pareto=True)]
        assert set(ours) == {tuple(trial.values) for trial in study.best_trials}

    found = to_json(report.compare(storage, ["two"]))
    assert (found["metric"], found["direction"]) == ("hypervolume", "maximize")
    assert {name: 0 <= s["final"]["values"]["0"] <= 1 for name, s in found["samplers"].items()} == dict.fromkeys(
        ("grid", "random", "qmc", "tpe", "auto", "nsgaii"), True
    )
    curve = [v for v in found["samplers"]["tpe"]["curves"]["epochs"]["median"] if v is not None]
    assert curve == sorted(curve)
    assert curve[-1] == pytest.approx(found["samplers"]["tpe"]["final"]["values"]["0"])
    assert len(found["front"]) == len(best_trials(experiment, pareto=True))
    assert "Pareto front" in standalone(report.compare(storage, ["two"]), "now")

    written = write_exported(experiment, Settings(), tmp_path / "front.toml", pareto=True)
    assert len(written) == len(found["front"])
    file = load_study_file(written[-1][0])
    assert [o.metric for o in file.objectives] == ["accuracy", "num_parameters"]
    assert file.provenance["values"] == {"accuracy": written[-1][1].value, "num_parameters": written[-1][1].second}


def test_tpe_and_nsgaii_learn_what_random_search_does_not(search: Callable[..., Experiment], storage: Storage) -> None:
    samplers = ["random", "tpe", {"name": "nsgaii", "population_size": 10}]
    search(samplers=samplers, budget={"trials": 48})
    values = to_json(report.compare(storage, ["two"]))["samplers"]
    means = {name: sampler["final"]["mean"] for name, sampler in values.items()}
    assert min(means["tpe"], means["nsgaii"]) > means["random"], json.dumps(means)


def test_a_second_metric_that_is_never_yielded_ends_the_search(search: Callable[..., Experiment]) -> None:
    with pytest.raises(NothingSucceedsError, match="yields no 'num_parameters', only accuracy"):
        search(fixed={"names": False}, max_retries=0)


def test_what_needs_one_metric_says_so(search: Callable[..., Experiment], storage: Storage) -> None:
    search(budget={"trials": 3})
    with pytest.raises(UsageError, match="--retrain N trains the best of one metric again"):
        report.compare(storage, ["two"], retrain=2, train=lambda *given: [])
    search(name="one", metric="accuracy", budget={"trials": 2})
    with pytest.raises(UsageError, match="has one metric, accuracy, so there is no Pareto front"):
        best_trials(load_experiment(storage, "one"), pareto=True)
    assert TRAINERS["tradeoff"].metrics is not None


def test_an_objective_may_return_two_numbers(storage: Storage, tmp_path: Path) -> None:
    from hpo.trainers.objective import register_objective

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", 0, 2)
        return x**2, (x - 2) ** 2

    register_objective("there:two", objective)
    table = {"name": "schaffer", "trainer": "there:two", "metric": ["a", "b"], "direction": ["minimize", "minimize"]}
    made = create_experiment(storage, parse_study_file({**table, "budget": {"trials": 12}}, "study.toml"))[0]
    Worker(made, WorkerOptions(str(tmp_path / "checkpoints"), tmp_path / "artifacts")).run()
    for best in best_trials(made, pareto=True):
        assert best.second == pytest.approx((best.value**0.5 - 2) ** 2)
