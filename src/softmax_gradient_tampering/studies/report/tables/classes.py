"""The table of the classes: the recall of each, and how many samples of it there are."""

from collections.abc import Sequence
from dataclasses import replace

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.plan.plan import RECALL
from softmax_gradient_tampering.studies.report.figures.arm_styles import shown_arms
from softmax_gradient_tampering.studies.report.tables.measurements import mean_cell
from softmax_gradient_tampering.studies.report.tables.table import (
    Column,
    Row,
    Table,
    numeric,
)
from softmax_gradient_tampering.studies.report.wording import number
from softmax_gradient_tampering.training.measure.classes import ClassCounts

MAX_CLASSES = 20  # whose recall is on the page
MAX_ARMS = 4  # of a table


def class_tables(results: Results) -> list[Table]:
    """The recalls of the classes, some arms a table; none of too many classes, or of none."""
    counts = class_counts(results)
    if counts is None or results.study.kind != "study":
        return []
    if not any(key.startswith(RECALL) for key in results.keys) or len(counts.names) > MAX_CLASSES:
        return []
    arms = shown_arms(results)
    left_out = sum(bool(result.runs) for result in results.arms.values()) - len(arms)
    parts = [arms[start:][:MAX_ARMS] for start in range(0, len(arms), MAX_ARMS)]
    tables = [_table(number, part, counts) for number, part in enumerate(parts, start=1)]
    if left_out:
        more = f"{tables[0].caption} {left_out} further arms are in the CSV files."
        tables[0] = replace(tables[0], caption=more)
    return tables


def class_counts(results: Results) -> ClassCounts | None:
    """Those of a run that has recorded them: all runs have the same test set."""
    runs = (run for result in results.arms.values() for run in result.runs.values())
    return next((run.classes for run in runs if run.classes is not None), None)


def _table(place: int, arms: Sequence[ArmResult], counts: ClassCounts) -> Table:
    total = sum(counts.samples)
    rows = [
        Row(
            name,
            [
                numeric(f"{samples} ({number(100 * samples / total, 1)} %)"),
                *(mean_cell(result, f"{RECALL}{name}") for result in arms),
            ],
        )
        for name, samples in zip(counts.names, counts.samples, strict=True)
    ]
    caption = "Recall of each class (%), after the last epoch: mean ± half the 95 % interval."
    columns = [Column("class", is_number=False), Column("test samples")]
    columns += [Column(result.arm.name) for result in arms]
    return Table(f"classes-{place}", caption, columns, rows)
