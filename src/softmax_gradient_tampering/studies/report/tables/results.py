"""The tables of the result: the arms, what differs, and how the tuned baseline was chosen."""

import math
from collections.abc import Mapping

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.measurements import ACCURACY
from softmax_gradient_tampering.studies.analysis.verdict import Comparison
from softmax_gradient_tampering.studies.report.tables.measurements import mean_cell
from softmax_gradient_tampering.studies.report.tables.table import (
    Cell,
    Column,
    Row,
    Table,
    as_text,
    numeric,
    plus_minus,
)
from softmax_gradient_tampering.studies.report.wording import MARKS, number, p_value, sentence_case
from softmax_gradient_tampering.studies.results.run_files import as_number

_DIFFERENCE = (Column("points"), Column("verdict", is_number=False))
_NUM_TESTS = 4


def result_table(results: Results) -> Table:
    """The arms: their differences from the baseline first, then their accuracies."""
    other = results.baseline
    columns = [Column("arm", is_number=False)]
    groups = [("", 1)]
    if other is not None:
        columns += _DIFFERENCE
        groups.append(("difference", len(_DIFFERENCE)))
    if results.metric.key != ACCURACY:  # what is judged, before the accuracies
        columns.append(Column(f"{results.metric.label} (%)"))
        groups.append(("", 1))
    columns += map(Column, ("test (%)", "train (%)", "alpha", "seeds"))
    groups += [("accuracy", 2), ("", 2)]
    if other is not None:
        columns += _tests(results)
        groups.append(("p", _NUM_TESTS))
    rows = [_result_row(results, result) for result in results.arms.values()]
    return Table("results", _result_caption(results), columns, rows, groups)


def tuned_table(results: Results) -> Table | None:
    """The differences from the tuned baseline; None without one."""
    tuned = results.tuned
    if tuned is None:
        return None
    rows = []
    for name, result in results.arms.items():
        if result is not tuned and result.runs:
            rows.append(Row(name, _difference_cells(result, tuned) + _test_cells(result, tuned)))
    label = sentence_case(results.metric.label)
    caption = f"{label} less that of the tuned baseline, {tuned.arm.name}, paired by seed."
    columns = [Column("arm", is_number=False), *_DIFFERENCE, *_tests(results)]
    groups = [("", 1), ("difference", len(_DIFFERENCE)), ("p", _NUM_TESTS)]
    return Table("against-tuned", caption, columns, rows, groups)


def selection_table(results: Results) -> Table | None:
    """What the tuned baseline was selected from; None if nothing is recorded."""
    arm = next((r.arm for r in results.arms.values() if r.arm.kind == "tuned"), None)
    selection = arm.selection if arm is not None else None
    entries = selection.get("table") if selection is not None else None
    if not isinstance(entries, list) or selection is None:
        return None
    rows = []
    for entry in entries:
        if isinstance(entry, Mapping):
            is_chosen = entry.get("overrides") == selection.get("chosen")
            label = as_text(entry.get("overrides")) + " (chosen)" * is_chosen
            mean = entry.get("mean_metric", entry.get("mean_top1"))
            score = number(as_number(mean), 2)
            loss = number(as_number(entry.get("mean_loss")), 4)
            cells = [numeric(score), numeric(loss), numeric(as_text(entry.get("n")))]
            rows.append(Row(label, cells))
    metric = as_text(selection.get("metric", "top1")).replace(ACCURACY, "the accuracy")
    caption = (
        f"How the tuned baseline's settings were chosen: by the mean of {metric}; of two that are "
        "equal, by the lower mean loss."
    )
    columns = [Column("settings", is_number=False)]
    columns += map(Column, ("mean (%)", "loss (nats)", "runs"))
    return Table("selection", caption, columns, rows)


