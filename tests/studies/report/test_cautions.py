"""What stands beside a verdict: that accuracies are the largest class's, that the set is small."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from softmax_gradient_tampering.studies.analysis.comparison import compare_arms
from softmax_gradient_tampering.studies.report.printed import report_json, report_text
from softmax_gradient_tampering.studies.report.report import write_report
from softmax_gradient_tampering.studies.report.wording import caution_sentences
from softmax_gradient_tampering.studies.results.collect import collect_tables
from tests.studies.synthetic import BASELINE, FakeArm, Size, write_study

# 80, 16 and 4 %, of which both arms answer the first alone.
UNEVEN = Size(num_epochs=2, class_samples=(80, 16, 4), class_names=("cat", "frog", "ship"))
BOTH = (replace(BASELINE, answers=0), FakeArm("alpha-0.25", "tampered", 0.25, answers=0))
MAJORITY = (
    "80 % of the test samples are of class cat: no arm is clearly more accurate than always "
    "answering cat. "
)


def test_no_difference_between_arms_that_answer_the_largest_class_is_warned_of(
    tmp_path: Path,
) -> None:
    study = write_study(tmp_path / "study", BOTH, range(8), UNEVEN)
    text = " ".join(report_text(study).split())
    assert text.startswith("Tampering makes no difference larger than 0.5 points")
    assert f"Warning: {MAJORITY}Look at the balanced accuracy" in text
    (warning,) = report_json(study)["warnings"]
    assert warning.startswith(MAJORITY)
    report = write_report(study)
    assert f'<p class="warning">{MAJORITY}' in report.read_text()
    assert json.loads(report.with_suffix(".json").read_text())["warnings"] == [warning]


def test_it_is_warned_of_whatever_is_judged(tmp_path: Path) -> None:
    study = replace(
        collect_tables(write_study(tmp_path / "study", BOTH, range(3), UNEVEN)),
        metric="balanced-accuracy",
    )
    (warning,) = caution_sentences(compare_arms(study, only_metric=True))
    assert warning.startswith(f"{MAJORITY}The balanced accuracy, by which the arms are judged, ")


@pytest.mark.parametrize(("num_samples", "is_small"), [(60, True), (20_000, False)])
def test_a_test_set_that_says_less_than_the_seeds_is_named(
    tmp_path: Path, num_samples: int, is_small: bool
) -> None:
    """Of 60 samples a sample is 1.7 points; the seeds of these runs vary by a few tenths."""
    arms = (BASELINE, FakeArm("alpha-0.25", "tampered", 0.25, effect=4.0))
    study = write_study(tmp_path / "study", arms, range(4), Size(2, num_samples, 4))
    warnings = caution_sentences(compare_arms(collect_tables(study), only_metric=True))
    pattern = (
        r"The test set of 60 samples leaves more open than the seeds do: alpha-0\.25 "
        r"±(\d\.\d\d) points beside ±(\d\.\d\d)\. "
    )
    assert len(warnings) == is_small
    found = re.match(pattern, "".join(warnings))
    assert bool(found) == is_small
    if found:
        assert float(found[1]) > float(found[2])
    with write_report(study).with_name("report-differences.csv").open(newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if row["measurement"] == "eval_top1")
    assert (float(row["test_set_half_width"]) > float(row["high"]) - float(row["difference"])) == (
        is_small
    )
