"""Means with intervals, paired differences and their tests. Pure functions of numbers.

scipy is imported where it is used: one run alone needs none of it. Its special functions are
there in a third of the time of its statistics.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
LEVEL = 0.05
# All pairs equal: their range covers the median with confidence 1 - 2^(1-n), 95 % from here.
MIN_EQUAL_PAIRS = 6
# The sign-flip test enumerates up to this many pairs (2^19 flips), and samples beyond.
MAX_ENUMERATED_PAIRS = 20
NUM_SAMPLED_FLIPS = 100_000
_MAX_NEEDED = 1_000_000  # pairs; more are none that can be told
# Differences of percentages are equal only up to rounding: below this share of their
# size, their spread counts as none.
_ROUNDING = 1e-9


class Interval(NamedTuple):
    """A mean, and the half-width of its two-sided Student t interval; nan for one number."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


class PermutationTest(NamedTuple):
    """A two-sided p value, and whether every sign flip was enumerated."""

    p: float
    is_exact: bool


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean of independent numbers and its t interval.

        mean +- t((1 + confidence) / 2, n - 1) * sd / sqrt(n)

    Args:
        values: at least one number.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: no numbers.

    >>> mean, half_width = mean_interval([1.0, 2.0, 3.0])
    >>> print(f"{mean:.4f} ± {half_width:.4f}")
    2.0000 ± 2.4841
    """
    if not values:
        raise ValueError("no values: an interval needs at least one")
    mean = math.fsum(values) / len(values)
    return Interval(mean, half_width(sample_sd(values), len(values), confidence))


def sample_sd(values: Sequence[float]) -> float:
    """The sample's standard deviation, with n - 1; nan for fewer than two numbers.

    A spread that is rounding alone, as of equal differences of percentages, is 0.

    >>> sample_sd([2.0, 4.0, 6.0])
    2.0
    >>> sample_sd([90.1 - 90.0, 80.1 - 80.0])
    0.0
    """
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return 0.0 if sd <= _ROUNDING * max(1.0, abs(mean)) else sd


def half_width(sd: float, num_values: int, confidence: float = CONFIDENCE) -> float:
    """Half the width of the t interval of a mean; nan for fewer than two values."""
    if num_values < 2:
        return math.nan
    return t_quantile(confidence, num_values - 1) * sd / math.sqrt(num_values)


@cache
def t_quantile(confidence: float, degrees: int) -> float:
    """The two-sided quantile of Student's t distribution."""
    from scipy import special

    return float(special.stdtrit(degrees, (1 + confidence) / 2))


def t_test(differences: Sequence[float]) -> float:
    """Two-sided p of the one-sample t test of a mean of 0; nan where there is no spread.

    >>> round(t_test([1.0, 2.0, 3.0]), 4)
    0.0742
    """
    sd = sample_sd(differences)
    if not sd > 0:
        return math.nan

    from scipy import special

    number = len(differences)
    t = math.fsum(differences) / number / sd * math.sqrt(number)
    return float(2 * special.stdtr(number - 1, -abs(t)))


def sign_test(differences: Sequence[float]) -> float:
    """Two-sided p of the exact sign test: are both signs equally likely? Zeros are left out.

        p = min(1, 2 * P(X >= max(plus, minus))),  X binomial(plus + minus, 1/2)

    >>> sign_test([1.0] * 6)
    0.03125
    """
    plus = sum(difference > 0 for difference in differences)
    number = plus + sum(difference < 0 for difference in differences)
    if number == 0:
        return 1.0

    from scipy import special

    fewer = min(plus, number - plus)
    return min(1.0, 2 * float(special.bdtr(fewer, number, 0.5)))


