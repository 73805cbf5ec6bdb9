"""The e-value and its confidence sequence: against numbers of others, quadrature, and laws."""

import math

import numpy as np
import pytest
from scipy import optimize

from softmax_gradient_tampering.studies.analysis.sequence import (
    PRIOR_VARIANCE,
    anytime_p,
    log_e_of_share,
    log_e_value,
    sequence_half_width,
    width_factor,
)

# What the README of the R package avlm 0.1.0 (Lindon et al.) prints for a regression of 100 rows
# with 92 degrees of freedom: estimate, standard error, t, p value, interval. Its g, a precision,
# is the one whose interval is narrowest.
PUBLISHED = {
    "(Intercept)": (0.91630, 0.15864, 5.776, 9.77e-06, (0.4238730, 1.4087195)),
    "X1": (-0.12768, 0.18087, -0.706, 1.0, (-0.6890957, 0.4337358)),
    "X2": (-0.14966, 0.18283, -0.819, 1.0, (-0.7171420, 0.4178268)),
    "X3": (1.30556, 0.15941, 8.190, 8.07e-10, (0.8107460, 1.8003705)),
    "trt": (2.32245, 0.21566, 10.769, 3.19e-14, (1.6530529, 2.9918408)),
    "X1:trt": (2.29985, 0.24141, 9.527, 3.98e-12, (1.5505190, 3.0491788)),
    "X2:trt": (3.31166, 0.23251, 14.243, None, (2.5899720, 4.0333555)),
    "X3:trt": (0.08015, 0.21122, 0.379, 1.0, (-0.5754734, 0.7357662)),
}
DEGREES = 92


def narrowest_size() -> float:
    """n g of the narrowest interval."""
    found = optimize.minimize_scalar(
        lambda log_size: width_factor(math.exp(log_size), DEGREES), bounds=(0, 8), method="bounded"
    )
    return math.exp(found.x)


@pytest.mark.parametrize("name", PUBLISHED)
def test_p_values_and_intervals_are_those_that_avlm_publishes(name: str) -> None:
    estimate, error, t, p, interval = PUBLISHED[name]
    size = narrowest_size()
    assert 100 / size == pytest.approx(11.58, abs=0.01)
    half_width = width_factor(size, DEGREES) * error
    assert (estimate - half_width, estimate + half_width) == pytest.approx(interval, abs=3e-5)
    if p is not None:  # the printed t has four digits
        ours = anytime_p(log_e_of_share(t * t / (DEGREES + t * t), size, DEGREES))
        assert ours == pytest.approx(p, rel=0.01)


def differences(number: int, mean: float = 0.5) -> list[float]:
    return np.random.default_rng(number).normal(mean, 1, number).tolist()


@pytest.mark.parametrize("number", [1, 2, 3, 7, 20])
def test_the_e_value_is_the_ratio_of_two_integrals(number: int) -> None:
    values = np.array(differences(number))
    # The likelihood of mean delta sigma, without what both integrals have: the right Haar prior
    # d sigma / sigma is d log sigma. Sums over a fine grid are as good as any rule here.
    log_sigma = np.linspace(-5, 25, 3001)[:, None]
    delta = np.linspace(-9, 9, 1001)
    total, squares = values.sum() / np.exp(log_sigma), values @ values / np.exp(2 * log_sigma)
    residual = squares - 2 * delta * total + number * delta**2
    above = np.exp(-residual / 2 - number * log_sigma)
    density = np.exp(-(delta**2) / 2 / PRIOR_VARIANCE) / math.sqrt(2 * math.pi * PRIOR_VARIANCE)
    mixed = (above * density).sum() * (delta[1] - delta[0])
    below = np.exp(-squares / 2 - number * log_sigma).sum()
    assert math.exp(log_e_value(values.tolist())) == pytest.approx(mixed / below, rel=1e-9)


@pytest.mark.parametrize("number", [5, 8, 30])
@pytest.mark.parametrize("confidence", [0.95, 0.9])
def test_the_sequence_ends_where_the_e_value_is_one_over_the_level(
    number: int, confidence: float
) -> None:
    values = np.array(differences(number))
    half_width = sequence_half_width(float(values.std(ddof=1)), number, confidence)
    for end in (values.mean() - half_width, values.mean() + half_width):
        assert math.exp(log_e_value((values - end).tolist())) == pytest.approx(1 / (1 - confidence))


@pytest.mark.parametrize("number", range(1, 12))
def test_pairs_that_are_all_equal_have_an_exact_e_value(number: int) -> None:
    for value in (1.0, -0.28, 1e-300, 1e300):
        expected = (number - 1) / 2 * math.log(number + 1)
        assert log_e_value([value] * number) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_what_says_nothing_has_the_e_value_one() -> None:
    for values in ([], [0.0], [0.0] * 50, [3.0], [-1e-9]):
        assert log_e_value(values) == 0.0
        assert anytime_p(log_e_value(values)) == 1.0


def test_a_difference_that_is_not_finite_has_no_e_value() -> None:
    for value in (math.nan, math.inf, -math.inf):
        assert math.isnan(log_e_value([1.0, value, 2.0]))


@pytest.mark.parametrize("factor", [1e-200, 0.01, -1.0, 1e200])
def test_neither_unit_nor_order_nor_sign_changes_the_e_value(factor: float) -> None:
    values = differences(15)
    changed = [factor * value for value in reversed(values)]
    assert log_e_value(changed) == pytest.approx(log_e_value(values), rel=1e-12)


def test_there_is_no_interval_before_five_pairs_at_95_percent() -> None:
    widths = [sequence_half_width(1.0, number) for number in range(1, 200)]
    assert widths[:4] == [math.inf] * 4
    assert np.isfinite(widths[4:]).all()
    assert (np.diff(widths[4:]) < 0).all()
    assert sequence_half_width(0.0, 5) == 0.0
    assert math.isinf(sequence_half_width(1.0, 5, 1 - 0.05 / 4))


def test_a_sequence_is_wider_than_students_interval() -> None:
    from softmax_gradient_tampering.studies.analysis.statistics import half_width

    for number in (5, 10, 40, 1000):
        assert sequence_half_width(1.0, number) > half_width(1.0, number)


def test_watching_after_every_pair_finds_nothing_in_19_of_20_null_studies() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 100))
    sums, squares = draws.cumsum(1), (draws**2).cumsum(1)
    number = np.arange(1, 101)
    rest = 1 - sums**2 / squares / (number + 1)
    log_e = -0.5 * np.log(1 + number) - number / 2 * np.log(rest)
    assert log_e[7, 30] == pytest.approx(log_e_value(draws[7, :31].tolist()))
    share = (log_e.max(1) >= math.log(20)).mean()
    assert 0.015 < share < 0.05
    assert np.exp(log_e[:, 9]).mean() == pytest.approx(1, abs=0.1)  # a martingale that starts at 1
