"""TPE: what it counts under a pruner, what it is without one, and its cost in a long study."""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from hpo.search.optuna_internals import forget_cached_trials
from hpo.search.pruners import accept_experimental
from hpo.search.tpe import LARGEST_BETTER_GROUP, PrunedRule, StaticTPE, better_group_size

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(-1.0, 1.0)}
RULES: tuple[PrunedRule, ...] = ("worse", "optuna")


class Plain(TPESampler):
    """Optuna's sampler with the joint space of the study file, as ours has it."""

    def infer_relative_search_space(self, study, trial):
        return SPACE


def ours(rule: PrunedRule = "worse", seed: int = 3, **options) -> StaticTPE:
    options = {"max_observations": 100, "n_startup_trials": 10, "multivariate": True, **options}
    with accept_experimental():
        return StaticTPE(SPACE, seed=seed, pruned=rule, **options)


def theirs(seed: int = 3, **options) -> Plain:
    with accept_experimental():
        return Plain(seed=seed, multivariate=True, **options)


def add(study: Study, x: float, y: float, value: float | None, reports: dict[int, float] | None = None) -> None:
    """A complete trial, or a pruned one if ``value`` is None."""
    state = TrialState.PRUNED if value is None else TrialState.COMPLETE
    study.add_trial(
        create_trial(
            state=state,
            value=value,
            params={"x": x, "y": y},
            distributions=SPACE,
            intermediate_values=reports or {},
        )
    )


def study_of(num_trials: int, direction: str, states=(TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED)):
    random = np.random.default_rng(num_trials)
    study = optuna.create_study(direction=direction)
    for number in range(num_trials):
        x, y = random.uniform(0, 1), random.uniform(-1, 1)
        complete = states[number % len(states)] is TrialState.COMPLETE
        add(study, x, y, (x - 0.3) ** 2 + y**2 if complete else None, {1: x})
    return study


def draw(sampler: TPESampler, study: Study) -> dict[str, float]:
    """What the sampler draws next; nothing of it stays in the study but a failed trial, which no sampler reads."""
    study.sampler = sampler
    trial = study.ask()
    drawn = {name: trial.suggest_float(name, SPACE[name].low, SPACE[name].high) for name in SPACE}
    study.tell(trial, state=TrialState.FAIL)
    return drawn


def is_random(sampler: StaticTPE, study: Study) -> bool:
    """Whether the sampler draws without its model: the same in an empty study."""
    again = ours("worse", seed=3)
    return draw(sampler, study) == draw(again, optuna.create_study(direction=study.direction.name.lower()))