def _result_row(results: Results, result: ArmResult) -> Row:
    other = results.baseline
    middle = [mean_cell(result, result.metric)] if result.metric != ACCURACY else []
    middle += [
        mean_cell(result, ACCURACY),
        mean_cell(result, "train_acc"),
        _alpha(result),
        numeric(f"{len(result.runs)}/{result.num_planned}"),
    ]
    if other is None:
        return Row(result.arm.name, middle)
    cells = [*_difference_cells(result, other), *middle, *_test_cells(result, other)]
    return Row(result.arm.name, cells, "reference" if result is other else "")


def _result_caption(results: Results) -> str:
    other = results.baseline
    caption = "Accuracy after the last epoch: mean ± half the 95 % interval over seeds."
    if results.metric.key != ACCURACY:
        caption = f"What is judged is the {results.metric.label}, as it was planned. {caption}"
    if other is None:
        return caption
    caption += f" Differences are from {other.arm.name}, paired by seed."
    if any(_has_no_spread(result.comparison(other)) for result in results.arms.values()):
        caption += (
            f" Where all pairs differ by the same there is no {_first_test_name(results)} and no "
            "interval to trust; Holm's p is then of the permutation test."
        )
    if results.study.is_sequential:
        caption += (
            " The intervals of the differences are a confidence sequence's; those of the "
            "accuracies are Student's, which take the number of seeds as fixed."
        )
    return caption


def _tests(results: Results) -> list[Column]:
    return list(map(Column, ("Holm", _first_test_name(results), "sign", "permutation")))


def _first_test_name(results: Results) -> str:
    """The test that the verdicts rest on, in the table's words."""
    return "1 / E" if results.study.is_sequential else "t test"


def _source(result: ArmResult, other: ArmResult) -> str:
    return f"differences|{result.arm.name}|{other.arm.name}|{result.metric}"


def _difference_cells(result: ArmResult, other: ArmResult) -> list[Cell]:
    comparison = result.comparison(other)
    if result is other:
        return [Cell("the reference", "dim", span=len(_DIFFERENCE))]
    if comparison is None or comparison.num_pairs == 0:
        return [Cell("–", "num dim"), _verdict(comparison, "no pairs")]
    half_width = comparison.half_width if comparison.has_interval else math.nan
    source = f"{_source(result, other)}|difference"
    difference = plus_minus(comparison.mean, half_width, 2, source, sign=True)
    return [difference, _verdict(comparison, "control")]


def _test_cells(result: ArmResult, other: ArmResult) -> list[Cell]:
    comparison = result.comparison(other)
    if comparison is None or comparison.num_pairs == 0:
        return [Cell("", span=_NUM_TESTS)]
    source = _source(result, other)
    permutation = p_value(comparison.p_permutation) + ("" if comparison.is_exact else "*")
    return [
        numeric(p_value(comparison.p_holm), f"{source}|p_holm"),
        _first_test(comparison, source),
        numeric(p_value(comparison.p_sign), f"{source}|p_sign"),
        numeric(permutation, f"{source}|p_permutation"),
    ]


def _first_test(comparison: Comparison, source: str) -> Cell:
    """The p of the t test, or 1 / E of a sequence; a dash without any spread."""
    if comparison.sd == 0:
        return numeric("–")
    if comparison.is_sequential:
        return numeric(p_value(comparison.p_anytime), f"{source}|p_anytime")
    return numeric(p_value(comparison.p_t), f"{source}|p_t")


def _has_no_spread(comparison: Comparison | None) -> bool:
    return comparison is not None and comparison.num_pairs > 1 and comparison.sd == 0


def _verdict(comparison: Comparison | None, otherwise: str) -> Cell:
    """The verdict, or what stands in the place of one."""
    if comparison is None or comparison.verdict is None:
        return Cell(otherwise, "verdict dim")
    return Cell(comparison.verdict, "verdict", mark=MARKS[comparison.verdict])


def _alpha(result: ArmResult) -> Cell:
    arm = result.arm
    if arm.kind == "scheduled" and arm.alpha_end is not None:
        return numeric(f"{arm.alpha:g} → {arm.alpha_end:g}, {arm.alpha_schedule}")
    return numeric("1" if arm.kind == "equivalent" else f"{arm.alpha:g}")
