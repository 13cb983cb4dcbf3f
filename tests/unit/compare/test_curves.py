"""Curves, costs and whole comparisons of hand-made studies."""

import math
from dataclasses import replace

import numpy as np
import optuna
import pytest

from hpo.compare import curves, spending
from hpo.compare.comparison import compare_studies
from hpo.compare.importance import importance
from hpo.compare.records import StudyRecord, TrialRecord
from hpo.errors import ExperimentError


def study(sampler, repeat, values, *, direction="maximize", epochs=2, seconds=1.0, budget=None, **rest):
    """A study of complete trials, one after the other; a value of None is a pruned trial of one epoch."""
    trials = tuple(
        TrialRecord(
            number=number,
            lineage=number,
            state="pruned" if value is None else "complete",
            value=0.99 if value is None else value,
            config={"lr": f"{sampler}-{repeat}-{number}"},
            epochs=1 if value is None else epochs,
            seconds=seconds,
            end=float(number),
        )
        for number, value in enumerate(values)
    )
    budget = {"trials": len(values)} if budget is None else budget
    name = f"e/{sampler}/{repeat}"
    return StudyRecord("e", sampler, repeat, direction, trials, budget, "val_accuracy", name=name, **rest)


def test_steps_count_what_was_spent_and_only_complete_values():
    path = curves.steps(study("tpe", 0, [0.5, None, 0.7, 0.6]))
    assert path.best.tolist() == [0.5, 0.5, 0.7, 0.7]  # the pruned trial's 0.99 does not count
    assert path.spent["trials"].tolist() == [1, 2, 3, 4]
    assert path.spent["epochs"].tolist() == [2, 3, 5, 7]


def test_a_retried_trial_counts_once_and_costs_twice():
    trials = (
        TrialRecord(0, lineage=0, attempt=0, state="failed", epochs=3, seconds=5.0, end=1.0),
        TrialRecord(1, lineage=1, state="complete", value=0.4, epochs=4, seconds=4.0, end=2.0),
        TrialRecord(
            2, lineage=0, attempt=1, state="complete", value=0.6, epochs=4, start_epoch=3, seconds=1.0, end=3.0
        ),
    )
    record = StudyRecord("e", "tpe", 0, "maximize", trials, {"trials": 2})
    path = curves.steps(record)
    assert path.spent["trials"].tolist() == [0, 1, 2]
    assert path.spent["epochs"].tolist() == [3, 7, 8]
    assert path.spent["seconds"].tolist() == [5, 9, 10]
    assert path.best.tolist() == [-math.inf, 0.4, 0.6]
    cost = spending.cost([record])
    assert (cost.trials, cost.retried, cost.failed, cost.epochs, cost.seconds) == (2, 1, 0, 8, 10.0)


def test_order_is_that_of_time_not_of_numbers():
    trials = (
        TrialRecord(0, 0, "complete", 0.9, end=5.0, epochs=1),
        TrialRecord(1, 1, "complete", 0.3, end=2.0, epochs=1),
    )
    assert curves.steps(StudyRecord("e", "tpe", 0, "maximize", trials)).best.tolist() == [0.3, 0.9]


def test_an_early_end_is_carried_forward():
    short, long = curves.steps(study("a", 0, [0.2, 0.5])), curves.steps(study("b", 0, [0.1, 0.2, 0.3, 0.4]))
    points = curves.grid(4, whole=True)
    assert curves.on_grid([short, long], "trials", points, True).tolist() == [
        [0.2, 0.5, 0.5, 0.5],
        [0.1, 0.2, 0.3, 0.4],
    ]
    assert curves.curve([short], "trials", points, True, 0.95).ended_at == 2


def test_minimized_values():
    path = curves.steps(study("a", 0, [0.5, 0.2, 0.4], direction="minimize"))
    assert path.best.tolist() == [0.5, 0.2, 0.2]
    assert curves.on_grid([path], "epochs", np.array([1.0, 2.0, 6.0]), False).tolist() == [[math.inf, 0.5, 0.2]]


def test_share_of_the_budget_that_another_sampler_needs():
    baseline = [curves.steps(study("random", r, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])) for r in range(3)]
    quick = [curves.steps(study("tpe", r, [0.1, 0.85, 0.9])) for r in range(3)]
    estimate = curves.share_of_budget(baseline, quick, "trials", True, 0.95)
    assert estimate.value == 0.25  # the 2nd of 8 trials
    assert (estimate.interval.low, estimate.interval.high) == (0.25, 0.25)
    slow = [curves.steps(study("grid", r, [0.1] * 8)) for r in range(3)]
    assert curves.share_of_budget(baseline, slow, "trials", True, 0.95).value == math.inf
    longer = [curves.steps(study("twice", r, [0.1] * 11 + [0.9] * 5)) for r in range(3)]
    assert curves.share_of_budget(baseline, longer, "trials", True, 0.95).value == 1.5


