"""The forest plot: every arm against a reference, a row each, with the margin behind them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.verdict import Comparison, Verdict
from softmax_gradient_tampering.studies.report.figures.scale import Scale, linear
from softmax_gradient_tampering.studies.report.wording import MARKS, number, sentence_case

WIDTH = 1000  # units of a row
MAX_DOTS = 600  # of all rows: a page of many arms and seeds stays small
# What reaches further than this many times the usual interval is cut off.
_FAR = 8.0
_TONES = {
    Verdict.HELPS: "gain",
    Verdict.SUGGESTS_GAIN: "gain",
    Verdict.HURTS: "harm",
    Verdict.SUGGESTS_HARM: "harm",
    Verdict.DIVERGES: "harm",
}


@dataclass(frozen=True)
class ForestRow:
    """An arm against the reference; places are in units of a row's width.

    Attributes:
        name: of the arm.
        tone: gain, harm, control or open: a class of the style sheet.
        mark, verdict: the verdict as an ornament and in words.
        value: the difference and half its interval in words; empty without a pair.
        line: path of the interval; empty without one.
        mean: place of the mean; None without a pair, or where it is off the axis.
        dots: place and title of every seed's difference.
        beyond: "low" or "high" where a part of the row lies beyond that end of the axis, or both.
        title: the row in words.
    """

    name: str
    tone: str
    mark: str
    verdict: str
    value: str
    line: str
    mean: str | None
    dots: Sequence[tuple[str, str]]
    beyond: str
    title: str


@dataclass(frozen=True)
class Forest:
    """A forest plot.

    Attributes:
        key: its id on the page.
        title, caption: plain text.
        rows: an arm each.
        zero: place of no difference.
        band: where the margin begins and how wide it is.
        ticks: place in percent of the width, and text.
    """

    key: str
    title: str
    caption: str
    rows: Sequence[ForestRow]
    zero: str
    band: tuple[str, str]
    ticks: Sequence[tuple[str, str]]


def forest(results: Results, other: ArmResult | None, key: str) -> Forest | None:
    """All arms against the baseline or the tuned one; None without anything to compare.

    Args:
        results: of the study.
        other: the reference.
        key: the id of the figure.
    """
    if other is None:
        return None
    found = [
        (result, comparison)
        for result in results.arms.values()
        if (comparison := result.comparison(other)) is not None
    ]
    if not any(comparison.num_pairs for _, comparison in found):
        return None
    scale = _scale([comparison for _, comparison in found], results.margin)
    num_dots = sum(comparison.num_pairs for _, comparison in found)
    rows = [
        _row(result, comparison, scale, has_dots=num_dots <= MAX_DOTS)
        for result, comparison in found
    ]
    low, high = _place(scale, -results.margin), _place(scale, results.margin)
    ticks = [
        (f"{100 * scale.place(value):.1f}", f"+{text}" if value > 0 else text)
        for value, text in scale.ticks(6)
    ]
    return Forest(
        key=key,
        title=_title(results, other),
        caption=_caption(results, num_dots <= MAX_DOTS, any(row.beyond for row in rows)),
        rows=rows,
        zero=_unit(scale, 0.0),
        band=(f"{low:.0f}", f"{high - low:.0f}"),
        ticks=ticks,
    )


def _title(results: Results, other: ArmResult) -> str:
    spread = other.spreads.get(other.metric)
    mean = f" ({number(spread.interval.mean, 2)} %)" if spread and spread.num_values else ""
    label = sentence_case(results.metric.label)
    return f"{label} less that of {other.arm.name}{mean}, in points"


def _caption(results: Results, has_dots: bool, is_cut: bool) -> str:
    interval = "confidence sequence" if results.study.is_sequential else "interval"
    dots = ", each dot a seed" if has_dots else ""
    holm = " The bar is an arm's own; the verdict allows for the number of arms."
    cut = " An arrow: it goes on beyond the axis." * is_cut
    return (
        f"Bar: 95 % {interval} of the paired differences{dots}. Grey band: differences within "
        f"±{results.margin:g} points count as none.{holm * (len(results.judged) > 1)}{cut}"
    )


def _scale(comparisons: Sequence[Comparison], margin: float) -> Scale:
    """An axis with all intervals on it, but for what is far beyond the usual."""
    spans = [
        (comparison.mean - half, comparison.mean + half)
        for comparison in comparisons
        if comparison.num_pairs and math.isfinite(comparison.mean)
        for half in [comparison.half_width if comparison.has_interval else 0.0]
    ]
    reaches = [max(abs(low), abs(high)) for low, high in spans]
    farthest = _FAR * max(margin, statistics.median_low(reaches) if reaches else 0.0)
    dots = [dot for comparison in comparisons for dot in comparison.differences.values()]
    ends = [end for span in spans for end in span] + dots
    ends = [min(max(end, -farthest), farthest) for end in ends]
    return linear([*ends, -1.4 * margin, 1.4 * margin])


def _row(result: ArmResult, comparison: Comparison, scale: Scale, has_dots: bool) -> ForestRow:
    name, verdict = result.arm.name, comparison.verdict
    said = "control" if verdict is None else str(verdict)
    tone = "control" if verdict is None else _TONES.get(verdict, "open")
    mark = "" if verdict is None else MARKS[verdict]
    if comparison.num_pairs == 0 or not math.isfinite(comparison.mean):
        title = f"{name}: no pair of runs, {said}"
        return ForestRow(name, tone, mark, said, "no pairs", "", None, (), "", title)
    half = comparison.half_width if comparison.has_interval else math.nan
    value = number(comparison.mean, 2, sign=True)
    value += "" if math.isnan(half) else f" ± {number(half, 2)}"
    ends = (
        [comparison.mean] if math.isnan(half) else [comparison.mean - half, comparison.mean + half]
    )
    beyond = " ".join(
        side
        for side, is_beyond in (("low", min(ends) < scale.low), ("high", max(ends) > scale.high))
        if is_beyond
    )
    return ForestRow(
        name=name,
        tone=tone,
        mark=mark,
        verdict=said,
        value=value,
        line=_interval(scale, *ends) if len(ends) == 2 else "",
        mean=_unit(scale, comparison.mean) if scale.low <= comparison.mean <= scale.high else None,
        dots=_dots(scale, comparison) if has_dots else (),
        beyond=beyond,
        title=f"{name}: {value} points, {said}",
    )


def _interval(scale: Scale, low: float, high: float) -> str:
    """A line with a cap at either end that is on the axis."""
    left, right = _unit(scale, max(low, scale.low)), _unit(scale, min(high, scale.high))
    caps = f"M{left} 6V16" * (low >= scale.low) + f"M{right} 6V16" * (high <= scale.high)
    return f"M{left} 11H{right}{caps}" if low <= scale.high and high >= scale.low else ""


def _dots(scale: Scale, comparison: Comparison) -> list[tuple[str, str]]:
    return [
        (_unit(scale, difference), f"seed {seed}: {number(difference, 2, sign=True)}")
        for seed, difference in comparison.differences.items()
        if scale.low <= difference <= scale.high
    ]


def _place(scale: Scale, value: float) -> float:
    return WIDTH * scale.place(value)


def _unit(scale: Scale, value: float) -> str:
    return f"{_place(scale, value):.0f}"
