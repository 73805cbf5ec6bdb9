"""What the page says of classes: the largest one's share, and the recall of each."""

from pathlib import Path

import numpy as np

from softmax_gradient_tampering.studies.analysis.comparison import Results, compare_arms
from softmax_gradient_tampering.studies.plan.plan import Cell, State
from softmax_gradient_tampering.studies.report.tables.classes import class_tables
from softmax_gradient_tampering.studies.report.wording import majority_sentence
from softmax_gradient_tampering.studies.results.recorded_run import RecordedRun
from softmax_gradient_tampering.studies.results.study import Study, StudyCell
from softmax_gradient_tampering.training.measure.classes import ClassCounts
from tests.studies.report.test_wording import BASELINE, HALF

SAMPLES = (8000, 1600, 400)


def study_of(recalls: dict[str, tuple[int, int, int]]) -> Results:
    """Two arms of two seeds with so many right answers in each class of 10,000 images."""
    cells = []
    for arm, right in recalls.items():
        counts = ClassCounts(("cat", "frog", "ship"), SAMPLES, SAMPLES, right)
        curves = {"epoch": np.array([1.0]), "eval_top1": np.array([counts.accuracy])}
        for seed in range(2):
            run = RecordedRun(Path("nowhere"), curves, classes=counts)
            cell = Cell(f"{arm}-{seed}", arm, seed)
            cells.append(StudyCell(cell, State.FINISHED, run=run))
    return compare_arms(
        Study(Path("nowhere"), "study", "known", (), (BASELINE, HALF), tuple(cells))
    )


def test_arms_that_are_hardly_better_than_the_largest_class_are_named() -> None:
    found = study_of({"baseline": (8000, 0, 0), "alpha-0.5": (7800, 1400, 300)})
    assert majority_sentence(found) == (
        "80 % of the test samples are of class cat: baseline is not clearly more accurate than "
        "always answering cat. Look at the balanced accuracy and at the recall of each class."
    )


def test_nothing_is_said_where_all_arms_are_better() -> None:
    assert majority_sentence(study_of({"baseline": (7800, 1400, 300)})) == ""
    assert majority_sentence(study_of({})) == ""


def test_every_class_has_a_row_with_its_samples_and_the_arms_recalls() -> None:
    found = study_of({"baseline": (8000, 0, 0), "alpha-0.5": (7800, 1400, 300)})
    (table,) = class_tables(found)
    assert [column.label for column in table.columns] == [
        *("class", "test samples"),
        *("baseline", "alpha-0.5"),
    ]
    rows = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    assert rows["cat"] == ["8000 (80.0 %)", "100.00 ± 0.00", "97.50 ± 0.00"]
    assert rows["ship"] == ["400 (4.0 %)", "0.00 ± 0.00", "75.00 ± 0.00"]
    assert table.rows[1].cells[2].source == "arms|alpha-0.5|recall:frog|mean"