def test_cost_to_a_target_counts_the_repeats_that_never_reached_it():
    paths = [curves.steps(study("tpe", r, values)) for r, values in enumerate([[0.1, 0.9, 0.9], [0.1, 0.2, 0.3]])]
    cost = curves.cost_to_target(paths, 0.8, True, 0.95)
    assert (cost.reached, cost.repeats) == (1, 2)
    assert cost.expected["trials"].value == 5  # (2 + 3) / 1
    assert cost.expected["epochs"].value == 10
    assert cost.expected["trials"].interval.high == math.inf
    assert curves.cost_to_target(paths, 0.99, True, 0.95).expected["trials"].value == math.inf


def test_duplicates_and_pruned_share():
    record = study("tpe", 0, [0.1, None, 0.3])
    again = TrialRecord(3, 3, "complete", 0.5, config={"lr": "tpe-0-0"}, epochs=2)
    cost = spending.cost([StudyRecord("e", "tpe", 0, "maximize", (*record.trials, again))])
    assert (cost.duplicates, cost.complete, cost.pruned, cost.pruned_share) == (1, 3, 1, 0.25)


def test_audit_counts_those_that_would_have_been_among_the_best():
    values = [i / 100 for i in range(38)]
    trials = [TrialRecord(i, i, "complete", value) for i, value in enumerate(values)]
    trials += [
        TrialRecord(38, 38, "complete", 0.99, audited=1),  # the best of 41; the best 3 are the top 5 %
        TrialRecord(39, 39, "complete", 0.001, audited=1),
        TrialRecord(40, 40, "pruned", 0.1),
    ]
    assert spending.audit([StudyRecord("e", "tpe", 0, "maximize", tuple(trials))]) == spending.Audit(2, 3, 1)
    assert spending.audit([StudyRecord("e", "tpe", 0, "maximize", tuple(trials[:38]))]) is None


def test_noise_is_pooled_over_configurations():
    # Deviations 1, -1 and 2, 0, -2: squares 2 + 8 over 1 + 2 degrees of freedom.
    noise = spending.pooled_spread([[1.0, 3.0], [5.0, 7.0, 9.0], [4.0]], "test")
    assert noise.spread == pytest.approx(math.sqrt(10 / 3))
    assert (noise.freedom, noise.configurations) == (3, 2)
    assert spending.pooled_spread([[1.0]], "test") is None


def test_noise_within_an_experiment_comes_from_grid_cells_with_other_seeds():
    def cell(repeat, number, value):
        return TrialRecord(number, number, "complete", value, config={"width": number}, seed=10 * repeat + number)

    grid = [
        StudyRecord("e", "grid", 0, "maximize", (cell(0, 0, 0.90), cell(0, 1, 0.1))),
        StudyRecord("e", "grid", 1, "maximize", (cell(1, 0, 0.92), cell(1, 1, 0.7))),
    ]
    outcomes = [outcome for study in grid for outcome in study.outcomes()]
    assert spending.noise_within(outcomes, maximize=True).spread == pytest.approx(
        0.02 / math.sqrt(2)
    )  # the better cell alone


def repeats(sampler, bests, **options):
    return [study(sampler, r, [0.1, best], **options) for r, best in enumerate(bests)]


def test_a_clear_winner():
    random = [0.70, 0.71, 0.72, 0.70, 0.73, 0.71, 0.70, 0.72, 0.71, 0.70]
    gains = [0.05, 0.06, 0.04, 0.05, 0.07, 0.06, 0.05, 0.04, 0.06, 0.05]
    tpe = [a + b for a, b in zip(random, gains, strict=True)]
    comparison = compare_studies(repeats("random", random) + repeats("tpe", tpe))
    pair = comparison.pairs[0]
    assert (pair.first, pair.second, pair.verdict, pair.n) == ("random", "tpe", "worse", 10)
    assert pair.difference == pytest.approx(-0.053)
    assert pair.p_value == pytest.approx(2 / 184_756)
    assert pair.interval.high < 0
    assert pair.probability.value == 0.0
    assert pair.smallest < 0.03
    assert comparison.samplers["tpe"].summary.mean == pytest.approx(0.763)
    assert comparison.samplers["tpe"].speed_up["trials"].value == 1.0
    assert comparison.finished
    assert not comparison.notes


