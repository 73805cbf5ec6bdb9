"""The tables of all measurements: an arm a row, so that a study of any size fits the page."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.measurements import (
    Measurement,
    measurement_of,
)
from softmax_gradient_tampering.studies.plan.plan import RECALL
from softmax_gradient_tampering.studies.report.tables.table import (
    Cell,
    Column,
    Row,
    Table,
    numeric,
    plus_minus,
)

MAX_RECALLS = 20  # classes whose recall is on the page
MAX_COLUMNS = 5  # of numbers with their intervals, on a printed page


def calibration_table(results: Results) -> Table | None:
    """Calibration of every arm at the three scales of the logits; None if not measured."""
    keys = [
        f"{name}_{scale}" for name in ("ece", "nll") for scale in ("plain", "alpha", "held_out")
    ]
    keys = [key for key in [*keys, "factor"] if key in results.keys]
    if len(keys) < 2:
        return None
    rows = [
        Row(name, [mean_cell(result, key) for key in keys])
        for name, result in results.arms.items()
        if result.runs
    ]
    labels = {"plain": "softmax(z)", "alpha": "softmax(αz)", "held_out": "softmax(sz)"}
    columns = [Column("arm", is_number=False)]
    columns += [Column(labels.get(key.partition("_")[2], "fitted")) for key in keys]
    groups = [("", 1)]
    for name, label in (("ece", "ECE, 15 bins (%)"), ("nll", "NLL (nats)"), ("factor", "s")):
        span = sum(key.startswith(name) for key in keys)
        groups += [(label, span)] if span else []
    caption = (
        "Calibration on the test set after the last epoch. z are the logits, α is the arm's alpha."
    )
    if "factor" in keys:
        caption += " s is fitted by NLL on each half of the test set, measured on the other half."
    return Table("calibration", caption, columns, rows, groups)


def measurement_tables(results: Results) -> list[Table]:
    """Every measurement of every arm, a table or more for each group; classes have their own."""
    if results.study.kind != "study":
        return [_single_table(results)]
    shown = (measurement_of(key) for key in results.keys if not key.startswith(RECALL))
    tables: list[Table] = []
    for group, measurements in groupby(shown, key=lambda measurement: measurement.group):
        for part in _parts(list(measurements)):
            tables.append(_measurement_table(results, group, part, len(tables)))
    return tables


def mean_cell(result: ArmResult, key: str) -> Cell:
    """The mean of a measurement of an arm, ± half its interval."""
    spread = result.spreads.get(key)
    if spread is None:
        return Cell("–", "num dim")
    if spread.num_values == 0:
        return numeric("not finite")
    mean, half = spread.interval
    note = f" (n={spread.num_values})" if spread.num_values < len(result.runs) else ""
    return plus_minus(
        mean, half, measurement_of(key).digits, f"arms|{result.arm.name}|{key}|mean", note
    )


def _measurement_table(
    results: Results, group: str, measurements: Sequence[Measurement], place: int
) -> Table:
    rows = [
        Row(name, [mean_cell(result, measurement.key) for measurement in measurements])
        for name, result in results.arms.items()
        if result.runs
    ]
    columns = [Column("arm", is_number=False), *(Column(_label(m)) for m in measurements)]
    caption = f"{group}."
    if place == 0:
        caption += (
            " Here and below after the last epoch: mean ± half the 95 % interval over seeds, and "
            "the number of seeds where not all have it."
        )
    return Table(f"measurements-{place + 1}", caption, columns, rows)


def _single_table(results: Results) -> Table:
    """All measurements of one run."""
    (result,) = results.arms.values()
    rows = [
        Row(_label(measurement_of(key)), [mean_cell(result, key)]) for key in _shown_keys(results)
    ]
    columns = [Column("measurement", is_number=False), Column("value")]
    return Table("measurements-1", "Every measurement after the last epoch.", columns, rows)


def _shown_keys(results: Results) -> list[str]:
    """All keys but, of many classes, the recall of each, which the files have."""
    num_recalls = sum(key.startswith(RECALL) for key in results.keys)
    is_short = num_recalls <= MAX_RECALLS
    return [key for key in results.keys if is_short or not key.startswith(RECALL)]


def _parts(measurements: list[Measurement]) -> Iterator[list[Measurement]]:
    """A group in parts of nearly the same length, none longer than a page is wide."""
    number = -(-len(measurements) // MAX_COLUMNS)
    size = -(-len(measurements) // number)
    for start in range(0, len(measurements), size):
        yield measurements[start : start + size]


def _label(measurement: Measurement) -> str:
    return f"{measurement.label} ({measurement.unit})" if measurement.unit else measurement.label
