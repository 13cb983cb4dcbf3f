"""A new sampler and a new pruner are one row each: everything else reads what they are from the row."""

import pydantic
import pytest
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

import benchmarks.sleeping  # noqa: F401  (registers the trainer)
from hpo.catalog import parts
from hpo.database.storage import Storage
from hpo.errors import StudyFileError
from hpo.experiment.experiment import create_experiment
from hpo.search.context import Options, SearchContext, Unmet
from hpo.search.pruner_registry import PRUNERS, PrunerEntry
from hpo.search.pruners import accept_experimental
from hpo.search.sampler_registry import SAMPLERS, SamplerEntry
from hpo.search.space import Choice, Space
from hpo.studyfile.load import parse_study_file
from hpo.worker.options import WorkerOptions
from hpo.worker.worker import Worker

SPACE = {"lr": {"low": 1e-3, "high": 1.0, "log": True}, "beta": {"low": 0.8, "high": 0.99}}


class MiddleOptions(Options):
    shift: float = pydantic.Field(0.0, ge=0, lt=0.1)


def _middle(options: MiddleOptions, context: SearchContext, seed: int) -> BaseSampler:
    middle = context.space.parameters["beta"].middle()
    with accept_experimental():
        return PartialFixedSampler({"beta": middle + options.shift}, RandomSampler(seed))


def _middle_needs(options: MiddleOptions, space: Space) -> list[Unmet]:
    return [] if "beta" in space.parameters else [Unmet("needs a parameter beta"), Unmet("has no beta", ("space",))]


def _ends(space: Space) -> list[dict[str, Choice]]:
    return [{"lr": 0.001}, {"lr": 0.5}, {"lr": 1.0}]


class OneEpoch(BasePruner):
    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return trial.last_step == self._epoch


class OneEpochOptions(Options):
    epoch: int


def _one_epoch_needs(options: OneEpochOptions, context: SearchContext) -> list[Unmet]:
    most = context.max_epochs or 0
    return [] if options.epoch < most else [Unmet(f"expected less than {most}", ("epoch",))]


@pytest.fixture(autouse=True)
def new_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in (
        SamplerEntry("middle", "the middle of beta", MiddleOptions, _middle, needs=_middle_needs),
        SamplerEntry("ends", "three learning rates", Options, _middle, learns=False, cells=_ends),
        SamplerEntry("triple", "thrice the budget", MiddleOptions, _middle, budget_factor=3),
    ):
        monkeypatch.setitem(SAMPLERS, entry.name, entry)
    one = PrunerEntry(
        "one_epoch",
        "prunes after one epoch",
        OneEpochOptions,
        lambda options, context: OneEpoch(options.epoch),
        lambda options, most: {options.epoch},
        _one_epoch_needs,
    )
    monkeypatch.setitem(PRUNERS, one.name, one)


def table(**changes: object) -> dict[str, object]:
    return {
        "name": "rows",
        "trainer": "sleeping",
        "metric": "value",
        "samplers": [{"name": "middle", "shift": 0.01}, "ends", "triple"],
        "budget": {"trials": 4},
        "pruner": {"name": "one_epoch", "epoch": 2},
        "fixed": {"epochs": 3, "epoch_seconds": 0.0, "beta": 0.9},
        "space": SPACE,
        **changes,
    }


def test_a_study_file_runs_with_a_new_sampler_and_a_new_pruner(storage: Storage, tmp_path) -> None:
    study_file = parse_study_file(table(), "study.toml")
    assert parse_study_file(study_file.to_json(), "stored") == study_file
    experiment, _ = create_experiment(storage, study_file)
    worker = Worker(experiment, WorkerOptions(str(tmp_path / "checkpoints"), tmp_path / "artifacts"))
    assert worker.run() == 0
    trials = {study.sampler.label: storage.get_all_trials(study.study_id) for study in experiment.studies}
    assert {label: len(found) for label, found in trials.items()} == {"middle": 4, "ends": 3, "triple": 12}
    assert [trial.params["beta"] for trial in trials["middle"]] == pytest.approx([0.905] * 4)
    assert [trial.params for trial in trials["ends"]] == [{"lr": 0.001}, {"lr": 0.5}, {"lr": 1.0}]
    for found in trials.values():
        assert {(trial.state, trial.last_step) for trial in found} == {(TrialState.PRUNED, 2)}


def test_their_needs_and_options_are_checked_where_they_stand() -> None:
    wrapped = {"name": "patient", "patience": 1, "wrapped": {"name": "one_epoch", "epoch": 3}}
    with pytest.raises(StudyFileError) as caught:
        parse_study_file(table(pruner=wrapped, space={"lr": SPACE["lr"]}, samplers=["ends", "middle"]), "study.toml")
    assert caught.value.mistakes == [
        "samplers[1]: needs a parameter beta",
        "space: has no beta",
        "pruner.wrapped.epoch: expected less than 3",
    ]
    with pytest.raises(StudyFileError) as caught:
        parse_study_file(table(samplers=[{"name": "middle", "shift": 1.0}], pruner="one_epoch"), "study.toml")
    assert [line.split(":")[0] for line in caught.value.mistakes] == ["samplers[0].shift", "pruner.epoch"]
    with pytest.raises(StudyFileError, match=r"budget.trials: 2 is less than the grid's 3 cells"):
        parse_study_file(table(samplers=["ends"], budget={"trials": 2}), "study.toml")


def test_they_are_listed() -> None:
    listed = parts()
    assert listed["samplers"]["middle"] == "the middle of beta"
    assert listed["pruners"]["one_epoch"] == "prunes after one epoch"
