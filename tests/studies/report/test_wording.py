"""The first sentence of a report, from accuracies with known answers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from softmax_gradient_tampering.studies.analysis.comparison import Results, compare_arms
from softmax_gradient_tampering.studies.analysis.verdict import Verdict
from softmax_gradient_tampering.studies.plan.plan import Arm, Cell, State
from softmax_gradient_tampering.studies.report.verdict_sentence import verdict_sentence
from softmax_gradient_tampering.studies.report.wording import (
    arm_sentence,
    completeness_sentence,
)
from softmax_gradient_tampering.studies.results.recorded_run import RecordedRun
from softmax_gradient_tampering.studies.results.study import Study, StudyCell

BASELINE, HALF = Arm("baseline", "baseline"), Arm("alpha-0.5", "tampered", 0.5)
QUARTER, TUNED = Arm("alpha-0.25", "tampered", 0.25), Arm("tuned", "tuned")
NUM_SEEDS = 10


def results(
    effects: Mapping[Arm, float],
    spread: float = 0.2,
    num_seeds: int = NUM_SEEDS,
    diverged: Mapping[Arm, int] = {},
    is_sequential: bool = False,
    own_seeds: Mapping[Arm, int] = {},
) -> Results:
    """A study in which an arm's accuracy is a seed's, its effect, and noise of its own.

    Of the runs of an arm that diverge, every other one is finished, with a loss that is nan.
    """
    cells = []
    for number, (arm, effect) in enumerate(effects.items()):
        noise = np.random.default_rng(number).normal(size=max(num_seeds, 2))
        noise = (noise - noise.mean()) / noise.std(ddof=1)
        for seed in range(own_seeds.get(arm, num_seeds)):
            accuracy = 90 + seed + effect + (spread * noise[seed] if number else 0)
            curves = {"epoch": np.array([1.0]), "eval_top1": np.array([accuracy])}
            cell = Cell(f"{number}-{seed}", arm.name, seed)
            if seed < diverged.get(arm, 0):
                curves |= {"train_loss": np.array([np.inf]), "eval_top1": np.array([10.0])}
            run = RecordedRun(Path("nowhere"), curves)
            if seed < diverged.get(arm, 0) and seed % 2:
                cells.append(StudyCell(cell, State.DIVERGED))
            else:
                cells.append(StudyCell(cell, State.FINISHED, run=run))
    arms = tuple(effects)
    study = Study(Path("nowhere"), "study", "known", (), arms, tuple(cells))
    return compare_arms(replace(study, is_sequential=is_sequential))


def test_a_gain_that_was_not_held_against_a_tuned_baseline() -> None:
    assert verdict_sentence(results({BASELINE: 0, HALF: 0, QUARTER: 1})) == (
        "Tampering helps against the baseline as configured: alpha-0.25 with +1.00 points of "
        "test accuracy (95 % interval for the largest of 2 arms +0.83 to +1.17, 10 seeds); "
        "whether tuning the baseline gains as much was not tried."
    )


def test_harm_at_another_setting_is_said_with_a_gain() -> None:
    sentence = verdict_sentence(results({BASELINE: 0, HALF: 1, QUARTER: -8}))
    assert sentence.startswith("Tampering helps against the baseline as configured: alpha-0.5")
    assert sentence.endswith(" Not at every setting: hurts at alpha-0.25.")


def test_a_claim_on_two_seeds_is_said_with_its_doubt() -> None:
    for effect, verdict in ((5, "helps"), (-5, "hurts")):
        sentence = verdict_sentence(results({BASELINE: 0, QUARTER: effect}, num_seeds=2))
        assert sentence.startswith(
            f"The results suggest, and do not show, that tampering {verdict}"
        )
        assert "too few seeds for the permutation test to bear it out" in sentence


def test_an_arm_without_pairs_does_not_hide_the_others() -> None:
    found = results({BASELINE: 0, HALF: 0.1, QUARTER: 0.2}, spread=2)
    cells = [
        replace(record, cell=replace(record.cell, seed=record.cell.seed + 100))
        if record.cell.arm == HALF.name
        else record
        for record in found.study.cells
    ]
    sentence = verdict_sentence(compare_arms(replace(found.study, cells=tuple(cells))))
    assert sentence.startswith("Inconclusive: alpha-0.25 with +0.20 points")


def test_a_tuned_baseline_that_failed_was_tried() -> None:
    found = results({BASELINE: 0, QUARTER: 1, TUNED: 1})
    cells = tuple(
        replace(record, state=State.FAILED, run=None) if record.cell.arm == TUNED.name else record
        for record in found.study.cells
    )
    sentence = verdict_sentence(compare_arms(replace(found.study, cells=cells)))
    assert "is not known, as no run of the tuned baseline can be compared" in sentence


def test_a_gain_that_the_tuned_baseline_has_too() -> None:
    sentence = verdict_sentence(results({BASELINE: 0, QUARTER: 1, TUNED: 1}))
    assert "helps against the baseline as configured" in sentence
    assert "but against the tuned baseline there is no difference larger than 0.5" in sentence


def test_gains_against_the_tuned_baseline() -> None:
    both = verdict_sentence(results({BASELINE: 0, QUARTER: 2, TUNED: 1}))
    assert "and against the tuned baseline as well: +1.0" in both
    worse = verdict_sentence(results({BASELINE: 0, QUARTER: 1, TUNED: 2}))
    assert "but the tuned baseline is better: −1.0" in worse
    unclear = verdict_sentence(results({BASELINE: 0, QUARTER: 3, TUNED: 2.7}, spread=0.8))
    assert "but against the tuned baseline it is inconclusive" in unclear


def test_a_gain_below_the_margin_is_called_that() -> None:
    sentence = verdict_sentence(results({BASELINE: 0, QUARTER: 0.3}))
    assert "less than the margin of 0.5 points" in sentence


def test_harm_everywhere_and_somewhere() -> None:
    assert verdict_sentence(results({BASELINE: 0, HALF: -1, QUARTER: -2})).startswith(
        "Tampering hurts in every arm tried: the most alpha-0.25 with −2.00 points"
    )
    assert verdict_sentence(results({BASELINE: 0, HALF: 0, QUARTER: -2})).endswith(
        "; no difference larger than 0.5 points for alpha-0.5."
    )


def test_no_difference_names_the_largest() -> None:
    assert verdict_sentence(results({BASELINE: 0, HALF: 0.05, QUARTER: -0.1})).startswith(
        "Tampering makes no difference larger than 0.5 points here; the largest of 2 is alpha-0.25"
    )


def test_an_open_question_says_how_many_seeds_would_settle_it() -> None:
    found = results({BASELINE: 0, HALF: 0.2, QUARTER: 0.5}, spread=1)
    sentence = verdict_sentence(found)
    assert sentence.startswith("Inconclusive: alpha-0.25 with +0.50 points")
    comparison = found.arms["alpha-0.25"].comparison(found.baseline)
    assert comparison is not None
    assert f"about {comparison.seeds} seeds would settle it" in sentence


def test_one_seed_is_inconclusive() -> None:
    sentence = verdict_sentence(results({BASELINE: 0, QUARTER: 5}, num_seeds=1))
    assert sentence.startswith("Inconclusive: alpha-0.25 with +4.86 points")
    assert sentence.endswith(
        "(1 seed); one seed has no interval; it takes several to say anything."
    )


def test_controls_are_compared_and_not_judged() -> None:
    same = Arm("e", "equivalent", 0.25, follows="alpha-0.25")
    found = results({BASELINE: 0, QUARTER: 1, TUNED: 1, same: 1})
    for name in ("tuned", "e"):
        comparison = found.arms[name].comparison(found.baseline)
        assert comparison is not None
        assert comparison.verdict is None
    judged = found.arms["alpha-0.25"].comparison(found.baseline)
    assert judged is not None
    assert judged.p_holm == judged.p_t  # a family of one: controls do not dilute it


def test_an_arms_sentence() -> None:
    found = results({BASELINE: 0, HALF: 0.0, QUARTER: 1})
    half = found.arms["alpha-0.5"].comparison(found.baseline)
    assert half is not None
    assert half.verdict is Verdict.NO_DIFFERENCE
    assert arm_sentence(half, 0.5) == (
        "no difference larger than 0.5 points: +0.00 points (95 % interval −0.14 to +0.14, "
        "10 seeds)"
    )


def test_a_verdict_that_the_permutation_test_does_not_bear_out_says_so() -> None:
    few = results({BASELINE: 0, QUARTER: 2}, num_seeds=5)
    comparison = few.arms["alpha-0.25"].comparison(few.baseline)
    assert comparison is not None
    assert arm_sentence(comparison, 0.5).endswith(
        "; too few seeds for the permutation test to bear it out"
    )
    agreeing = results({BASELINE: 0, QUARTER: 2}).arms["alpha-0.25"].against["baseline"]
    assert "permutation" not in arm_sentence(agreeing["eval_top1"], 0.5)
    doubtful = replace(agreeing["eval_top1"], p_permutation=0.0781)
    assert arm_sentence(doubtful, 0.5).endswith(
        "; the permutation test does not bear it out, p = 0.078"
    )


def test_a_report_of_an_unfinished_study_says_so() -> None:
    study = results({BASELINE: 0, QUARTER: 1}, num_seeds=2).study
    missing = StudyCell(Cell("x", "alpha-0.25", 2), State.FAILED)
    cells = (*study.cells, missing)
    incomplete = Study(study.path, "study", "known", (), study.arms, cells)
    assert completeness_sentence(study) == "All 4 runs are finished."
    assert completeness_sentence(incomplete).startswith("4 of 5 runs are finished")
    assert "1 failed" in completeness_sentence(incomplete)
