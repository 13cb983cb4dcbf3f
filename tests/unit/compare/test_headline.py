"""The verdict in one sentence: if the test decides, if it cannot decide, and if there is nothing to test."""

from hpo.compare.pairs import compare_pairs, headline


def sentence(maximize=True, **samplers):
    finals = {name: dict(enumerate(values)) for name, values in samplers.items()}
    return headline(finals, compare_pairs(finals, maximize, None), maximize)


RANDOM = [0.70, 0.71, 0.72, 0.70, 0.73, 0.71, 0.70, 0.72]


def test_a_decided_pair_has_its_estimate_interval_and_p_value():
    tpe = [value + 0.05 + 0.001 * i for i, value in enumerate(RANDOM)]
    found = sentence(random=RANDOM, tpe=tpe)
    assert found == "tpe is better than random by 0.0535 (95 %: 0.0515 to 0.0555), p = 0.0078 over 8 repeats."


def test_a_smaller_value_is_better_where_the_study_minimizes():
    losses = [value - 0.5 - 0.001 * i for i, value in enumerate(RANDOM)]
    assert sentence(False, random=RANDOM, tpe=losses).startswith("tpe is better than random by 0.503")


def test_what_the_test_cannot_decide_keeps_the_estimate():
    found = sentence(random=RANDOM[:4], tpe=[0.9, 0.91, 0.95, 0.92])
    assert found.startswith("Not decided: tpe is ahead of random by 0.213 (95 %: 0.1")
    assert found.endswith("over 4 repeats, and the test takes 6.")


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
