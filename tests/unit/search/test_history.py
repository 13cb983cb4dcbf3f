"""A study's history answers as a look at all its trials would; the pruner and sampler built on it as Optuna's do."""

import math

import hypothesis.strategies as st
import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from optuna.distributions import FloatDistribution
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from hpo.database import attributes
from hpo.search.history import History
from hpo.search.pruners import AshaPruner, accept_experimental
from hpo.search.samplers import MOST_BELOW, StaticTPESampler

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(-1.0, 1.0)}
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def trial_of(number: int, state: TrialState, score: float, lineage: int | None = None) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=state,
        value=score if state is TrialState.COMPLETE else None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={} if lineage is None else {attributes.LINEAGE: lineage},
        system_attrs={"score": score},
        intermediate_values={},
        trial_id=1000 + number,
    )


def score_of(trial: FrozenTrial) -> float | None:
    return trial.system_attrs["score"] if trial.state is TrialState.COMPLETE else None


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 11),
        st.sampled_from([TrialState.RUNNING, TrialState.WAITING, *FINISHED]),
        st.integers(0, 4).map(float),
        st.sampled_from([None, 0, 1, 2]),
    ),
    max_size=40,
)


@given(CHANGES, st.integers(0, 40))
def test_as_a_look_at_all_trials(changes: list[tuple[int, TrialState, float, int | None]], asked_at: int) -> None:
    history = History()
    lineages: dict[int, int | None] = {}
    known: dict[int, FrozenTrial] = {}
    for index, (number, state, score, lineage) in enumerate(changes):
        if index == asked_at:
            history.ranking("score", score_of)
        lineage = lineages.setdefault(number, lineage)  # a trial never changes its lineage
        known[number] = trial = trial_of(number, state, score, lineage)
        history.put(trial)
    latest = {lineages[number]: number for number in sorted(known)}
    seen = [known[n] for n in sorted(known) if lineages[n] is None or latest[lineages[n]] == n]
    assert history.in_order() == seen
    assert history.finished == [trial for trial in seen if trial.state.is_finished()]
    ranking = history.ranking("score", score_of)
    scores = sorted(score for trial in seen if (score := score_of(trial)) is not None)
    assert len(ranking) == len(scores)
    assert [score_of(trial) for trial in ranking.first(100)] == scores
    assert [ranking.num_below(key) for key in (0.0, 2.5, 9.0)] == [
        sum(score < key for score in scores) for key in (0.0, 2.5, 9.0)
    ]


CURVES = st.lists(
    st.lists(st.one_of(st.integers(0, 6).map(float), st.just(math.nan)), min_size=1, max_size=10),
    min_size=1,
    max_size=25,
)


@given(
    CURVES,
    st.sampled_from(["minimize", "maximize"]),
    st.integers(1, 3),
    st.integers(2, 4),
    st.integers(0, 1),
    st.integers(0, 3),
    st.booleans(),
)
@settings(deadline=None)
def test_asha_decides_as_optunas(
    curves: list[list[float]],
    direction: str,
    min_epochs: int,
    reduction_factor: int,
    rate: int,
    bootstrap_count: int,
    in_turn: bool,
) -> None:
    pruners = (
        AshaPruner(min_epochs, reduction_factor, rate, bootstrap_count),
        SuccessiveHalvingPruner(min_epochs, reduction_factor, rate, bootstrap_count),
    )
    decided = []
    for pruner in pruners:
        study = optuna.create_study(direction=direction, pruner=pruner)
        decisions: list[tuple[int, int, bool]] = []

        def run(curve: list[float], study: optuna.Study = study, decisions: list = decisions) -> None:
            trial = study.ask()
            for epoch, value in enumerate(curve, 1):
                trial.report(value, epoch)
                decisions.append((trial.number, epoch, trial.should_prune()))
                if decisions[-1][2]:
                    study.tell(trial, state=TrialState.PRUNED)
                    return
            study.tell(trial, 0.0)

        def side_by_side(study: optuna.Study = study, decisions: list = decisions) -> None:
            trials = [study.ask() for _ in curves]
            for epoch in range(1, 11):
                for trial, curve in zip(trials, curves, strict=True):
                    if epoch <= len(curve):
                        trial.report(curve[epoch - 1], epoch)
                        decisions.append((trial.number, epoch, trial.should_prune()))

        if in_turn:
            for curve in curves:
                run(curve)
        else:
            side_by_side()
        marks = [trial.system_attrs for trial in study.get_trials()]
        decided.append((decisions, repr(marks)))
    assert decided[0] == decided[1]


def study_of(num_trials: int, direction: str) -> optuna.Study:
    random = np.random.default_rng(num_trials)
    study = optuna.create_study(direction=direction)
    for number in range(num_trials):
        x, y = random.uniform(0, 1), random.uniform(-1, 1)
        state = (TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED)[number % 3]
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=(x - 0.3) ** 2 + y**2 if state is TrialState.COMPLETE else None,
                params={"x": x, "y": y},
                distributions=SPACE,
                intermediate_values={1: x},
            )
        )
    return study


def draw(sampler: TPESampler, study: optuna.Study) -> dict[str, float]:
    study.sampler = sampler
    trial = study.ask()
    return {name: trial.suggest_float(name, SPACE[name].low, SPACE[name].high) for name in SPACE}


class Plain(TPESampler):
    """Optuna's, told the space, as ours is."""

    def infer_relative_search_space(self, study, trial):
        return SPACE


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_tpe_is_optunas_while_there_are_few_trials(direction: str) -> None:
    with accept_experimental():
        ours = StaticTPESampler(SPACE, seed=3, max_observations=100, multivariate=True)
        theirs = Plain(seed=3, multivariate=True)
    num_trials = 100 + MOST_BELOW
    assert draw(ours, study_of(num_trials, direction)) == draw(theirs, study_of(num_trials, direction))


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_tpe_keeps_the_best_and_what_runs_of_many_trials(direction: str) -> None:
    study = study_of(600, direction)
    running = study.ask(SPACE)
    with accept_experimental():
        sampler = StaticTPESampler(SPACE, seed=3, max_observations=100, multivariate=True)
    seen = sampler._thinned(study)._get_trials(deepcopy=False)
    assert 100 < len(seen) <= 100 + MOST_BELOW + 1
    assert len({trial.number for trial in seen}) == len(seen)
    values = sorted((t.value for t in study.trials if t.value is not None), reverse=direction == "maximize")
    assert set(values[:MOST_BELOW]) <= {trial.value for trial in seen}
    assert running.number in {trial.number for trial in seen}
    # Near the optimum, as TPE on everything would be.
    chosen = draw(sampler, study)
    if direction == "minimize":
        assert math.hypot(chosen["x"] - 0.3, chosen["y"]) < 0.35


def test_each_draw_of_tpe_derives_from_its_seed() -> None:
    def drawn(seed: int) -> dict[str, float]:
        with accept_experimental():
            return draw(
                StaticTPESampler(SPACE, seed=seed, max_observations=100, multivariate=True), study_of(600, "minimize")
            )

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
