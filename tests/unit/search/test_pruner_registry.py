"""Each pruner on a hand-made study, with steps that count finished epochs from 1."""

import math

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hpo.search.pruner_registry import PRUNERS, HyperbandOptions, build_pruner, decision_epochs, num_brackets
from tests.unit.study_files import read


def study_of(pruner, histories=(), epochs=9, direction="minimize", states=None):
    """A study with one trial for each history of values, epoch by epoch from 1."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study_file = read(pruner=pruner, fixed={"epochs": epochs}, direction=direction)
    study = optuna.create_study(
        study_name="pruned", direction=direction, pruner=build_pruner(study_file.pruner, study_file.search_context())
    )
    for index, history in enumerate(histories):
        state = TrialState.COMPLETE if states is None else states[index]
        value = history[-1] if state == TrialState.COMPLETE else None
        study.add_trial(create_trial(state=state, value=value, intermediate_values=dict(enumerate(history, start=1))))
    return study


def pruned_at(study, history):
    """The epoch at which a new trial with these values is pruned, asked after each epoch; None if never."""
    trial = study.ask()
    for epoch, value in enumerate(history, start=1):
        trial.report(value, epoch)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    study.tell(trial, history[-1])
    return None


def decides(pruner, epochs):
    study_file = read(pruner=pruner, fixed={"epochs": epochs})
    return decision_epochs(study_file.pruner, study_file.max_epochs())


GOOD, BAD = [0.5, 0.4, 0.3, 0.2, 0.1], [0.9, 0.9, 0.9, 0.9, 0.9]


def test_none_prunes_nothing():
    assert pruned_at(study_of("none", [GOOD] * 9), BAD) is None
    assert decides("none", 9) == set()


def test_median():
    table = {"name": "median", "n_startup_trials": 3}
    assert pruned_at(study_of(table, [GOOD] * 2), BAD) is None
    assert pruned_at(study_of(table, [GOOD] * 3), BAD) == 1
    assert pruned_at(study_of(table, [GOOD] * 3), GOOD) is None
    assert pruned_at(study_of(table, [GOOD] * 3), [0.5, 0.4, 0.9, 0.9]) == 3  # 0.4, its best so far, is above 0.3
    assert pruned_at(study_of({**table, "min_epochs": 3}, [GOOD] * 3), BAD) == 3
    assert (
        pruned_at(study_of({**table, "min_epochs": 2, "interval_epochs": 2}, [GOOD] * 3), [0.1, 0.1, 0.9, 0.9]) is None
    )
    assert pruned_at(study_of(table, [[-v for v in GOOD]] * 3, direction="maximize"), [-v for v in BAD]) == 1
    assert decides(table, 9) is None
    assert decides({**table, "min_epochs": 2, "interval_epochs": 3}, 9) == {2, 5, 8}


@pytest.mark.parametrize("interval", [1, 2, 3])
@pytest.mark.parametrize("start", [1, 2, 4])
def test_median_decides_at_no_other_epoch(start, interval):
    table = {"name": "median", "n_startup_trials": 1, "min_epochs": start, "interval_epochs": interval}
    found = set()
    for first_bad in range(1, 10):
        history = [0.1] * (first_bad - 1) + [0.5] * (10 - first_bad)
        rival = [1.0] * (first_bad - 1) + [0.05] * (10 - first_bad)
        epoch = pruned_at(study_of(table, [rival]), history)
        found |= {epoch} - {None}
    expected = decides(table, 9)
    assert found == (set(range(1, 10)) if expected is None else expected)


def test_percentile():
    histories = [[value] for value in (0.1, 0.2, 0.3, 0.4, 0.5)]
    for percentile, kept in ((25.0, 0.2), (50.0, 0.3), (100.0, 0.5)):
        table = {"name": "percentile", "percentile": percentile}
        assert pruned_at(study_of(table, histories), [kept, kept]) is None
        assert pruned_at(study_of(table, histories), [kept + 0.01, kept]) == 1
    assert decides({"name": "percentile", "min_epochs": 4}, 6) == {4, 5, 6}


def test_asha():
    study = study_of({"name": "asha", "min_epochs": 1, "reduction_factor": 3})
    # The first three compete for one place each time; rungs at epochs 1, 3 and 9.
    assert pruned_at(study, [0.5, 0.5, 0.5, 0.5]) is None
    assert pruned_at(study, [0.6, 0.1]) == 1
    assert pruned_at(study, [0.4, 0.4, 0.6]) == 3
    assert pruned_at(study, [0.3, 0.3, 0.3, 0.9]) is None
    assert decides("asha", 9) == {1, 3, 9}
    assert decides({"name": "asha", "min_epochs": 2, "reduction_factor": 4, "min_early_stopping_rate": 1}, 40) == {
        8,
        32,
    }
    assert max(decision_epochs(read(pruner="asha").pruner, None)) == 3**25


def test_asha_starts_at_min_epochs_and_at_a_later_rung():
    for table, rung in (
        ({"name": "asha", "min_epochs": 2}, 2),
        ({"name": "asha", "min_epochs": 2, "min_early_stopping_rate": 1}, 6),
    ):
        study = study_of(table)
        assert pruned_at(study, [0.1] * 8) is None
        assert pruned_at(study, [0.9] * 8) == rung


def test_asha_bootstraps():
    study = study_of({"name": "asha", "bootstrap_count": 2})
    assert [pruned_at(study, [value] * 2) for value in (0.1, 0.1, 0.1)] == [1, 1, None]


def test_hyperband():
    table = {"name": "hyperband", "min_epochs": 1, "reduction_factor": 3}
    assert decides(table, 9) == {1, 3, 9}
    study = study_of(table, epochs=9)
    ends = [pruned_at(study, [1 - index / 100] * 8) for index in range(40)]
    assert ends == [None] * 40  # each is better than all before
    ends = [pruned_at(study, [2.0] * 8) for _ in range(60)]
    # Brackets begin at epochs 1, 3 and 9, and hold 9, 5 and 3 of 17 trials.
    assert {end: ends.count(end) for end in (1, 3, None)} == {1: 29, 3: 17, None: 14}


def test_number_of_brackets_is_exact():
    assert math.floor(math.log(243, 3)) == 4  # what a logarithm of floats makes of 5
    assert num_brackets(HyperbandOptions(), 243) == 6
    assert [num_brackets(HyperbandOptions(), most) for most in (1, 2, 3, 8, 9, 26, 27)] == [1, 1, 2, 2, 3, 3, 4]
    assert num_brackets(HyperbandOptions(min_epochs=2, reduction_factor=2), 16) == 4
    study_file = read(pruner="hyperband", fixed={"epochs": 243})
    assert build_pruner(study_file.pruner, study_file.search_context())._n_brackets == 6


def test_threshold():
    table = {"name": "threshold", "lower": 0.2, "upper": 0.8, "min_epochs": 2}
    assert pruned_at(study_of(table), [0.9, 0.5, 0.8, 0.2]) is None
    assert pruned_at(study_of(table), [0.9, 0.9]) == 2
    assert pruned_at(study_of(table), [0.5, 0.5, 0.1]) == 3
    assert decides(table, 5) == {2, 3, 4, 5}


def test_patient():
    table = {"name": "patient", "patience": 1, "min_delta": 0.1}
    # Two epochs in a row that are worse than the best before them by more than 0.1.
    assert pruned_at(study_of(table), [0.5, 0.61, 0.61]) == 3
    assert pruned_at(study_of(table), [0.5, 0.59, 0.59, 0.59]) is None
    assert pruned_at(study_of(table), [0.5, 0.7, 0.4, 0.7, 0.4]) is None
    assert pruned_at(study_of({"name": "patient", "patience": 0}), [0.5, 0.51]) == 2
    up = study_of(table, direction="maximize")
    assert pruned_at(up, [0.5, 0.39, 0.39]) == 3
    assert decides(table, 5) == {3, 4, 5}


def test_patient_asks_the_pruner_that_it_wraps():
    table = {"name": "patient", "patience": 1, "wrapped": {"name": "median", "n_startup_trials": 1}}
    assert pruned_at(study_of(table, [GOOD]), [0.1, 0.2, 0.2]) is None  # worse than before, better than the median
    assert pruned_at(study_of(table, [GOOD]), [0.6, 0.5, 0.5]) is None  # worse than the median, no worse than before
    assert pruned_at(study_of(table, [GOOD]), [0.6, 0.7, 0.7]) == 3
    nothing = {"name": "patient", "patience": 1, "wrapped": "none"}
    assert pruned_at(study_of(nothing), [0.6, 0.7, 0.7]) == 3


def test_only_a_pruner_that_compares_a_trial_with_itself_stops_early():
    alone = {"name": "patient", "patience": 1}
    assert read(pruner=alone).pruner.stops_early
    assert read(pruner={**alone, "wrapped": "none"}).pruner.stops_early
    assert not read(pruner={**alone, "wrapped": "median"}).pruner.stops_early
    assert not any(read(pruner=name).pruner.stops_early for name in ("none", "median", "asha", "hyperband", "wilcoxon"))


def test_wilcoxon():
    best = [0.1] * 9
    worse = [0.2, 0.3, 0.25, 0.4, 0.35, 0.3, 0.2, 0.3, 0.4]
    assert pruned_at(study_of("wilcoxon", [best]), worse) == 4  # one-sided p at 4 equal signs: 1/16 < 0.1
    assert pruned_at(study_of({"name": "wilcoxon", "p_threshold": 0.01}, [best]), worse) == 7  # 1/128
    assert pruned_at(study_of({"name": "wilcoxon", "n_startup_epochs": 6}, [best]), worse) == 6
    assert pruned_at(study_of("wilcoxon"), worse) is None
    assert decides("wilcoxon", 5) == {2, 3, 4, 5}


def test_first_epoch_top_k():
    study = study_of({"name": "first_epoch_top_k", "k": 2})
    firsts = [0.5, 0.6, 0.7, 0.4, 0.45, 0.42, 0.42]
    # The first two go on; then who is among the best two so far: 0.4 and 0.42 are; an equal later one is not.
    assert [pruned_at(study, [first, 9.0, 9.0]) for first in firsts] == [None, None, 1, None, None, None, 1]
    assert pruned_at(study, [math.nan, 1.0]) == 1
    assert decides("first_epoch_top_k", 9) == {1}
    assert decides({"name": "first_epoch_top_k", "k": 1, "min_epochs": 2}, 9) == {2}


def test_first_epoch_top_k_compares_with_running_and_pruned_trials_but_not_with_failed_attempts():
    table = {"name": "first_epoch_top_k", "k": 1}
    for state, expected in (
        (TrialState.RUNNING, 1),
        (TrialState.PRUNED, 1),
        (TrialState.COMPLETE, 1),
        (TrialState.FAIL, None),
    ):
        assert pruned_at(study_of(table, [[0.1]], states=[state]), [0.2, 0.2]) == expected


def test_first_epoch_top_k_keeps_the_papers_k_and_some_more():
    """Egele et al. keep exactly k; here the k best are among those kept, in any order of arrival."""
    firsts = [(index * 37 % 101) / 101 for index in range(100)]
    study = study_of({"name": "first_epoch_top_k", "k": 3})
    kept = [first for first in firsts if pruned_at(study, [first, first]) is None]
    assert sorted(firsts)[:3] == sorted(kept)[:3]
    assert 3 <= len(kept) <= 20


def test_top_k_of_the_largest():
    study = study_of({"name": "first_epoch_top_k", "k": 1}, direction="maximize")
    assert [pruned_at(study, [first, 0.0]) for first in (0.5, 0.4, 0.6)] == [None, 1, None]


@pytest.mark.parametrize("name", sorted(set(PRUNERS) - {"none", "hyperband"}))
def test_a_pruner_prunes_at_epochs_that_it_declares(name):
    """Over many random trials, with every epoch asked about."""
    import random

    options = {"patient": {"patience": 1}, "threshold": {"upper": 0.9}, "asha": {"min_epochs": 2}}.get(name, {})
    generator = random.Random(0)
    study = study_of({"name": name, **options}, epochs=9)
    ends = [pruned_at(study, [generator.random() for _ in range(9)]) for _ in range(60)]
    pruned = {end for end in ends if end is not None}
    assert pruned
    declared = decides({"name": name, **options}, 9)
    assert declared is None or pruned <= declared
