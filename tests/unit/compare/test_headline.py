"""The verdict in one sentence: if the test decides, if it cannot decide, and if there is nothing to test."""

from hpo.compare.pairs import compare_pairs, headline


def sentence(maximize=True, **samplers):
    finals = {name: dict(enumerate(values)) for name, values in samplers.items()}
    return headline(finals, compare_pairs(finals, maximize, None), maximize)


HIGH = [9.1, 8.7, 9.3, 8.9, 9.0]
LOW = [0.5, 1.1, 0.7, 0.65, 0.5]
THREE = {"a": HIGH, "b": LOW, "c": [4.0, 4.1, 3.9, 4.2, 4.0]}
RANDOM = [0.70, 0.71, 0.72, 0.70, 0.73, 0.71, 0.70, 0.72]


def test_a_decided_pair_has_its_estimate_interval_and_p_value():
    tpe = [value + 0.05 + 0.001 * i for i, value in enumerate(RANDOM)]
    found = sentence(random=RANDOM, tpe=tpe)
    assert found == "tpe is better than random by 0.0535 (95 %: 0.041 to 0.066), p = 0.00016 over 8 repeats."


def test_five_repeats_that_lie_far_apart_are_decided():
    pairs = compare_pairs({"a": dict(enumerate(HIGH)), "b": dict(enumerate(LOW))}, True, None)
    assert (pairs[0].verdict, pairs[0].p_value, pairs[0].needed) == ("better", 2 / 252, 4)
    assert sentence(a=HIGH, b=LOW).startswith("a is better than b by 8.31 (95 %: 7.97 to 8.65), p = 0.0079 over 5")
    assert sentence(False, a=HIGH, b=LOW).startswith(
        "b is better than a by 8.31 (95 %: 7.97 to 8.65), p = 0.0079 over 5"
    )
    three = compare_pairs({name: dict(enumerate(values)) for name, values in THREE.items()}, True, None)
    assert [pair.verdict for pair in three] == ["better", "better", "worse"]


def test_a_smaller_value_is_better_where_the_study_minimizes():
    losses = [value - 0.5 - 0.001 * i for i, value in enumerate(RANDOM)]
    assert sentence(False, random=RANDOM, tpe=losses).startswith("tpe is better than random by 0.503")


def test_what_the_test_cannot_decide_has_the_repeats_that_it_takes_the_estimate_and_the_probability():
    found = sentence(random=RANDOM[:3], tpe=[0.9, 0.91, 0.95])
    assert found == (
        "Not decided by the test: 4 repeats needed, 3 made; so far tpe is ahead of random by 0.21 "
        "(95 %: 0.153 to 0.267) and better with probability 1 (95 %: 0.5 to 1)."
    )
    pair = compare_pairs({"random": dict(enumerate(RANDOM[:3])), "tpe": {0: 0.9, 1: 0.91, 2: 0.95}}, True, None)[0]
    assert pair.verdict == "not decided"
    assert pair.sentence.startswith("random against tpe: not decided by the test: 4 repeats needed, 3 made; so far tpe")


def test_a_search_that_diverged_is_ranked_last():
    finals = {"a": dict(enumerate([0.1, 0.2, 0.3, 0.1])), "b": dict(enumerate([float("inf")] * 4))}
    assert compare_pairs(finals, False, None)[0].verdict == "better"
    assert compare_pairs(finals, True, None)[0].verdict == "worse"


def test_no_difference_says_which_is_ahead_and_that_the_interval_has_both_signs():
    other = [value + (0.01 if i % 2 else -0.009) for i, value in enumerate(RANDOM)]
    found = sentence(random=RANDOM, tpe=other)
    assert found.startswith("No difference that 8 repeats could show: tpe is ahead of random by 0.0005 (95 %: -0.0")


def test_one_repeat_is_called_one_repeat_and_one_sampler_has_no_verdict():
    assert sentence(random=[0.7], tpe=[0.75]) == (
        "tpe is ahead of random by 0.05 in one repeat of each, which may be chance."
    )
    assert sentence(tpe=RANDOM) == ""
    assert sentence(tpe=RANDOM, random=[]) == ""
    assert sentence(random=[0.7], tpe=[0.7]) == "tpe and random are equal over 1 repeat."


def test_the_other_samplers_that_the_leader_beats_are_named():
    best = [value + 0.05 + 0.001 * i for i, value in enumerate(RANDOM)]
    near = [value + (0.001 if i % 2 else -0.0012) for i, value in enumerate(best)]
    found = sentence(random=RANDOM, grid=near, tpe=best)
    assert found.startswith("No difference that 8 repeats could show: tpe is ahead of grid by 0.0001")
    assert found.endswith("; tpe is better than random.")
