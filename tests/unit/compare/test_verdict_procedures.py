"""The procedures that benchmarks.verdict judges are those of SciPy and of hpo.compare, many experiments at a time."""

import numpy as np
import pytest
import scipy.stats

from benchmarks import verdict
from benchmarks.verdict_procedures import PROCEDURES, Sample, all_assignments
from hpo.compare import significance

EXPERIMENTS = 60
RNG = np.random.default_rng(6)


def drawn(shift: float, decimals: int = 9) -> Sample:
    trials = np.round(RNG.normal(shift, 1.0, size=(EXPERIMENTS, 5, 8)), decimals)
    curves = np.minimum.accumulate(trials, axis=2)
    return Sample(curves[:, :, -1], curves.mean(axis=2), trials)


FIRST, SECOND = drawn(0.0), drawn(-1.0)


@pytest.mark.parametrize("decimals", [9, 1])
def test_the_chosen_one_decides_as_the_comparison_does(decimals):
    first, second = drawn(0.0, decimals), drawn(-1.0, decimals)
    decided = all_assignments(first, second)
    for a, b, found in zip(first.final, second.final, decided, strict=True):
        expected = significance.permutation_test(a, b) <= 0.05
        assert found == (np.sign(a.mean() - b.mean()) if expected else 0)


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("paired t", scipy.stats.ttest_rel),
        ("Welch's t", lambda a, b: scipy.stats.ttest_ind(a, b, equal_var=False)),
        ("rank sum of searches", lambda a, b: scipy.stats.mannwhitneyu(a, b, method="exact")),
        ("signed-rank", lambda a, b: scipy.stats.wilcoxon(a, b, method="exact")),
    ],
)
def test_the_others_are_those_of_scipy(name, test):
    decided = PROCEDURES[name](FIRST, SECOND)
    expected = [test(a, b).pvalue <= 0.05 for a, b in zip(FIRST.final, SECOND.final, strict=True)]
    assert (decided != 0).tolist() == expected
    assert set(decided.tolist()) <= {0, 1}  # the second one has the smaller values


def test_pairs_cannot_decide_at_five_repeats_and_every_procedure_takes_them():
    far = Sample(FIRST.final + 100, FIRST.area + 100, FIRST.trials + 100)
    found = {name: decide(far, SECOND) for name, decide in PROCEDURES.items()}
    assert not any(found.pop(name).any() for name in ("signed-rank", "sign changes of means"))
    # The tests for normal differences refuse those of a skewed sample.
    assert found.pop("paired t, Shapiro-Wilk first").mean() > 0.8
    assert {name: decided.tolist() for name, decided in found.items()} == dict.fromkeys(found, [1] * EXPERIMENTS)


def test_a_case_draws_two_samples_without_a_search_in_common():
    searches = np.arange(20.0)[:, None].repeat(3, axis=1)
    case = verdict.Case("error", "itself", searches, searches, same=True)
    seen = []

    def note(first, second):
        seen.append((first.final, second.final))
        return np.zeros(len(first.final), dtype=int)

    assert verdict.rates(case, 5, 50, {"none": note}) == {"none": 0.0}
    first, second = seen[0]
    assert all(len({*a, *b}) == 10 for a, b in zip(first.tolist(), second.tolist(), strict=True))
