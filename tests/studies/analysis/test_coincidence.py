"""Whether an equivalent training coincides with the tampered one."""

from dataclasses import replace

from softmax_gradient_tampering.studies.analysis.coincidence import (
    Coincidence,
    coincidence,
)
from softmax_gradient_tampering.studies.analysis.comparison import Results, compare_arms
from softmax_gradient_tampering.studies.plan.plan import Arm
from softmax_gradient_tampering.studies.report.verdict_sentence import verdict_sentence
from softmax_gradient_tampering.studies.report.wording import agreement_sentence
from softmax_gradient_tampering.studies.results.predictions import Agreement
from tests.studies.report.test_wording import BASELINE, results

TENTH, QUARTER = Arm("alpha-0.1", "tampered", 0.1), Arm("alpha-0.25", "tampered", 0.25)
OF_TENTH = Arm("equivalent-0.1", "equivalent", 0.1, follows="alpha-0.1")
OF_QUARTER = Arm("equivalent-0.25", "equivalent", 0.25, follows="alpha-0.25")


def with_agreement(found: Results, name: str, num_same: int) -> Results:
    """The results of a study in which so many of 100 predictions were the same, at every seed."""
    agreement = Agreement(num_samples=100, num_same=num_same, deviation=0.1, scale=9.0)
    return compare_arms(replace(found.study, agreements={name: {0: agreement, 1: agreement}}))


def test_equal_predictions_are_the_same() -> None:
    found = with_agreement(results({BASELINE: 0, QUARTER: 1, OF_QUARTER: 1}), OF_QUARTER.name, 100)
    assert coincidence(found, found.arms[OF_QUARTER.name]) is Coincidence.SAME
    sentence = agreement_sentence(found, OF_QUARTER.name)
    assert sentence is not None
    assert sentence.endswith("where alpha z goes up to 9")


def test_rounding_sets_runs_apart_where_alpha_is_no_power_of_two() -> None:
    found = with_agreement(results({BASELINE: 0, TENTH: 1, OF_TENTH: 1}), OF_TENTH.name, 99)
    assert coincidence(found, found.arms[OF_TENTH.name]) is Coincidence.APART
    sentence = agreement_sentence(found, OF_TENTH.name)
    assert sentence is not None
    assert "alpha 0.1 is no power of two, so that rounding sets the two apart" in sentence
    assert "wrong" not in sentence


def test_other_predictions_at_a_power_of_two_are_the_devices() -> None:
    found = with_agreement(results({BASELINE: 0, QUARTER: 1, OF_QUARTER: 1}), OF_QUARTER.name, 99)
    sentence = agreement_sentence(found, OF_QUARTER.name)
    assert sentence is not None
    assert "a device that does not add in a fixed order would explain it" in sentence


def test_accuracies_that_differ_at_every_seed_are_wrong() -> None:
    found = with_agreement(results({BASELINE: 0, TENTH: 1, OF_TENTH: 0}), OF_TENTH.name, 90)
    assert coincidence(found, found.arms[OF_TENTH.name]) is Coincidence.WRONG
    sentence = agreement_sentence(found, OF_TENTH.name)
    assert sentence is not None
    assert sentence.endswith("by more than rounding explains: something is wrong")
    ending = "ordinary training that must coincide, has +0.00 points: something is wrong."
    assert verdict_sentence(found).endswith(f"equivalent-0.1, {ending}")


def test_accuracies_that_differ_as_those_of_seeds_do_are_not_called_wrong() -> None:
    found = results({BASELINE: 0, TENTH: 3, OF_TENTH: 2.2}, spread=2.2)
    assert coincidence(found, found.arms[OF_TENTH.name]) is Coincidence.APART
    sentence = verdict_sentence(found)
    assert sentence.startswith("Tampering helps")
    assert "equivalent-0.1, which it equals but for rounding, has +2.20 points" in sentence
    assert "wrong" not in sentence


def test_nothing_is_said_without_a_pair_or_an_arm_to_follow() -> None:
    alone = results({BASELINE: 0, OF_TENTH: 1})
    assert coincidence(alone, alone.arms[OF_TENTH.name]) is None
    nothing = results({BASELINE: 0, TENTH: 1, OF_TENTH: 1}, own_seeds={OF_TENTH: 0})
    assert coincidence(nothing, nothing.arms[OF_TENTH.name]) is None
    one = results({BASELINE: 0, TENTH: 1, OF_TENTH: 0}, num_seeds=1)
    assert coincidence(one, one.arms[OF_TENTH.name]) is Coincidence.APART
