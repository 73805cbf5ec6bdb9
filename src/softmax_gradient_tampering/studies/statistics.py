"""Means with intervals, and paired differences. Pure functions of numbers."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats


class Interval(NamedTuple):
    """A mean, and the half-width of its two-sided Student t interval; nan for one number."""

    mean: float
    half_width: float

    @property
    def excludes_zero(self) -> bool:
        return abs(self.mean) > self.half_width


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of independent numbers and its t interval.

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
    if len(values) == 1:
        return Interval(mean, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    quantile = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    return Interval(mean, quantile * math.sqrt(variance / len(values)))


def paired_difference(
    treated: Sequence[float], control: Sequence[float], confidence: float = 0.95
) -> Interval:
    """The mean of the pairs' differences, treated minus control, and its t interval.

    Raises:
        ValueError: the two are not of one length, or empty.
    """
    differences = [a - b for a, b in zip(treated, control, strict=True)]
    return mean_interval(differences, confidence)