def permutation_test(differences: Sequence[float]) -> PermutationTest:
    """Two-sided sign-flip test: with no effect, each difference could have either sign.

    p is the share of the 2^n ways to set the signs whose sum is at least as far from 0 as
    the one seen. Up to 20 pairs all are enumerated; beyond, 100,000 are drawn with a fixed
    seed, and the one seen is counted among them.

    >>> permutation_test([0.5, 1.0, 2.0])
    PermutationTest(p=0.25, is_exact=True)

    Source: R. A. Fisher, The Design of Experiments, 1935, section 21.
    """
    values = np.asarray(differences, dtype=np.float64)
    # Rounding must not decide whether a flip is as extreme as the one seen.
    seen = abs(values.sum()) - _ROUNDING * np.abs(values).sum()
    if len(values) <= MAX_ENUMERATED_PAIRS:
        sums = values[:1]  # the first sign stands for both: the sums are symmetric
        for value in values[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return PermutationTest(float((np.abs(sums) >= seen).mean()) if len(values) else 1.0, True)
    count = 1 + int((np.abs(_sampled_sums(values)) >= seen).sum())
    return PermutationTest(count / (NUM_SAMPLED_FLIPS + 1), False)


def _sampled_sums(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sums of the values with random signs, NUM_SAMPLED_FLIPS of them.

    A random byte draws the signs of eight values, whose 256 sums are computed once.
    """
    eights = np.append(values, np.zeros(-len(values) % 8)).reshape(-1, 8)
    signs = 2.0 * (np.arange(256)[:, None] >> np.arange(8) & 1) - 1
    generator = np.random.default_rng(0)
    sums = np.zeros(NUM_SAMPLED_FLIPS)
    for eight in eights:
        drawn = generator.integers(0, 256, NUM_SAMPLED_FLIPS, dtype=np.uint8)
        sums += (signs @ eight)[drawn]
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the given order; nan stays out of the family.

        p'_(i) = max over j <= i of min(1, (m - j + 1) p_(j))

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian
    Journal of Statistics 6, 1979.
    """
    order = sorted(
        (index for index, p in enumerate(p_values) if not math.isnan(p)),
        key=lambda index: p_values[index],
    )
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def seeds_to_settle(
    mean: float,
    sd: float,
    margin: float,
    num_compared: int = 1,
    width: Callable[[float, int, float], float] = half_width,
) -> int | None:
    """How many pairs would settle a comparison, if mean and spread stayed as they are.

    The smallest n whose interval either leaves 0 out, at confidence 1 - 0.05 / m for m
    arms compared (Bonferroni, so that Holm's correction is passed too), or lies within the
    margin, at 95 %:

        h(n; 1 - 0.05 / m) < |mean|   or   h(n; 0.95) < margin - |mean|

    The mean and spread are themselves estimates: at n pairs the odds are about even; twice
    as many give about four in five. Without any spread the intervals have no width and the
    sign-flip test decides: the smallest n with 2^(1-n) < 0.05 / m.

    Args:
        mean: of the differences.
        sd: their standard deviation.
        margin: differences within it count as none, above 0, in the unit of the mean.
        num_compared: m, at least 1.
        width: h(sd, n, confidence), half the width of the interval after n pairs.

    Returns:
        At least 2; None if mean or sd is nan, or if it would be more than a million.

    >>> seeds_to_settle(mean=0.5, sd=1.0, margin=0.5)
    18
    >>> seeds_to_settle(mean=0.0, sd=1.0, margin=0.5)
    18
    """
    if math.isnan(mean) or math.isnan(sd):
        return None
    level = LEVEL / num_compared
    if sd == 0:
        number = math.floor(1 - math.log2(level)) + 1
        return min(number, MIN_EQUAL_PAIRS) if abs(mean) < margin else number

    def is_settled(number: int) -> bool:
        differs = width(sd, number, 1 - level) < abs(mean)
        return differs or width(sd, number, CONFIDENCE) < margin - abs(mean)

    low, high = 1, 2
    while not is_settled(high):
        if high > _MAX_NEEDED:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_settled(middle) else (middle, high)
    return high