def better_group(sampler: StaticTPE, study: Study, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the trials in the sampler's better group at its next draw."""
    groups = []
    build = TPESampler._build_parzen_estimator

    def spy(self, study, search_space, trials, handle_below):
        groups.append([trial.number for trial in trials])
        return build(self, study, search_space, trials, handle_below)

    monkeypatch.setattr(TPESampler, "_build_parzen_estimator", spy)
    draw(sampler, study)
    monkeypatch.undo()
    below, above = groups
    assert set(below).isdisjoint(above)
    return below


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("rule", RULES)
def test_without_pruned_trials_it_is_optunas(direction: str, rule: PrunedRule) -> None:
    for num_trials in (0, 9, 10, 60, 100 + LARGEST_BETTER_GROUP):
        states = (TrialState.COMPLETE,)
        expected = draw(theirs(), study_of(num_trials, direction, states))
        assert draw(ours(rule), study_of(num_trials, direction, states)) == expected, num_trials


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_optunas_rule_stays(direction: str) -> None:
    for num_trials in (9, 10, 60, 100 + LARGEST_BETTER_GROUP):
        expected = draw(theirs(), study_of(num_trials, direction))
        assert draw(ours("optuna"), study_of(num_trials, direction)) == expected, num_trials


def test_the_start_up_counts_complete_trials() -> None:
    """Nine complete trials and fifty pruned ones are no reason to begin with a model; the tenth complete one is."""
    study = optuna.create_study()
    for number in range(59):
        add(study, 0.3, 0.0, 0.1 if number < 9 else None, {1: 0.5})
    assert is_random(ours("worse"), study)
    assert not is_random(ours("optuna"), study)
    study.tell(study.ask(SPACE), 0.2)
    assert not is_random(ours("worse"), study)


def test_the_better_group_is_a_tenth_of_the_complete_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """250 trials of which 41 complete: the good ones are 5 of the 41, where Optuna calls 25 of them good."""
    study = optuna.create_study()
    for number in range(250):
        add(study, number / 250, 0.0, number if number < 41 else None, {9: 1000.0 - number})
    assert better_group(ours("worse", max_observations=1000), study, monkeypatch) == [0, 1, 2, 3, 4]
    assert better_group(ours("optuna", max_observations=1000), study, monkeypatch) == list(range(25))
    # The same from a random part of the others, where the study is long.
    assert better_group(ours("worse", max_observations=100), study, monkeypatch) == [0, 1, 2, 3, 4]
    assert [better_group_size(count) for count in (0, 1, 10, 11, 41, 240, 1000)] == [0, 1, 1, 2, 5, 24, 25]


@pytest.mark.parametrize("late", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_trial_that_diverged_late_is_not_good(late: float, direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna ranks pruned trials by how far they came, whatever they reported there."""
    study = optuna.create_study(direction=direction)
    add(study, 0.1, 0.0, 0.1)
    add(study, 0.2, 0.0, 0.2)
    add(study, 0.9, 0.0, None, {1: 0.5, 20: late})
    for number in range(40):
        add(study, 0.5 + number / 100, 0.0, None, {9: 0.5})
    best = 0 if direction == "minimize" else 1
    assert better_group(ours("worse", n_startup_trials=2), study, monkeypatch) == [best]
    assert set(better_group(ours("optuna"), study, monkeypatch)) > {0, 1, 2}


@pytest.mark.parametrize("value", [math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_an_infinite_value_is_not_good(value: float, direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished trial that a person added may have one."""
    study = optuna.create_study(direction=direction)
    for number in range(10):
        add(study, number / 20, 0.0, number / 10)
    for _ in range(20):
        add(study, 0.9, 0.0, value)
    assert better_group(ours("worse"), study, monkeypatch) == [0 if direction == "minimize" else 9]


def test_pruned_trials_keep_draws_away() -> None:
    """They are in the worse group: fewer draws come from where everything was pruned."""
    generator = np.random.default_rng(0)
    study = optuna.create_study()
    for _ in range(20):
        add(study, float(generator.uniform()), float(generator.uniform(-1, 1)), float(generator.uniform()))

    def share() -> float:
        return float(np.mean([draw(ours(seed=seed), study)["x"] > 0.5 for seed in range(60)]))

    before = share()
    for _ in range(80):
        add(study, float(generator.uniform(0.5, 1.0)), float(generator.uniform(-1, 1)), None, {1: 0.9})
    assert share() < before - 0.2


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_long_study_is_thinned_to_its_best_and_a_part_of_the_others(direction: str, rule: PrunedRule) -> None:
    study = study_of(600, direction)
    running = study.ask(SPACE)
    sampler = ours(rule)
    seen = sampler._visible(study)._get_trials(deepcopy=False)
    assert 100 < len(seen) <= 100 + LARGEST_BETTER_GROUP + 1
    assert len({trial.number for trial in seen}) == len(seen)
    values = sorted((t.value for t in study.trials if t.value is not None), reverse=direction == "maximize")
    assert set(values[:LARGEST_BETTER_GROUP]) <= {trial.value for trial in seen}
    assert running.number in {trial.number for trial in seen}
    # Near the optimum, as TPE on everything would be.
    chosen = draw(sampler, study)
    if direction == "minimize":
        assert math.hypot(chosen["x"] - 0.3, chosen["y"]) < 0.35


@pytest.mark.parametrize("rule", RULES)
def test_each_draw_derives_from_its_seed(rule: PrunedRule) -> None:
    study = study_of(600, "minimize")
    forget_cached_trials(study)
    draws = [draw(ours(rule, seed), study_of(600, "minimize")) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
