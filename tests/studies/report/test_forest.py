"""The forest plot: every arm against its reference, where its interval stands, what is cut off."""

import re

from softmax_gradient_tampering.studies.plan.plan import Arm
from softmax_gradient_tampering.studies.report.figures.forest import WIDTH, Forest, forest
from tests.studies.report.test_wording import BASELINE, HALF, QUARTER, TUNED, results

SAME = Arm("equivalent-0.25", "equivalent", 0.25, follows="alpha-0.25")


def plot_of(*args: object, **keywords: object) -> Forest:
    """The plot against the baseline."""
    found = results(*args, **keywords)  # type: ignore[arg-type]
    plot = forest(found, found.baseline, "differences")
    assert plot is not None
    return plot


def at(plot: Forest, points: float) -> float:
    """Where a difference stands, by the places of no difference and of the margin's start."""
    zero, start = float(plot.zero), float(plot.band[0])
    return zero + points / 0.5 * (zero - start)


def test_controls_stand_among_the_arms_and_the_reference_does_not() -> None:
    plot = plot_of({BASELINE: 0, HALF: 0, QUARTER: 1, SAME: 1, TUNED: -1})
    tones = {row.name: row.tone for row in plot.rows}
    assert tones == {
        "alpha-0.5": "open",
        "alpha-0.25": "gain",
        "equivalent-0.25": "control",
        "tuned": "control",
    }
    assert "less that of baseline" in plot.title
    assert [row.verdict for row in plot.rows] == ["no difference", "helps", "control", "control"]


def test_a_row_stands_where_its_numbers_are() -> None:
    found = results({BASELINE: 0, HALF: -1, QUARTER: 1})
    plot = forest(found, found.baseline, "differences")
    assert plot is not None
    assert float(plot.band[1]) == 2 * (float(plot.zero) - float(plot.band[0]))
    for row in plot.rows:
        comparison = found.arms[row.name].comparison(found.baseline)
        assert comparison is not None
        assert row.mean is not None
        assert abs(float(row.mean) - at(plot, comparison.mean)) < 4
        low, high = map(float, re.findall(r"^M(\d+) 11H(\d+)", row.line)[0])
        assert abs(low - at(plot, comparison.mean - comparison.half_width)) < 4
        assert abs(high - at(plot, comparison.mean + comparison.half_width)) < 4
        dots = [float(place) for place, _ in row.dots]
        expected = [at(plot, value) for value in comparison.differences.values()]
        assert max(abs(a - b) for a, b in zip(dots, expected, strict=True)) < 4
        assert all(0 <= place <= WIDTH for place in (*dots, low, high))


def test_an_arm_far_away_leaves_room_for_the_others() -> None:
    plot = plot_of({BASELINE: 0, HALF: 0.6, QUARTER: -60})
    half, quarter = plot.rows
    assert (half.beyond, quarter.beyond) == ("", "low")
    assert quarter.mean is None
    assert quarter.line == ""
    assert quarter.value.startswith("−60.00 ± ")
    assert "An arrow" in plot.caption
    assert float(plot.band[1]) > WIDTH / 12


def test_an_interval_that_is_cut_has_one_cap() -> None:
    effects = {BASELINE: 0, HALF: 0, QUARTER: 0}
    plot = plot_of(effects, own_seeds={QUARTER: 2}, num_seeds=40, spread=1.2)
    half, quarter = plot.rows
    assert (half.beyond, half.line.count("6V16")) == ("", 2)
    assert quarter.beyond in ("low", "high", "low high")
    assert quarter.line.count("6V16") == 2 - len(quarter.beyond.split())


def test_one_seed_has_a_mean_and_no_interval() -> None:
    (row,) = plot_of({BASELINE: 0, QUARTER: 0.4}, num_seeds=1).rows
    assert row.mean is not None
    assert (row.line, row.verdict, row.mark) == ("", "inconclusive", "?")
    assert "±" not in row.value


def test_an_arm_of_which_all_runs_diverged_has_a_row() -> None:
    plot = plot_of({BASELINE: 0, HALF: 0, QUARTER: 0}, diverged={QUARTER: 10})
    row = next(row for row in plot.rows if row.name == "alpha-0.25")
    assert (row.mean, row.line, row.dots, row.value) == (None, "", (), "no pairs")
    assert (row.verdict, row.tone) == ("diverges", "harm")


def test_of_very_many_seeds_the_dots_are_left_out() -> None:
    few = plot_of({BASELINE: 0, QUARTER: 1}, num_seeds=30)
    many = plot_of({BASELINE: 0, HALF: 1, QUARTER: 1}, num_seeds=301)
    assert len(few.rows[0].dots) == 30
    assert "each dot a seed" in few.caption
    assert [row.dots for row in many.rows] == [(), ()]
    assert "each dot" not in many.caption


def test_there_is_no_plot_of_nothing() -> None:
    alone = results({BASELINE: 0})
    assert forest(alone, alone.baseline, "differences") is None
    assert forest(alone, alone.tuned, "differences") is None
