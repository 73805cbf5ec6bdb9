"""From values to places on an axis, and the round values that are written beside it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from softmax_gradient_tampering.studies.report.wording import MINUS

# A logarithmic axis of less has too few round numbers on it.
MIN_LOG_SPAN = 3.0
_PADDING = 0.05  # of the span, on either side


@dataclass(frozen=True)
class Scale:
    """An axis from one value to another."""

    low: float
    high: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """The share of the axis below a value.

        >>> Scale(0, 10).place(2.5), Scale(1, 100, is_log=True).place(10)
        (0.25, 0.5)
        """
        if self.is_log:
            if value <= 0:
                return -math.inf
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, number: int = 5) -> list[tuple[float, str]]:
        """Round values on the axis, about so many, and their texts.

        >>> Scale(0, 1.1).ticks()
        [(0.0, '0.0'), (0.2, '0.2'), (0.4, '0.4'), (0.6, '0.6'), (0.8, '0.8'), (1.0, '1.0')]
        >>> Scale(0.5, 300, is_log=True).ticks()
        [(1.0, '1'), (3.0, '3'), (10.0, '10'), (30.0, '30'), (100.0, '100'), (300.0, '300')]
        """
        if self.is_log:
            return [(value, f"{value:.4g}") for value in self._log_ticks()]
        step = _round_step((self.high - self.low) / number)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [round(count * step, digits + 2) for count in range(first, last + 1)]
        return [(value, signed(f"{value:.{digits}f}")) for value in values]

    def _log_ticks(self) -> list[float]:
        decades = math.log10(self.high / self.low)
        subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 3.0, 5.0, 7.0)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = (sub * 10.0**power for power, sub in product(powers, subs))
        return [value for value in values if self.low <= value <= self.high * (1 + 1e-9)]


def linear(values: Iterable[float], least_span: float = 0.0) -> Scale:
    """A linear scale with some room around the values.

    Args:
        values: finite ones.
        least_span: what the axis spans at least, where the values are equal or nearly so.
    """
    low, high = _ends(values)
    span = max(high - low, least_span, 1e-3 * max(abs(low), abs(high)), 1e-9)
    middle = (low + high) / 2
    reach = span * (0.5 + _PADDING)
    return Scale(min(low, middle - reach), max(high, middle + reach))


def logarithmic(values: Iterable[float]) -> Scale:
    """A logarithmic scale; a linear one of values that span less than threefold or reach 0."""
    low, high = _ends(values)
    if low <= 0 or high / low < MIN_LOG_SPAN:
        return linear((low, high))
    room = (high / low) ** _PADDING
    return Scale(low / room, high * room, is_log=True)


def signed(text: str) -> str:
    """A number's text with a minus sign, not a hyphen."""
    return text.replace("-", MINUS)


def _ends(values: Iterable[float]) -> tuple[float, float]:
    found: Sequence[float] = [value for value in values if math.isfinite(value)]
    return (min(found), max(found)) if found else (0.0, 1.0)


def _round_step(step: float) -> float:
    """The round number, 1, 2 or 5 times a power of ten, that is about as large."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.75)