def test_the_same_winner_when_minimizing():
    worse = repeats("random", [0.05 + 0.001 * i for i in range(8)], direction="minimize")
    better = repeats("tpe", [0.01 + 0.0012 * i for i in range(8)], direction="minimize")
    assert compare_studies(worse + better).pairs[0].verdict == "worse"
    assert compare_studies(better + worse).pairs[0].verdict == "better"


def test_few_repeats_say_what_they_lack():
    comparison = compare_studies(repeats("random", [0.5, 0.6, 0.5]) + repeats("tpe", [0.9, 0.8, 0.9]))
    pair = comparison.pairs[0]
    assert pair.verdict == "not decided"
    assert pair.smallest is None
    assert "not decided by the test: 4 repeats needed, 3 made" in pair.sentence
    assert "is ahead of" in pair.sentence


def test_one_repeat_has_curves_without_intervals_and_says_why_there_is_no_verdict():
    comparison = compare_studies(repeats("random", [0.5]) + repeats("tpe", [0.9]))
    curve = comparison.samplers["tpe"].curves["trials"]
    assert curve.median.tolist() == [0.1, 0.9]
    assert curve.median_low is None
    assert comparison.pairs[0].interval is None
    assert "4 repeats needed, 1 made; so far" in comparison.pairs[0].sentence
    assert any("One repeat only" in note for note in comparison.notes)


def test_inside_the_noise_floor():
    random = [0.7001, 0.7002, 0.7001, 0.7, 0.7004, 0.7001, 0.7, 0.7002, 0.7001, 0.7]
    tpe = [value + 0.001 for value in random]
    # The best of tpe is trial 1 of its repeat 4.
    again = {"trial": 1, "seeds": [1, 2], "validation": [0.70, 0.74], "test": None}
    studies = repeats("random", random) + repeats("tpe", tpe)
    studies[14] = replace(studies[14], retrained=again)
    comparison = compare_studies(studies)
    pair = comparison.pairs[0]
    assert comparison.noise.spread == pytest.approx(0.04 / math.sqrt(2))
    assert pair.verdict == "worse"
    assert pair.resolvable is False
    assert "not resolvable" in pair.sentence
    assert comparison.samplers["tpe"].retrained.reported == pytest.approx(0.7014)
    assert comparison.samplers["tpe"].retrained.validation.mean == pytest.approx(0.72)
    assert comparison.samplers["random"].retrained is None
    studies[14] = replace(studies[14], retrained={**again, "trial": 0})  # another trial is the best by now
    assert compare_studies(studies).samplers["tpe"].retrained is None


def test_no_finished_trial_yet():
    empty = [
        StudyRecord("e", name, 0, "maximize", (), {"trials": 5}, name=f"e/{name}/0", finished=False)
        for name in ("tpe", "random")
    ]
    comparison = compare_studies(empty)
    assert comparison.notes[0].startswith("No trial has finished yet")
    assert comparison.pairs[0].difference is None
    assert comparison.samplers["tpe"].best is None
    assert not comparison.finished


def test_different_questions_are_refused():
    one, other = (
        study("tpe", 0, [0.5], study_file={"space": {"lr": 1}}),
        study("random", 0, [0.5], study_file={"space": {}}),
    )
    with pytest.raises(ExperimentError, match="differ in their search space"):
        compare_studies([one, other])
    with pytest.raises(ExperimentError, match="differ in their direction: maximize and minimize"):
        compare_studies([study("tpe", 0, [0.5]), study("random", 0, [0.5], direction="minimize")])


def test_target_of_the_study_file():
    comparison = compare_studies([study("tpe", r, [0.1, 0.9], study_file={"target": 0.8}) for r in range(2)])
    assert comparison.samplers["tpe"].target.expected["trials"].value == 2


def test_importance_finds_the_parameter_that_matters():
    rng = np.random.default_rng(0)
    uniform = optuna.distributions.FloatDistribution(0, 1)
    trials = []
    for number in range(60):
        params = {"lr": float(rng.random()), "idle": float(rng.random())}
        distributions = {"lr": uniform, "idle": uniform}
        value = -((params["lr"] - 0.3) ** 2)
        trials.append(TrialRecord(number, number, "complete", value, params=params, distributions=distributions))
    found = importance([StudyRecord("e", "tpe", 0, "maximize", tuple(trials))])
    assert list(found) == ["lr", "idle"]
    assert sum(found.values()) == pytest.approx(1)
    assert found["lr"] > 0.7
    assert importance([StudyRecord("e", "tpe", 0, "maximize", tuple(trials[:19]))]) == {}
