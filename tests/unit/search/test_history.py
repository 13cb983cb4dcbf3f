"""A study's history answers as a look at all its trials would; the pruner built on it decides as Optuna's."""

import math
from dataclasses import dataclass

import hypothesis.strategies as st
import optuna
from hypothesis import given, settings
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from hpo.database import attributes
from hpo.search.history import History
from hpo.search.pruners import AshaPruner

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


@dataclass(frozen=True)
class ByScore:
    def __call__(self, trial: FrozenTrial) -> float | None:
        return trial.system_attrs["score"] if trial.state is TrialState.COMPLETE else None


score_of = ByScore()


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
            history.ranking(ByScore())
        lineage = lineages.setdefault(number, lineage)  # a trial never changes its lineage
        known[number] = trial = trial_of(number, state, score, lineage)
        history.put(trial)
    latest = {lineages[number]: number for number in sorted(known)}
    seen = [known[n] for n in sorted(known) if lineages[n] is None or latest[lineages[n]] == n]
    assert history.in_order() == seen
    assert history.finished == [trial for trial in seen if trial.state.is_finished()]
    ranking = history.ranking(ByScore())
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


def test_an_infeasible_attempt_is_not_hidden_by_the_next_one() -> None:
    """Its successor has another configuration; a failed attempt's successor has the same."""
    refused = trial_of(0, TrialState.PRUNED, 0.0, lineage=0)
    refused.user_attrs[attributes.INFEASIBLE] = {"lineage": 0, "draw": 0}
    failed = trial_of(1, TrialState.FAIL, 0.0, lineage=0)
    last = trial_of(2, TrialState.COMPLETE, 0.5, lineage=0)
    for order in ((refused, failed, last), (last, failed, refused), (failed, refused, last)):
        history = History()
        for trial in order:
            history.put(trial)
        assert history.finished == [refused, last], [trial.number for trial in order]


def test_a_ranking_removes_by_id_among_equals() -> None:
    trials = [trial_of(number, TrialState.COMPLETE, 1.0) for number in range(4)]
    history = History()
    for trial in trials:
        history.put(trial)
    ranking = history.ranking(ByScore())
    # A copy of a trial, as another reader of the same row has it.
    history.put(trial_of(2, TrialState.FAIL, 1.0))
    assert [trial.number for trial in ranking.first(9)] == [0, 1, 3]
