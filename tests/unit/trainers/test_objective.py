"""The trainer that runs an Optuna objective, through its protocol and with a study in memory."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest

from hpo.trainers.errors import TrainerError
from hpo.trainers.objective import MultiObjectiveError, ObjectiveTrainer, refusal, register_objective, value_of
from hpo.trainers.objective_trial import ObjectiveTrial
from hpo.trainers.protocol import Ended, EpochEnd, Failed, Run
from hpo.trainers.registry import TRAINERS


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    before = dict(TRAINERS)
    yield
    TRAINERS.clear()
    TRAINERS.update(before)


def make(
    objective: Callable[[Any], Any], study: optuna.Study | None = None, **options: Any
) -> tuple[ObjectiveTrainer, ObjectiveTrial]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = study or optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    trial = ObjectiveTrial(study, study._storage.create_new_trial(study._study_id), **options)
    trainer = ObjectiveTrainer(objective)
    trainer.start("key", {}, Run(metric="loss", optuna_trial=trial))
    return trainer, trial


def epoch(step: int, value: float, *, asked: bool = True) -> EpochEnd:
    return EpochEnd("key", step, {"loss": value}, False, may_prune=asked)


def test_each_question_is_an_epoch_and_the_returned_number_the_value() -> None:
    def objective(trial: optuna.Trial) -> float:
        assert isinstance(trial, optuna.Trial)
        for step in range(2):
            trial.report(1.0 / (step + 1), step)
            assert trial.should_prune() is False
        return 0.25

    trainer, _ = make(objective)
    assert trainer.advance() == [epoch(0, 1.0)]
    assert trainer.advance() == [epoch(1, 0.5)]
    assert trainer.advance() == [Ended("key", {"loss": 0.25})]
    assert trainer.advance() == []


def test_an_objective_that_never_asks_is_not_to_be_pruned_and_keeps_all_reports() -> None:
    def objective(trial: optuna.Trial) -> float:
        for step in (0, 5, 10):
            trial.report(step, step)
        return 1.0

    trainer, trial = make(objective)
    assert trainer.advance() == [epoch(0, 0.0, asked=False)]
    assert trainer.advance() == [epoch(5, 5.0, asked=False)]
    assert trainer.advance() == [epoch(10, 10.0, asked=False), Ended("key", {"loss": 1.0})]
    assert trial._cached_frozen_trial.intermediate_values == {0: 0.0, 5: 5.0, 10: 10.0}


def test_stop_answers_the_question_and_the_objective_tidies_up() -> None:
    tidied = []

    def objective(trial: optuna.Trial) -> float:
        try:
            trial.report(1.0, 0)
            if trial.should_prune():
                trial.set_user_attr("pruned", True)
                raise optuna.TrialPruned
            raise AssertionError("it was to be pruned")
        finally:
            tidied.append(True)

    trainer, trial = make(objective)
    assert trainer.advance() == [epoch(0, 1.0)]
    trainer.stop("key")
    assert tidied == [True]
    assert trial.user_attrs == {"pruned": True}
    assert trainer.advance() == []


def test_stop_ends_an_objective_that_goes_on_after_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    steps = []

    def stubborn(trial: optuna.Trial) -> float:
        for step in range(5):
            steps.append(step)
            trial.report(step, step)
            try:
                trial.should_prune()
            except optuna.TrialPruned:
                steps.append(-1)
        raise OSError("tidying failed")

    trainer, _ = make(stubborn)
    trainer.advance()
    with caplog.at_level(logging.WARNING, "hpo"):
        trainer.stop("key")
    assert steps == [0, 1, -1, 2, -1, 3, -1, 4, -1]
    assert "the objective raised after it was told to end" in caplog.text
    assert trainer.advance() == []


def test_an_objective_that_never_ends_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    def endless(trial: optuna.Trial) -> float:
        step = 0
        while True:
            step += 1
            try:
                trial.report(step, step)
                trial.should_prune()
            except optuna.TrialPruned:
                pass

    trainer, _ = make(endless)
    trainer.advance()
    with caplog.at_level(logging.WARNING, "hpo"):
        trainer.stop("key")
    assert "it is given up" in caplog.text
    make_again, _ = make(lambda trial: 1.0)
    assert make_again.advance() == [Ended("key", {"loss": 1.0})]


def test_a_trial_that_was_dropped_before_it_began_does_not_run() -> None:
    ran = []
    trainer, _ = make(lambda trial: ran.append(1))
    trainer.stop("another key")
    trainer.stop("key")
    assert trainer.advance() == []
    assert ran == []


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "the objective returned None; expected a number"),
        ("high", "the objective returned a str; expected a number"),
        ({"loss": 1.0}, "the objective returned a dict; expected a number"),
    ],
)
def test_no_number_fails_the_trial(returned: Any, message: str) -> None:
    trainer, _ = make(lambda trial: returned)
    (event,) = trainer.advance()
    assert isinstance(event, Failed)
    assert isinstance(event.error, TypeError)
    assert str(event.error) == message


def test_several_values_are_the_trainers_mistake() -> None:
    trainer, _ = make(lambda trial: (1.0, 2.0))
    (event,) = trainer.advance()
    assert isinstance(event, Failed)
    assert isinstance(event.error, TrainerError)
    assert "returns 2 values" in str(event.error)
    assert value_of([0.5]) == 0.5
    with pytest.raises(MultiObjectiveError):
        value_of([])


def test_what_an_objective_raises_comes_after_its_last_report() -> None:
    error = ValueError("no such luck")

    def objective(trial: optuna.Trial) -> float:
        trial.report(3.0, 7)
        raise error

    trainer, _ = make(objective)
    assert trainer.advance() == [epoch(7, 3.0, asked=False), Failed("key", error)]


def test_an_interrupt_goes_through() -> None:
    def objective(trial: optuna.Trial) -> float:
        raise KeyboardInterrupt

    trainer, _ = make(objective)
    with pytest.raises(KeyboardInterrupt):
        trainer.advance()


def test_names_of_the_service_stay_its_own() -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("epochs", 3)
        trial.set_user_attr("notes", "mine")
        assert trial.user_attrs == {"epochs": 3, "notes": "mine"}
        return 0.0

    trainer, trial = make(objective, reserved={"epochs"})
    trainer.advance()
    assert trial.study._storage.get_trial(trial._trial_id).user_attrs == {"user:epochs": 3, "notes": "mine"}


def test_other_choices_under_the_same_name_are_refused_and_another_range_is_not() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    distributions: dict[str, Any] = {}

    def once(objective: Callable[[optuna.Trial], Any]) -> Any:
        trainer, _ = make(objective, study, distributions=distributions)
        (event,) = trainer.advance()
        return event

    assert isinstance(once(lambda trial: trial.suggest_float("x", 0, 1)), Ended)
    assert isinstance(once(lambda trial: trial.suggest_float("x", 5, 6)), Ended)
    kind = once(lambda trial: trial.suggest_int("x", 5, 6))
    assert isinstance(kind, Failed)
    assert "Cannot set different distribution kind" in str(kind.error)
    once(lambda trial: trial.suggest_categorical("c", [1, 2]))
    choices = once(lambda trial: trial.suggest_categorical("c", [1, 2, 3]))
    assert isinstance(choices, Failed)
    assert "does not support dynamic value space" in str(choices.error)


def test_values_that_are_fixed_are_suggested() -> None:
    sampled: list[dict[str, Any]] = []
    trainer, trial = make(
        lambda trial: trial.suggest_float("lr", 0, 1) + trial.suggest_int("n", 1, 9), sampled=sampled.append
    )
    trial.fix({"lr": 0.5})
    (event,) = trainer.advance()
    assert isinstance(event, Ended)
    assert trial.params["lr"] == 0.5
    assert sampled == [{"lr": 0.5}, trial.params]


def test_training_again_takes_the_given_values() -> None:
    def objective(trial: optuna.trial.BaseTrial) -> float:
        lr = trial.suggest_float("lr", 0, 1)
        act = trial.suggest_categorical("act", [None, "relu"])
        trial.report(lr, 0)
        assert act is None
        assert not trial.should_prune()
        return 2 * lr

    trainer = ObjectiveTrainer(objective)
    trainer.start(0, {"lr": 0.25}, Run(metric="loss"))
    assert trainer.advance() == [EpochEnd(0, 0, {"loss": 0.25}, False, may_prune=False)]
    assert trainer.advance() == [Ended(0, {"loss": 0.5})]
    trainer.start(1, {}, Run(metric="loss"))
    (event,) = trainer.advance()
    assert isinstance(event, Failed)
    assert "add 'lr' to [fixed]" in str(event.error)


class Callable_:
    def __call__(self, trial: optuna.Trial) -> float:
        return 1.0

    def method(self, trial: optuna.Trial) -> float:
        return 2.0


async def waits(trial: optuna.Trial) -> float:
    return 1.0


def yields(trial: optuna.Trial) -> Iterator[float]:
    yield 1.0


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (Callable_, "is a class"),
        (Callable_.method, "is a method of a class"),
        (waits, "is async"),
        (yields, "is a generator function"),
        (3, "is a int"),
        (lambda: 1.0, "takes no argument"),
        (lambda trial, data: 1.0, "takes 2 arguments"),
        (lambda trial, *, data: 1.0, "takes 2 arguments"),
    ],
)
def test_what_is_no_objective_is_refused_with_the_reason(function: Any, why: str) -> None:
    assert why in (refusal(function) or "")
    with pytest.raises(TrainerError, match=f"^here:f: {why}"):
        register_objective("here:f", function)


@pytest.mark.parametrize("function", [Callable_(), Callable_().method, lambda *args: 1.0, lambda trial, data=1: 1.0])
def test_functions_objects_and_their_methods_are_objectives(function: Any) -> None:
    assert refusal(function) is None
    entry = register_objective("here:f", function)
    assert (entry.config, entry.suggests, entry.max_slots) == (None, True, 1)
