"""Verdicts from pairs with known answers."""

import math

import numpy as np
import pytest

from softmax_gradient_tampering.studies.analysis.verdict import Comparison, Verdict, compare, judge


def comparison(*differences: float, is_sequential: bool = False) -> Comparison:
    treated = {seed: 90 + difference for seed, difference in enumerate(differences)}
    return compare(treated, dict.fromkeys(treated, 90.0), is_sequential=is_sequential)


def noisy(mean: float, sd: float, number: int, seed: int = 0) -> list[float]:
    """Differences with exactly this mean and standard deviation."""
    values = np.random.default_rng(seed).normal(size=number)
    values = (values - values.mean()) / values.std(ddof=1)
    return (mean + sd * values).tolist()


def verdict(*differences: float, margin: float = 0.5) -> Verdict | None:
    return judge({"arm": comparison(*differences)}, margin)["arm"].verdict


def test_the_four_verdicts() -> None:
    assert verdict(*noisy(1.0, 0.5, 10)) is Verdict.HELPS
    assert verdict(*noisy(-1.0, 0.5, 10)) is Verdict.HURTS
    assert verdict(*noisy(0.05, 0.4, 10)) is Verdict.NO_DIFFERENCE
    assert verdict(*noisy(0.3, 1.0, 10)) is Verdict.INCONCLUSIVE


def test_the_margin_decides_what_counts_as_none() -> None:
    differences = noisy(0.05, 0.4, 10)  # interval -0.24 to 0.34
    assert verdict(*differences, margin=0.35) is Verdict.NO_DIFFERENCE
    assert verdict(*differences, margin=0.33) is Verdict.INCONCLUSIVE


def test_a_small_effect_that_is_sure_helps() -> None:
    assert verdict(*noisy(0.1, 0.05, 10)) is Verdict.HELPS


def test_holms_correction_takes_a_verdict_back() -> None:
    weak = comparison(*noisy(1.0, 1.3, 10))
    assert 0.025 < weak.p_t < 0.05
    assert judge({"weak": weak}, 0.5)["weak"].verdict is Verdict.HELPS
    family = {"weak": weak, "none": comparison(*noisy(0, 1, 10))}
    judged = judge(family, 0.5)
    assert judged["weak"].verdict is Verdict.INCONCLUSIVE
    assert judged["weak"].p_holm == pytest.approx(2 * weak.p_t)


@pytest.mark.parametrize("num_arms", [1, 3])
def test_an_open_comparison_needs_more_seeds_than_it_has(num_arms: int) -> None:
    for seed in range(20):
        differences = np.random.default_rng(seed).normal(0.4, 1, 8).tolist()
        family = {str(n): comparison(*(d - n for d in differences)) for n in range(num_arms)}
        for judged in judge(family, 0.5).values():
            is_open = judged.verdict is Verdict.INCONCLUSIVE
            assert (judged.seeds is not None) == is_open
            assert judged.seeds is None or judged.seeds > judged.num_pairs


def test_one_pair_says_nothing() -> None:
    judged = judge({"arm": comparison(5.0)}, 0.5)["arm"]
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert math.isnan(judged.half_width)
    assert math.isnan(judged.p_t)
    assert judged.seeds is None


def test_equal_differences_do_not_feign_certainty() -> None:
    assert verdict(1.0, 1.0) is Verdict.INCONCLUSIVE  # the t interval has no width
    assert verdict(*[1.0] * 5) is Verdict.INCONCLUSIVE
    assert verdict(*[1.0] * 6) is Verdict.HELPS  # sign flips: 2^-5
    assert verdict(*[-1.0] * 6) is Verdict.HURTS
    assert verdict(*[0.0] * 5) is Verdict.INCONCLUSIVE
    assert verdict(*[0.0] * 6) is Verdict.NO_DIFFERENCE
    assert judge({"arm": comparison(1.0, 1.0)}, 0.5)["arm"].seeds == 6


def test_seeds_that_one_arm_lacks_are_passed_over() -> None:
    found = compare({0: 1.0, 2: 5.0, 3: 7.0}, {0: 0.0, 1: 9.0, 3: 5.0})
    assert found.differences == {0: 1.0, 3: 2.0}
    assert found.num_pairs == 2
    assert found.num_left_out == 0


