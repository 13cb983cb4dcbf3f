"""A whole worker in this process: what follows each thing that a trainer, a sampler or a person does to a trial."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pydantic
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

import hpo.worker.study_runner
from hpo.database import attributes, retries, study_budget
from hpo.database.storage import Storage
from hpo.database.study_budget import read_budgets
from hpo.errors import ExperimentError
from hpo.experiment.experiment import Experiment, create_experiment
from hpo.experiment.status import snapshot
from hpo.studyfile.load import parse_study_file
from hpo.trainers.errors import Infeasible
from hpo.trainers.generator import GeneratorTrainer, trainer
from hpo.trainers.protocol import BuildOptions, Config, EpochEnd, Event, Failed, Run
from hpo.trainers.registry import TrainerEntry, register
from hpo.worker import failures
from hpo.worker.exit_codes import EXIT_DEVICE, EXIT_MEMORY, EXIT_RESTART
from hpo.worker.options import WorkerOptions
from hpo.worker.worker import Worker
from tests.integration.trials_support import claim_one, finish, new_study

Body = Callable[["Shaky", Run], Iterator[dict[str, Any]]]
body: list[Body] = []
"""What the trainer does in the test that runs."""

least = [0.0]
"""The smallest x that fits, in the test that runs."""


class Shaky(Config):
    x: float = pydantic.Field(0.1, ge=0, le=1)
    epochs: int = pydantic.Field(3, ge=1)

    @pydantic.model_validator(mode="after")
    def fits(self) -> "Shaky":
        if self.x < least[0]:
            raise ValueError(f"x = {self.x} does not fit")
        return self


@trainer("shaky", metrics={"loss": "minimize"})
def shaky(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
    """Does what the test says."""
    yield from body[0](config, run)


class Pack:
    """Four slots, an epoch of all of them a turn."""

    def __init__(self, options: BuildOptions) -> None:
        self.capacity = 4
        self.epochs: dict[Any, int] = {}
        self.configs: dict[Any, Shaky] = {}

    def start(self, key: Any, config: Shaky, run: Run) -> None:
        self.epochs[key], self.configs[key] = run.start_epoch, config

    def advance(self) -> list[Event]:
        time.sleep(0.02)
        if any(config.x > 0.9 for config in self.configs.values()):
            keys = list(self.epochs)
            self.epochs.clear()
            self.configs.clear()
            return [Failed(key, RuntimeError("CUDA error: device-side assert triggered")) for key in keys]
        events: list[Event] = []
        for key in list(self.epochs):
            self.epochs[key] += 1
            finished = self.epochs[key] == self.configs[key].epochs
            events.append(EpochEnd(key, self.epochs[key], {"loss": self.configs[key].x}, finished))
            if finished:
                self.stop(key)
        return events

    def stop(self, key: Any) -> None:
        self.epochs.pop(key, None)
        self.configs.pop(key, None)


register(TrainerEntry("shaky-pack", Shaky, Pack, "four at a time", {"loss": "minimize"}))


def plain(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
    for _ in range(run.start_epoch, config.epochs):
        yield {"loss": config.x}


@pytest.fixture
def experiment(storage: Storage) -> Callable[..., Experiment]:
    def make(does: Body = plain, fits_from: float = 0.0, **keys: Any) -> Experiment:
        body[:], least[:] = [does], [0.0]
        table = {"name": "shaky", "trainer": "shaky", "metric": "loss", "samplers": ["random"], "pruner": "none"}
        table |= {"budget": {"trials": 12}, "space": {"x": {"low": 0.0, "high": 1.0, "grid": 12}}, **keys}
        made = create_experiment(storage, parse_study_file(table, "study.toml"))[0]
        least[:] = [fits_from]
        return made

    return make


@pytest.fixture
def work(tmp_path: Path) -> Callable[..., int]:
    def run(experiment: Experiment, **options: Any) -> int:
        return Worker(experiment, WorkerOptions(str(tmp_path / "checkpoints"), tmp_path / "artifacts", **options)).run()

    return run


def trials_of(experiment: Experiment) -> list[FrozenTrial]:
    return experiment.storage.get_all_trials(experiment.study_ids[0])


def last_of(experiment: Experiment) -> list[FrozenTrial]:
    """The attempt of each lineage that counts, by lineage."""
    latest: dict[int, FrozenTrial] = {}
    for trial in trials_of(experiment):
        if attributes.LINEAGE in trial.user_attrs:
            latest[trial.user_attrs[attributes.LINEAGE]] = trial
    return [latest[lineage] for lineage in sorted(latest)]


def infeasible_of(experiment: Experiment) -> list[FrozenTrial]:
    return [trial for trial in trials_of(experiment) if attributes.INFEASIBLE in trial.user_attrs]


def draws_of(experiment: Experiment) -> list[Any]:
    return sorted((*t.user_attrs[attributes.INFEASIBLE].values(), t.params["x"]) for t in infeasible_of(experiment))


def until_finished(work: Callable[..., int], experiment: Experiment) -> list[int]:
    """Replaces workers as a launcher does; returns their exit codes."""
    codes = [work(experiment)]
    while codes[-1] != 0:
        assert len(codes) < 40
        codes.append(work(experiment))
    return codes


def test_a_trial_that_its_trainer_prunes_is_pruned_in_one_attempt(experiment, work) -> None:
    def prunes(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        yield {"loss": config.x}
        raise optuna.TrialPruned("hopeless")

    made = experiment(prunes)
    assert work(made) == 0
    trials = trials_of(made)
    assert [trial.state for trial in trials] == [TrialState.PRUNED] * 12
    assert {trial.user_attrs["reason"] for trial in trials} == {"hopeless"}


def test_refused_draws_cost_no_budget_and_random_search_draws_alike_at_any_number_of_workers(experiment, work) -> None:
    alone = experiment(name="alone", fits_from=0.7)
    assert work(alone) == 0
    among = experiment(name="among", fits_from=0.7)
    with ThreadPoolExecutor(3) as pool:
        codes = list(pool.map(lambda _: work(among), range(3)))
    assert codes == [0, 0, 0]
    for made in (alone, among):
        assert [trial.state for trial in last_of(made)] == [TrialState.COMPLETE] * 12
        assert all(trial.params["x"] >= 0.7 for trial in last_of(made))
        refused = infeasible_of(made)
        assert len(refused) > 12
        assert all(trial.state is TrialState.PRUNED and trial.params["x"] < 0.7 for trial in refused)
        assert all("does not fit" in trial.user_attrs["reason"] for trial in refused)
        assert all(trial.constraints == {"feasible": 1.0} for trial in refused)
        with made.storage.engine.connect() as connection:
            assert retries.count_infeasible(connection, made.study_ids) == {made.study_ids[0]: len(refused)}
    assert [trial.params for trial in last_of(alone)] == [trial.params for trial in last_of(among)]
    assert draws_of(alone) == draws_of(among)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "qmc"])
def test_every_sampler_finds_what_fits(sampler: str, experiment, work) -> None:
    made = experiment(samplers=[sampler], fits_from=0.8)
    assert work(made) == 0
    assert [trial.state for trial in last_of(made)] == [TrialState.COMPLETE] * 12


def test_where_almost_nothing_fits_the_run_ends_with_the_share(experiment, work) -> None:
    made = experiment(fits_from=0.9999999)
    with pytest.raises(ExperimentError, match=r"200 configurations in a row .* fitted \(0\.0 %\).*does not fit"):
        work(made)


def test_the_trainer_refuses_configurations_while_it_runs(experiment, work) -> None:
    def refuses(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        yield {"loss": config.x}
        if config.x > 0.3:
            raise Infeasible("does not fit")
        assert run.start_epoch == 0
        yield {"loss": config.x}

    made = experiment(refuses)
    assert work(made) == 0
    assert [trial.state for trial in last_of(made)] == [TrialState.COMPLETE] * 12
    assert all(trial.params["x"] <= 0.3 for trial in last_of(made))
    assert {trial.user_attrs["reason"] for trial in infeasible_of(made)} == {"infeasible: does not fit"}


def test_a_cell_of_a_grid_that_is_infeasible_stays_pruned(experiment, work) -> None:
    def refuses(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        if config.x > 0.5:
            raise Infeasible("does not fit")
        yield {"loss": config.x}

    made = experiment(refuses, samplers=["grid"])
    assert work(made) == 0
    assert [trial.state for trial in trials_of(made)] == [TrialState.COMPLETE] * 6 + [TrialState.PRUNED] * 6


def test_out_of_memory_is_tried_once_more_and_then_infeasible(experiment, work) -> None:
    def leaks(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        if config.x > 0.8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 600.00 MiB")
        yield {"loss": config.x}

    made = experiment(leaks)
    codes = until_finished(work, made)
    assert set(codes) <= {EXIT_RESTART, EXIT_MEMORY, 0}
    assert all(trial.state is TrialState.COMPLETE and trial.params["x"] <= 0.8 for trial in last_of(made))
    assert len(last_of(made)) == 12
    assert len(infeasible_of(made)) > 0
    assert codes.count(EXIT_RESTART) == 2 * len(infeasible_of(made))


def test_a_broken_device_replaces_the_worker_and_fails_only_who_breaks_it(experiment, work) -> None:
    broken: list[bool] = []

    def breaks(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        yield {"loss": config.x}
        if broken or config.x > 0.8:
            broken.append(True)
            raise RuntimeError("CUDA error: device-side assert triggered")

    made = experiment(breaks)
    codes = [EXIT_DEVICE]
    while codes[-1] == EXIT_DEVICE:
        broken.clear()  # another process
        codes.append(work(made))
    assert codes[-1] == 0
    for trial in last_of(made):
        assert trial.state is (TrialState.FAIL if trial.params["x"] > 0.8 else TrialState.COMPLETE)
    assert codes.count(EXIT_DEVICE) - 1 == 2 * sum(trial.state is TrialState.FAIL for trial in last_of(made)) > 0


def test_a_device_that_breaks_under_a_pack_is_charged_to_the_one_that_breaks_it_alone(experiment, work) -> None:
    made = experiment(trainer="shaky-pack")
    codes = until_finished(work, made)
    assert set(codes) == {EXIT_DEVICE, 0}
    for trial in last_of(made):
        assert trial.state is (TrialState.FAIL if trial.params["x"] > 0.9 else TrialState.COMPLETE)
    assert any(trial.state is TrialState.FAIL for trial in last_of(made))


def test_too_many_open_files_is_not_charged_to_who_meets_them(experiment, work) -> None:
    opened: list[float] = []

    def opens(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        opened.append(config.x)
        if len(opened) == 4:
            raise OSError(24, "Too many open files")
        yield {"loss": config.x}

    made = experiment(opens, max_retries=0)
    assert until_finished(work, made) == [EXIT_RESTART, 0]
    assert [trial.state for trial in last_of(made)] == [TrialState.COMPLETE] * 12


def test_a_run_in_which_nothing_succeeds_ends_with_the_reason(experiment, work) -> None:
    def raises(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        yield {"loss": config.x}
        raise ValueError(f"no such file as /data/{config.x}/train.bin")

    made = experiment(raises, budget={"trials": 100})
    text = "^5 trials failed and none has succeeded; the last one: ValueError: no such file"
    with pytest.raises(ExperimentError, match=text):
        work(made)
    assert sum(trial.state is TrialState.FAIL for trial in last_of(made)) == 5


def test_bad_configurations_never_end_a_run_as_long_as_others_succeed(experiment, work) -> None:
    def mostly_raises(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        if config.x > 0.3:
            raise ValueError("no such luck")
        yield {"loss": config.x}

    made = experiment(mostly_raises, budget={"trials": 40}, try_first=[{"x": 0.1}])
    assert work(made) == 0
    states = [trial.state for trial in last_of(made)]
    assert states.count(TrialState.FAIL) > 20
    assert len(states) == 40


def test_a_sampler_that_raises_fails_its_trial(experiment, work, monkeypatch: pytest.MonkeyPatch) -> None:
    build = hpo.worker.study_runner.build_sampler
    asked: list[int] = []

    def broken(*arguments: Any) -> Any:
        sampler = build(*arguments)
        asked.append(1)
        if len(asked) in (4, 5):
            monkeypatch.setattr(sampler, "sample_independent", lambda *_: 1 / 0)
        return sampler

    monkeypatch.setattr(hpo.worker.study_runner, "build_sampler", broken)
    made = experiment()
    assert work(made) == 0
    states = [trial.state for trial in last_of(made)]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.FAIL] + [TrialState.COMPLETE] * 8
    reason = last_of(made)[3].user_attrs["reason"]
    assert reason == "SamplerError: the sampler 'random' raised ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"x": "high"}, "x = 'high' was enqueued; expected a number from 0 to 1"),
        ({"x": None}, "x = None was enqueued; expected a number from 0 to 1"),
        ({"x": [0.5]}, "x = [0.5] was enqueued"),
        ({"x": True}, "x = True was enqueued"),
        ({"x": 2.5}, "x = 2.5 was enqueued; expected a number from 0 to 1"),
        ({"kind": "c"}, "kind = 'c' was enqueued; expected one of 'a', 'b'"),
        ({"y": 0.5}, "y = 0.5 was enqueued, and y is not in [space]"),
        ({"epochs": 2}, "epochs = 2 was enqueued, and epochs is not in [space]"),
    ],
)
def test_enqueued_values_that_cannot_be_used_fail_with_the_value(
    values: dict[str, Any], text: str, experiment, work, storage: Storage
) -> None:
    class Kinds(Shaky):
        kind: str = "a"

    build: Callable[[BuildOptions], Any] = lambda options: GeneratorTrainer(shaky)  # noqa: E731
    register(TrainerEntry("shaky-kinds", Kinds, build, "with a choice", {"loss": "minimize"}, max_slots=1))
    made = experiment(trainer="shaky-kinds", space={"x": {"low": 0.0, "high": 1.0}, "kind": ["a", "b"]})
    study = optuna.load_study(study_name=made.studies[0].name, storage=storage)
    study.enqueue_trial(values)
    study.enqueue_trial({"x": 0.25})
    assert work(made) == 0
    first, second, *others = last_of(made)
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert text in first.user_attrs["reason"]
    assert first.system_attrs["fixed_params"] == values
    assert second.params["x"] == 0.25
    assert [trial.state for trial in others] == [TrialState.COMPLETE] * 10
    assert len(trials_of(made)) == 12


def test_what_is_enqueued_into_a_grid_fails_and_every_cell_is_trained(experiment, work, storage: Storage) -> None:
    made = experiment(samplers=["grid"])
    study = optuna.load_study(study_name=made.studies[0].name, storage=storage)
    study.enqueue_trial({"x": 0.05})
    assert work(made) == 0
    assert [trial.state for trial in last_of(made)] == [TrialState.COMPLETE] * 12
    (failed,) = [trial for trial in trials_of(made) if trial.state is TrialState.FAIL]
    assert failed.user_attrs["reason"].startswith("grid search trains its own cells")
    assert "x = 0.05" in failed.user_attrs["reason"]


def test_a_trial_that_stops_for_lack_of_progress_is_complete(experiment, work) -> None:
    def stalls(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        for loss in (0.5, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
            yield {"loss": loss + config.x}

    made = experiment(stalls, pruner={"name": "patient", "patience": 2}, value="best", fixed={"epochs": 50})
    assert work(made) == 0
    for trial in trials_of(made):
        assert trial.state is TrialState.COMPLETE
        assert len(trial.intermediate_values) < 8
        assert trial.value == pytest.approx(0.2 + trial.params["x"])
        assert trial.user_attrs["reason"].startswith("no more progress: patient at epoch ")


def test_a_trial_that_is_out_of_time_is_complete_with_what_it_has(experiment, work) -> None:
    def slow(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        for epoch in range(config.epochs):
            time.sleep(0.1)
            yield {"loss": config.x + 1 / (epoch + 1)}

    limits = {"trial_timeout_seconds": 0.35, "fixed": {"epochs": 50}, "budget": {"trials": 2}}
    made = experiment(slow, **limits)
    assert work(made) == 0
    trials = trials_of(made)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    for trial in trials:
        epochs = max(trial.intermediate_values)
        assert 2 <= epochs <= 4
        assert trial.value == pytest.approx(trial.params["x"] + 1 / epochs)
        assert trial.user_attrs["reason"] == f"stopped after trial_timeout_seconds, at epoch {epochs}"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_search_ends_at_its_target(direction: str, experiment, work, storage: Storage) -> None:
    """The cells are 0, 1/11, … 1: the third one reaches 2/11, the tenth one from below."""
    target = {"minimize": 1.0, "maximize": 2 / 11 - 1e-6}[direction]
    keys = {"samplers": ["grid"], "direction": direction, "target": target, "budget": {"trials": 12}}
    made = experiment(plain, **keys, stop_at_target=True)
    assert work(made) == 0
    num_trials = {"minimize": 1, "maximize": 3}[direction]
    assert [trial.state for trial in trials_of(made)] == [TrialState.COMPLETE] * num_trials
    # Launched again it stays ended; without the key it goes on to its budget.
    made = experiment(plain, **keys, stop_at_target=True)
    assert (work(made), len(trials_of(made))) == (0, num_trials)
    made = experiment(plain, **keys)
    assert (work(made), len(trials_of(made))) == (0, 12)
    # A file that then says so again has reached it already.
    made = experiment(plain, **keys, stop_at_target=True)
    with storage.engine.connect() as connection:
        assert [budget.reached for budget in read_budgets(connection, made.study_ids)] == [True]


def test_a_search_ends_with_its_time_and_a_larger_one_goes_on_from_the_checkpoints(experiment, work, storage) -> None:
    starts: list[int] = []

    def slow(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        starts.append(run.start_epoch)
        for epoch in range(run.start_epoch, config.epochs):
            time.sleep(0.3)
            run.save({"epoch": epoch})
            yield {"loss": config.x}

    keys = {"fixed": {"epochs": 4}}
    made = experiment(slow, budget={"trials": 3, "seconds": 0.5}, **keys)
    assert work(made) == 0
    (trial,) = [trial for trial in trials_of(made) if trial.state is not TrialState.WAITING]
    reached = trial.user_attrs[attributes.EPOCHS]
    assert reached in (1, 2)
    assert trial.user_attrs["reason"] == f"the time of the search is over, at epoch {reached}"
    (study,) = snapshot(made)["studies"]
    assert (study["finished"], study["states"]["waiting"], study["seconds_left"]) == (True, 1, 0.0)
    assert study["budget"] == {"trials": 3, "seconds": 0.5}
    # The same file has nothing left to do; a larger time goes on from the checkpoint.
    assert (work(experiment(slow, budget={"trials": 3, "seconds": 0.5}, **keys)), starts) == (0, [0])
    made = experiment(slow, budget={"trials": 3, "hours": 1}, **keys)
    assert (work(made), starts) == (0, [0, reached, 0, 0])
    assert [trial.state for trial in last_of(made)] == [TrialState.COMPLETE] * 3


def test_time_alone_is_a_budget(experiment, work) -> None:
    def slow(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        time.sleep(0.05)
        yield {"loss": config.x}

    made = experiment(slow, samplers=["random", "grid"], budget={"seconds": 1.5})
    assert work(made) == 0
    random, grid = snapshot(made)["studies"]
    assert (random["finished"], grid["finished"]) == (True, True)
    assert random["states"]["complete"] > 0
    assert 0 < grid["states"]["complete"] <= 12
    assert 0 <= random["seconds_left"] < 1.5


def test_a_target_that_nothing_reaches_ends_nothing(experiment, work) -> None:
    made = experiment(plain, samplers=["grid"], target=-1.0, stop_at_target=True)
    assert (work(made), len(trials_of(made))) == (0, 12)


def test_what_a_wrapped_pruner_prunes_stays_pruned_with_its_best_epoch(experiment, work) -> None:
    def stalls(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        for loss in (0.5, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
            yield {"loss": loss}

    wrapped = {"name": "threshold", "upper": 0.35}
    pruner = {"name": "patient", "patience": 1, "wrapped": wrapped}
    made = experiment(stalls, pruner=pruner, value="best", fixed={"epochs": 50})
    assert work(made) == 0
    assert {(trial.state, trial.value) for trial in trials_of(made)} == {(TrialState.PRUNED, 0.2)}


def test_the_time_of_a_pack_is_shared(experiment, work) -> None:
    made = experiment(trainer="shaky-pack", space={"x": {"low": 0.0, "high": 0.8}}, fixed={"epochs": 6})
    started = time.monotonic()
    assert work(made) == 0
    clock = time.monotonic() - started
    shares = [trial.user_attrs[attributes.SECONDS] for trial in trials_of(made)]
    walls = [trial.user_attrs[attributes.WALL_SECONDS] for trial in trials_of(made)]
    assert 12 * 6 * 0.02 / 4 * 0.9 < sum(shares) <= clock
    assert sum(walls) > 2 * sum(shares)


def test_a_memory_limit_below_the_process_is_refused_at_once(experiment, work) -> None:
    with pytest.raises(ExperimentError, match=r"--memory-limit-mb 1 is less than the \d+ MB that this worker takes"):
        work(experiment(), memory_limit_mb=1)


def test_epochs_without_the_metric_are_epochs_without_a_report(experiment, work) -> None:
    def sparse(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        for epoch in range(1, 10):
            yield {"train": 1.0, "loss": config.x if epoch % 3 == 0 else None}

    made = experiment(sparse, pruner={"name": "median", "n_startup_trials": 1}, fixed={"epochs": 9})
    assert work(made) == 0
    assert all(set(trial.intermediate_values) <= {3, 6, 9} for trial in trials_of(made))
    assert any(trial.state is TrialState.COMPLETE for trial in trials_of(made))


def test_a_pruned_trial_without_a_report_is_pruned(experiment, work, caplog: pytest.LogCaptureFixture) -> None:
    def prunes(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        raise optuna.TrialPruned
        yield {}

    made = experiment(prunes, budget={"trials": 3})
    with caplog.at_level(logging.ERROR, "hpo"):
        assert work(made) == 0
    assert [(trial.state, trial.value) for trial in trials_of(made)] == [(TrialState.PRUNED, None)] * 3
    assert caplog.messages == []


def test_the_trainer_interrupts_itself(experiment, work) -> None:
    def interrupts(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        yield {"loss": config.x}
        raise KeyboardInterrupt

    made = experiment(interrupts)
    with pytest.raises(KeyboardInterrupt):
        work(made)
    assert {trial.state for trial in trials_of(made)} == {TrialState.FAIL, TrialState.WAITING}


def test_what_is_enqueued_takes_no_place_of_try_first(experiment, work, storage: Storage) -> None:
    made = experiment(try_first=[{"x": 0.125}, {"x": 0.25}])
    study = optuna.load_study(study_name=made.studies[0].name, storage=storage)
    study.enqueue_trial({"x": 0.5})
    assert work(made) == 0
    assert [trial.params["x"] for trial in last_of(made)][:3] == [0.125, 0.25, 0.5]
    assert len(last_of(made)) == 12


def test_a_trainer_that_refuses_every_configuration_of_one_lineage_ends_the_run(
    experiment, work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hpo.worker.study_runner, "MAX_DRAWS", 12)

    def refuses(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        if run.lineage == 2:
            raise Infeasible("does not fit")
        yield {"loss": config.x}

    made = experiment(refuses, samplers=["tpe"])
    with pytest.raises(ExperimentError, match=r"12 configurations in a row .* fitted \(14\.3 %\)"):
        work(made)
    assert len(infeasible_of(made)) == 12


def test_twenty_failures_of_any_kind_end_a_run_without_a_result(storage: Storage) -> None:
    study_id = new_study(storage, 30)
    for index in range(20):
        assert failures.why_nothing_succeeds(storage.engine, [study_id]) is None
        claim = claim_one(storage, study_id)
        with storage.engine.begin() as connection:
            retries.retry_or_fail(connection, claim.trial_id, f"ValueError: {chr(97 + index)}", 0)
    reason = failures.why_nothing_succeeds(storage.engine, [study_id])
    assert reason == "20 trials failed and none has succeeded; the last one: ValueError: t"
    assert finish(storage, claim_one(storage, study_id).trial_id)
    assert failures.why_nothing_succeeds(storage.engine, [study_id]) is None


def test_epochs_of_every_ending_are_spent(experiment, work) -> None:
    def does(config: Shaky, run: Run) -> Iterator[dict[str, Any]]:
        yield {"loss": config.x}
        if run.lineage == 0:
            raise ValueError("no such luck")
        if run.lineage == 1 and run.attempt == 0:
            raise Infeasible("does not fit")
        yield {"loss": config.x}

    made = experiment(does, budget={"epochs": 12}, fixed={"epochs": 2})
    assert work(made) == 0
    with made.storage.engine.connect() as connection:
        (budget,) = study_budget.read_budgets(connection, made.study_ids)
    # One of the failed lineage, one of the infeasible configuration, two of each other.
    assert budget.epochs_spent == 1 + 1 + 2 * (len(last_of(made)) - 1) <= 12
    assert len(last_of(made)) == 6
