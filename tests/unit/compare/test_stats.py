"""Intervals and tests against hand computation, SciPy, and simulations with a known truth."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.compare import significance, stats
from hpo.studyfile import repeats

# Hollander & Wolfe's depression scores, the example of R's wilcox.test: V = 40 of 45, p = 0.03906.
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def test_mean_interval_by_hand():
    # mean 3, s = sqrt(2.5), t(0.975, 4) = 2.7764451: half = 2.7764451 * sqrt(2.5 / 5).
    interval = stats.mean_interval([1, 2, 3, 4, 5])
    assert interval.low == pytest.approx(3 - 1.963243, abs=1e-6)
    assert interval.high == pytest.approx(3 + 1.963243, abs=1e-6)
    assert stats.mean_interval([1.0]) is None


def test_median_and_iqm_by_hand():
    values = np.array([9.0, 1.0, 2.0, 100.0, 3.0, 4.0, 5.0, 6.0])
    assert stats.median(values) == 4.5
    assert stats.iqm(values) == 4.5  # 3, 4, 5, 6 remain
    assert stats.iqm(values) == scipy.stats.trim_mean(values, 0.25)


def test_missing_values_are_infinitely_bad_not_nan():
    values = np.array([[-np.inf, 1.0], [-np.inf, 2.0], [3.0, 3.0]])
    bands = stats.bootstrap_bands(values)
    assert bands["median"].center.tolist() == [-np.inf, 2.0]
    for band in bands.values():
        assert not np.isnan(np.stack([band.center, band.low, band.high])).any()


def test_strata_are_resampled_within_themselves():
    indices = stats.resample_indices(["a", "b", "a", "b"], resamples=500)
    assert indices.shape == (500, 4)
    assert set(np.unique(indices[:, [0, 2]])) == {0, 2}
    assert set(np.unique(indices[:, [1, 3]])) == {1, 3}
    assert (indices == stats.resample_indices(["a", "b", "a", "b"], resamples=500)).all()


def test_one_repeat_has_a_center_and_no_band():
    band = stats.bootstrap_bands(np.array([[0.1, 0.4]]))["median"]
    assert band.center.tolist() == [0.1, 0.4]
    assert band.low is None


def test_expanded_levels_lie_outside_the_plain_ones():
    # t(0.975, 9) = 2.262157, times sqrt(10 / 9): Phi(-2.384526) = 0.00855.
    low, high = stats.expanded_levels(10)
    assert low == pytest.approx(0.00855, abs=1e-5)
    assert low + high == pytest.approx(1)
    assert stats.expanded_levels(100_000)[0] == pytest.approx(0.025, abs=1e-4)


def test_difference_interval_as_scipy_has_it():
    interval = stats.difference_interval(BEFORE, AFTER)
    theirs = scipy.stats.ttest_ind(BEFORE, AFTER, equal_var=False).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert stats.difference_interval([1.0], AFTER) is None
    assert stats.difference_interval([2.0, 2.0], [1.5, 1.5]) == stats.Interval(0.5, 0.5)


def test_five_repeats_that_lie_apart_are_decided():
    # All five of one above all five of the other: 2 of C(10, 5) = 252 assignments are as far apart.
    first, second = [9.1, 8.7, 9.3, 8.9, 9.0], [0.5, 1.1, 0.7, 0.65, 0.5]
    assert significance.permutation_test(first, second) == pytest.approx(2 / 252, abs=1e-15)
    assert significance.permutation_test(second, first) == pytest.approx(2 / 252, abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-5, 5).map(lambda i: i / 10), min_size=2, max_size=5),
    st.lists(st.integers(-5, 5).map(lambda i: i / 10), min_size=2, max_size=5),
)
def test_the_permutation_test_agrees_with_scipy_with_ties_and_unequal_numbers(first, second):
    # Exact fractions on their side: sums of floats in another order are not tied, and theirs are compared by rounding.
    theirs = scipy.stats.permutation_test(
        ([round(10 * x) for x in first], [round(10 * x) for x in second]),
        lambda x, y, axis: abs(len(second) * np.sum(x, axis=axis) - len(first) * np.sum(y, axis=axis)),
        alternative="greater",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert significance.permutation_test(first, second) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_above_ten_repeats_random_assignments_come_near_the_exact_value():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.9, 1, 11), rng.normal(0, 1, 11)
    p_value = significance.permutation_test(first, second)
    values = np.concatenate([first, second]) - np.concatenate([first, second]).mean()
    sums = np.abs(values[significance._assignments(22, 11)].sum(axis=1))
    exact = (sums >= abs(values[:11].sum()) - 1e-12).mean()
    assert p_value == pytest.approx(exact, abs=4 * (exact / 50_000) ** 0.5)
    assert significance.permutation_test(first + 100, second) == 1 / 50_001
    assert significance.permutation_test(first + 100, second) == significance.permutation_test(first + 100, second)


def test_no_difference_at_all_and_what_diverged():
    assert significance.permutation_test([0.1] * 5, [0.1] * 5) == 1.0
    assert significance.permutation_test([], [0.1]) == 1.0
    assert significance.permutation_test([1.0, 2.0, 3.0, np.inf], [5.0, np.inf, np.inf, np.inf]) > 0.05
    assert significance.permutation_test([np.inf] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]) == pytest.approx(2 / 252)


def test_holm_by_hand():
    assert significance.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []


def test_what_few_repeats_can_show():
    # The least two-sided p of n repeats is 2 / C(2n, n).
    assert repeats.attainable_level(3, 0.05) == 0.0
    assert repeats.attainable_level(4, 0.05) == pytest.approx(2 / 70)
    assert repeats.attainable_level(5, 0.05) == pytest.approx(12 / 252)
    assert [repeats.fewest_repeats(pairs) for pairs in (1, 3, 6, 10)] == [4, 5, 5, 6]
    assert significance.smallest_difference([0.1, 0.2, 0.1], [0.3, 0.2, 0.4]) is None
    assert significance.smallest_difference([0.1] * 10, [0.2] * 10) == 0.0


def test_probability_better_counts_ties_half_over_all_pairs():
    result = significance.probability_better([3, 2], [1, 2], maximize=True)
    assert result.value == (1 + 1 + 1 + 0.5) / 4
    assert significance.probability_better([3, 2], [1, 2], maximize=False).value == 0.125
    assert result.interval.contains(0.875)
    assert significance.probability_better([], [1], maximize=True) is None


def test_the_interval_of_the_probability_covers_the_truth():
    rng = np.random.default_rng(4)
    for shift in (0.0, 1.0, 2.5):
        truth = scipy.stats.norm.cdf(shift / 2**0.5)
        found = [
            significance.probability_better(rng.normal(shift, 1, 5), rng.normal(0, 1, 5), maximize=True).interval
            for _ in range(SIMULATIONS)
        ]
        assert np.mean([interval.contains(truth) for interval in found]) >= 0.92
    sure = significance.probability_better([2.0] * 5, [1.0] * 5, maximize=True)
    assert sure.value == sure.interval.high == 1.0
    assert 0.5 < sure.interval.low < 0.8


def test_ranks_and_friedman():
    scores = np.array([[0.9, 0.8, 0.8], [0.7, 0.9, 0.1]])
    assert significance.average_ranks(scores, [True, True]).tolist() == [1.5, 1.75, 2.75]
    assert significance.average_ranks(scores, [False, True]).tolist() == [2.5, 1.25, 2.25]
    untied = np.random.default_rng(2).normal(size=(12, 4)) + np.array([0, 0, 0.5, 1])
    chi = scipy.stats.friedmanchisquare(*untied.T).statistic
    expected = scipy.stats.f.sf(11 * chi / (12 * 3 - chi), 3, 33)
    assert significance.friedman(untied, [True] * 12) == pytest.approx(expected, rel=1e-9)
    assert significance.friedman(untied[:, :2], [True] * 12) is None


def test_critical_difference_as_published():
    # Demšar (2006), section 3.2.2: 4 algorithms on 14 data sets, q = 2.569: 1.25; 2 algorithms, q = 1.960.
    assert significance.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert significance.critical_difference(2, 10) == pytest.approx(1.960 * (6 / 60) ** 0.5, abs=1e-3)


SIMULATIONS = 500


def searches_of_two(rng, difference=0.0, repeats=10, trials=25):
    """Two samplers whose repeats are the best of ``trials`` draws each: skewed, as the best values of searches are."""
    first = rng.normal(size=(SIMULATIONS, repeats, trials)).max(axis=2) + difference
    return first, rng.normal(size=(SIMULATIONS, repeats, trials)).max(axis=2)


@pytest.mark.parametrize("difference", [0.0, 0.3])
def test_difference_intervals_cover_the_truth(difference):
    first, second = searches_of_two(np.random.default_rng(7), difference)
    covered = [stats.difference_interval(a, b).contains(difference) for a, b in zip(first, second, strict=True)]
    assert np.mean(covered) >= 0.93


@pytest.mark.parametrize("statistic", ["median", "iqm"])
def test_bands_cover_the_truth(statistic):
    rng = np.random.default_rng(11)
    samples = searches_of_two(rng)[0]
    population = np.sort(rng.normal(size=(100_000, 10, 25)).max(axis=2), axis=1)
    # What the statistic of ten repeats estimates: its own expectation.
    truth = stats.STATISTICS[statistic](population, 1).mean()
    covered = 0
    for sample in samples:
        band = stats.bootstrap_bands(sample[:, None], resamples=500)[statistic]
        covered += bool(band.low[0] <= truth <= band.high[0])
    assert covered / SIMULATIONS >= 0.93


@pytest.mark.parametrize("n", [5, 7])
def test_the_test_is_rarely_wrong_and_finds_what_it_says_it_could(n):
    rng = np.random.default_rng(3)
    first, second = searches_of_two(rng, repeats=n)
    wrong = np.mean([significance.permutation_test(a, b) <= 0.05 for a, b in zip(first, second, strict=True)])
    assert wrong <= 0.07
    # Normal values of unit spread: the difference named as the smallest is found in about 80 % of the cases.
    unit = rng.normal(size=n)
    unit = (unit - unit.mean()) / unit.std(ddof=1)
    smallest = significance.smallest_difference(unit, unit)
    drawn = rng.normal(size=(SIMULATIONS, 2, n))
    found = np.mean([significance.permutation_test(a + smallest, b) <= 0.05 for a, b in drawn])
    assert 0.75 <= found <= 0.86


def test_three_samplers_alike_are_rarely_told_apart():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(SIMULATIONS, 3, 5, 25)).max(axis=3)
    wrong = 0
    for a, b, c in values:
        p_values = significance.holm([significance.permutation_test(*pair) for pair in ((a, b), (a, c), (b, c))])
        wrong += min(p_values) <= 0.05
    assert wrong / SIMULATIONS <= 0.06
