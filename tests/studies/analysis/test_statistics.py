"""Intervals and tests with known answers, and against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from softmax_gradient_tampering.studies.analysis.statistics import (
    holm,
    mean_interval,
    permutation_test,
    sample_sd,
    seeds_to_settle,
    sign_test,
    t_test,
)


def test_a_mean_and_its_interval_are_scipys() -> None:
    values = [93.1, 94.7, 92.2, 95.0, 94.1]
    interval = mean_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=interval.mean, scale=stats.sem(values))
    assert interval.mean == pytest.approx(93.82)
    assert interval.mean - interval.half_width == pytest.approx(low, rel=1e-12)
    assert interval.mean + interval.half_width == pytest.approx(high, rel=1e-12)


def test_one_value_has_no_interval() -> None:
    mean, half_width = mean_interval([1.0])
    assert mean == 1.0
    assert math.isnan(half_width)


def test_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


@pytest.mark.parametrize("number", [2, 3, 5, 10, 17])
def test_the_t_test_is_scipys(number: int) -> None:
    differences = np.random.default_rng(number).normal(0.3, 1, number).tolist()
    assert t_test(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-9)


@pytest.mark.parametrize("plus", range(12))
def test_the_sign_test_is_scipys_binomial_test(plus: int) -> None:
    differences = [1.0] * plus + [-2.0] * (11 - plus) + [0.0]
    assert sign_test(differences) == pytest.approx(stats.binomtest(plus, 11).pvalue, rel=1e-12)


@pytest.mark.parametrize("number", [2, 6, 11])
def test_the_permutation_test_is_scipys(number: int) -> None:
    differences = np.random.default_rng(number).normal(0.4, 1, number)
    expected = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    test = permutation_test(differences.tolist())
    assert test.is_exact
    assert test.p == pytest.approx(expected.pvalue, rel=1e-12)


def test_the_permutation_test_of_equal_differences_has_the_least_p() -> None:
    for number in range(1, 21):
        # 0.1 + 0.2 is not 0.3: sums that differ by rounding alone are equally extreme.
        assert permutation_test([0.1] * number) == (2.0 ** (1 - number), True)


def test_many_pairs_are_sampled_and_say_so() -> None:
    generator = np.random.default_rng(0)
    differences = generator.normal(0.2, 1, 60).tolist()
    test = permutation_test(differences)
    assert not test.is_exact
    assert test == permutation_test(differences)
    assert test.p == pytest.approx(t_test(differences), abs=0.01)
    assert permutation_test([1.0] * 40).p == pytest.approx(1 / 100_001)


def test_holm_steps_down_and_leaves_nan_out() -> None:
    # By hand: 4 * .01, then max(.04, 3 * .01), 2 * .03, 1 * .2
    adjusted = holm([0.2, 0.01, math.nan, 0.03, 0.01])
    assert math.isnan(adjusted[2])
    assert [adjusted[i] for i in (0, 1, 3, 4)] == pytest.approx([0.2, 0.04, 0.06, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def _is_settled(number: int, mean: float, sd: float, margin: float, num_compared: int) -> bool:
    """By scipy's intervals: 0 outside, or all of it within the margin."""
    scale = sd / math.sqrt(number)
    low, high = stats.t.interval(1 - 0.05 / num_compared, number - 1, mean, scale)
    inner_low, inner_high = stats.t.interval(0.95, number - 1, mean, scale)
    return low > 0 or high < 0 or (inner_low > -margin and inner_high < margin)


@pytest.mark.parametrize("num_compared", [1, 4])
@pytest.mark.parametrize(
    ("mean", "sd", "margin"), [(0.5, 1, 0.5), (-0.1, 0.3, 0.5), (0, 2, 0.5), (3, 0.1, 0.5)]
)
def test_seeds_to_settle_is_the_first_number_that_settles(
    mean: float, sd: float, margin: float, num_compared: int
) -> None:
    seeds = seeds_to_settle(mean, sd, margin, num_compared)
    assert seeds is not None
    assert _is_settled(seeds, mean, sd, margin, num_compared)
    assert not any(_is_settled(n, mean, sd, margin, num_compared) for n in range(2, seeds))


def test_seeds_to_settle_without_spread_or_numbers() -> None:
    # Where the sign-flip test decides: 2^(1-6) = 0.031, and 2^(1-8) = 0.0078 < 0.05 / 6.
    assert seeds_to_settle(mean=2.0, sd=0.0, margin=0.5) == 6
    assert seeds_to_settle(mean=2.0, sd=0.0, margin=0.5, num_compared=6) == 8
    assert seeds_to_settle(mean=0.0, sd=0.0, margin=0.5, num_compared=6) == 6
    assert seeds_to_settle(math.nan, 1.0, 0.5) is None
    assert seeds_to_settle(1.0, math.nan, 0.5) is None
    assert seeds_to_settle(mean=0.0, sd=1e6, margin=0.5) is None


def test_degenerate_samples() -> None:
    assert math.isnan(sample_sd([1.0]))
    assert math.isnan(t_test([1.0]))
    assert math.isnan(t_test([1.0, 1.0]))
    # Equal up to the rounding of percentages: without this, p would be about 1e-16.
    assert sample_sd([100 * 94 / 99 - 100 * 93 / 99, 100 * 81 / 99 - 100 * 80 / 99]) == 0
    assert sign_test([0.0, 0.0]) == 1.0
    assert permutation_test([]) == (1.0, True)
    assert permutation_test([0.0, 0.0]).p == 1.0