def test_a_paired_difference_takes_out_what_the_pairs_share() -> None:
    control = {0: 10.0, 1: 20.0, 2: 30.0}
    found = compare({0: 11.0, 1: 21.0, 2: 31.5}, control)
    assert found.mean == pytest.approx(3.5 / 3)
    assert found.half_width < 1 < found.interval.low + found.half_width


def test_pairs_that_are_not_finite_are_counted_and_left_out() -> None:
    found = compare({0: math.inf, 1: 2.0, 2: 3.0}, {0: 0.0, 1: 1.0, 2: math.nan})
    assert found.differences == {1: 1.0}
    assert found.num_left_out == 2


def test_no_common_seed_is_inconclusive() -> None:
    judged = judge({"arm": compare({0: 1.0}, {1: 1.0})}, 0.5)["arm"]
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert judged.num_pairs == 0
    assert math.isnan(judged.p_permutation)


def test_a_margin_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="above 0"):
        judge({}, 0.0)


def test_a_sequence_judges_by_its_e_value_alone() -> None:
    five = comparison(*noisy(2.0, 0.5, 5), is_sequential=True)
    assert five.p_permutation > 0.05
    assert math.isnan(five.p_t)
    (judged,) = judge({"arm": five}, 0.5).values()
    assert judged.verdict is Verdict.HELPS
    assert judged.p_holm == five.p_anytime == pytest.approx(math.exp(-five.log_e))
    assert judged.is_settled
    assert judge({"arm": comparison(*noisy(2.0, 0.5, 5))}, 0.5)["arm"].verdict is (
        Verdict.SUGGESTS_GAIN
    )


def test_a_sequence_excludes_0_where_its_e_value_is_20() -> None:
    for seed in range(30):
        differences = np.random.default_rng(seed).normal(0.7, 1, 12).tolist()
        found = comparison(*differences, is_sequential=True)
        assert (found.p_claim < 0.05) == (abs(found.mean) > found.half_width)
        assert found.half_width > comparison(*differences).half_width
        assert found.half_width_at(0.95) == found.half_width


def test_holms_correction_is_over_the_e_values() -> None:
    weak = comparison(*noisy(1.28, 1.0, 10), is_sequential=True)
    assert 0.025 < weak.p_anytime < 0.05
    family = {"weak": weak, "none": comparison(*noisy(0, 1, 10), is_sequential=True)}
    judged = judge(family, 0.5)
    assert judged["weak"].verdict is Verdict.INCONCLUSIVE
    assert judged["weak"].p_holm == pytest.approx(2 * weak.p_anytime)
    assert not judged["weak"].is_settled
    strong = comparison(*noisy(5.0, 1.0, 10), is_sequential=True)
    assert judge({"weak": weak, "strong": strong}, 0.5)["weak"].verdict is Verdict.HELPS


def test_a_sequence_without_spread_needs_six_pairs() -> None:
    for number, expected in ((5, Verdict.INCONCLUSIVE), (6, Verdict.HELPS)):
        found = comparison(*[1.0] * number, is_sequential=True)
        assert judge({"arm": found}, 0.5)["arm"].verdict is expected
        assert found.p_claim == 2.0 ** (1 - number)
    for number, expected in ((5, Verdict.INCONCLUSIVE), (6, Verdict.NO_DIFFERENCE)):
        found = comparison(*[0.0] * number, is_sequential=True)
        assert found.log_e == 0.0
        (judged,) = judge({"arm": found}, 0.5).values()
        assert judged.verdict is expected
        assert judged.is_settled == (expected is Verdict.NO_DIFFERENCE)


def test_a_sequence_of_few_pairs_has_no_interval() -> None:
    for number in range(5):
        found = comparison(*noisy(2.0, 0.5, 4)[:number], is_sequential=True)
        (judged,) = judge({"arm": found}, 0.5).values()
        assert judged.verdict is Verdict.INCONCLUSIVE
        assert not judged.is_settled
        assert not found.has_interval
        assert math.isnan(found.p_claim) == (number == 0)


def test_an_open_sequence_needs_more_seeds_than_it_has() -> None:
    for seed in range(20):
        differences = np.random.default_rng(seed).normal(0.3, 1, 8).tolist()
        (judged,) = judge({"arm": comparison(*differences, is_sequential=True)}, 0.5).values()
        is_open = judged.verdict is Verdict.INCONCLUSIVE
        assert is_open == (not judged.is_settled)
        assert (judged.seeds is not None) == is_open
        assert judged.seeds is None or judged.seeds > judged.num_pairs
