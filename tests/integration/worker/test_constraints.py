"""Measured constraints: what violates one is nobody's best, and samplers learn to avoid it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

from hpo.compare import report
from hpo.compare.output import to_json
from hpo.database.storage import Storage
from hpo.errors import ExperimentError, NothingSucceedsError
from hpo.experiment.experiment import Experiment, create_experiment
from hpo.experiment.results import best_trials
from hpo.experiment.status import snapshot
from hpo.studyfile.load import parse_study_file
from hpo.trainers.generator import trainer
from hpo.trainers.protocol import Config, Run
from hpo.worker.options import WorkerOptions
from hpo.worker.worker import Worker


class Sized(Config):
    width: int = pydantic.Field(8, ge=1, le=64)
    depth: int = pydantic.Field(1, ge=1, le=8)
    epochs: int = pydantic.Field(1, ge=1)


@trainer("sized")
def sized(config: Sized, run: Run) -> Iterator[dict[str, float]]:
    """The larger the better, and the larger the more parameters."""
    for _ in range(config.epochs):
        yield {"accuracy": config.width * config.depth / 512, "num_parameters": float(config.width * config.depth)}


@pytest.fixture
def search(storage: Storage, tmp_path: Path) -> Callable[..., Experiment]:
    def run(**keys: Any) -> Experiment:
        table = {"name": "bounded", "trainer": "sized", "metric": "accuracy", "samplers": ["random"]}
        table |= {"budget": {"trials": 40}, "constraints": {"num_parameters": {"at_most": 100}}}
        table["space"] = {"width": {"low": 1, "high": 64}, "depth": {"low": 1, "high": 8}}
        made = create_experiment(storage, parse_study_file({**table, **keys}, "study.toml"))[0]
        Worker(made, WorkerOptions(str(tmp_path / "checkpoints"), tmp_path / "artifacts")).run()
        return made

    return run


def sizes(experiment: Experiment) -> list[int]:
    trials = experiment.storage.get_all_trials(experiment.study_ids[0])
    return [trial.params["width"] * trial.params["depth"] for trial in sorted(trials, key=lambda trial: trial.number)]


def test_the_best_is_the_best_that_keeps_them(search: Callable[..., Experiment], storage: Storage) -> None:
    experiment = search()
    found = sizes(experiment)
    kept = max(size for size in found if size <= 100) / 512
    assert max(found) > 100
    assert best_trials(experiment)[0].value == pytest.approx(kept)
    assert all(best.value <= kept for best in best_trials(experiment, top=40))
    (study,) = snapshot(experiment)["studies"]
    assert study["states"]["complete"] == 40  # what violates a constraint costs budget
    assert study["best"]["value"] == pytest.approx(kept)
    compared = to_json(report.compare(storage, ["bounded"]))
    assert compared["samplers"]["random"]["final"]["values"] == {"0": pytest.approx(kept)}
    assert max(v for v in compared["samplers"]["random"]["curves"]["trials"]["median"] if v) == pytest.approx(kept)
    count = sum(size > 100 for size in found)
    expected = f"{count} complete trials violate the constraints (num_parameters at most 100) and cannot be the best."
    assert expected in compared["notes"]
    trial = next(t for t in storage.get_all_trials(experiment.study_ids[0]) if t.constraints["num_parameters"] > 0)
    assert trial.user_attrs["reason"].startswith("violates the constraint num_parameters at most 100: ")


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.release)])
def test_samplers_avoid_what_violates_them(sampler: str, search: Callable[..., Experiment]) -> None:
    found = sizes(search(samplers=[sampler], budget={"trials": 60}))
    first, second = (sum(size > 100 for size in half) for half in (found[:10], found[40:]))
    assert second / 20 < first / 10 / 2, (first, second)


def test_a_target_is_reached_within_the_constraints(search: Callable[..., Experiment]) -> None:
    experiment = search(target=0.1, stop_at_target=True)
    *before, last = sizes(experiment)
    assert 0.1 * 512 <= last <= 100
    assert all(size > 100 or size < 0.1 * 512 for size in before)
    assert any(size > 100 for size in before)


def test_bounds_that_nothing_keeps_say_so(search: Callable[..., Experiment]) -> None:
    experiment = search(
        budget={"trials": 3}, constraints={"num_parameters": {"at_most": 0.5}, "accuracy": {"at_least": 0}}
    )
    with pytest.raises(
        ExperimentError, match=r"keeps the constraints \(num_parameters at most 0.5, accuracy at least 0\)"
    ):
        best_trials(experiment)


def test_a_metric_that_is_not_yielded_ends_the_search(search: Callable[..., Experiment]) -> None:
    with pytest.raises(NothingSucceedsError, match="yields no 'num_params', only accuracy, num_parameters"):
        search(constraints={"num_params": {"at_most": 1}}, max_retries=0)
