"""Intervals with known answers, and against scipy."""

import math

import pytest
from scipy import stats

from softmax_gradient_tampering.studies.statistics import mean_interval, paired_difference


def test_a_mean_and_its_interval_are_scipys() -> None:
    values = [93.1, 94.7, 92.2, 95.0, 94.1]
    interval = mean_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=interval.mean, scale=stats.sem(values))
    assert interval.mean == pytest.approx(93.82)
    assert interval.mean - interval.half_width == pytest.approx(low, rel=1e-12)
    assert interval.mean + interval.half_width == pytest.approx(high, rel=1e-12)


def test_a_paired_difference_takes_out_what_the_pairs_share() -> None:
    control = [10.0, 20.0, 30.0]
    treated = [11.0, 21.0, 31.5]
    difference = paired_difference(treated, control)
    assert difference.mean == pytest.approx(3.5 / 3)
    assert difference.half_width < 1
    assert difference.excludes_zero


def test_one_value_has_no_interval() -> None:
    mean, half_width = mean_interval([1.0])
    assert mean == 1.0
    assert math.isnan(half_width)


def test_nothing_and_unequal_pairs_are_errors() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0])
