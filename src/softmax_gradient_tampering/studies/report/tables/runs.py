"""The tables of the runs: those that are not finished, their settings, where they were trained."""

from collections.abc import Iterable, Mapping
from typing import Any

from softmax_gradient_tampering.studies.analysis.comparison import Results
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.report.tables.table import (
    Cell,
    Column,
    Row,
    Table,
    as_text,
    numeric,
)
from softmax_gradient_tampering.training.records.run_files import NOT_HASHED

MAX_CELL_ROWS = 60
MAX_SETTINGS = 6  # columns of one table
# Not a difference of the training, or one that every pair of runs has.
_NOT_COMPARED = {"seed", *NOT_HASHED}


def cell_table(results: Results) -> Table | None:
    """The cells that are not finished; None if all are."""
    records = [each for each in results.study.cells if each.state is not State.FINISHED]
    if not records:
        return None
    rows = [
        Row(
            each.cell.arm,
            [
                numeric(each.cell.seed),
                Cell(each.state),
                Cell(each.cell.id, "code"),
                Cell(each.reason or "–"),
            ],
        )
        for each in records[:MAX_CELL_ROWS]
    ]
    more = f" {len(records) - MAX_CELL_ROWS} more are in the CSV file of the runs." * (
        len(records) > MAX_CELL_ROWS
    )
    caption = f"Cells that are not finished, and are in no number of this report.{more}"
    columns = [Column("arm", is_number=False), Column("seed")]
    columns += [Column(label, is_number=False) for label in ("state", "folder", "reason")]
    return Table("cells", caption, columns, rows)


def configuration_tables(results: Results) -> list[Table]:
    """The settings that differ between arms, a row an arm; none if none does."""
    arms = {
        name: [run.args for run in result.runs.values()]
        for name, result in results.everything
        if any(run.args for run in result.runs.values())
    }
    keys = sorted({key for configs in arms.values() for args in configs for key in args})
    shown = {}
    for key in keys:
        texts = {name: _distinct(args.get(key) for args in found) for name, found in arms.items()}
        if key not in _NOT_COMPARED and len(set(texts.values())) > 1:
            shown[key] = texts
    parts = [list(shown)[start:][:MAX_SETTINGS] for start in range(0, len(shown), MAX_SETTINGS)]
    return [
        _configuration_table(number, arms, {name: shown[name] for name in part})
        for number, part in enumerate(parts, start=1)
    ]


def environment_table(results: Results) -> Table | None:
    """Where the runs were trained; None if it is not recorded."""
    environments = [each.run.environment for each in results.study.cells if each.run is not None]
    flat = [_flat(environment) for environment in environments if environment]
    names = dict.fromkeys(name for environment in flat for name in environment)
    rows = [
        Row(name, [Cell(_distinct((each.get(name) for each in flat), is_counted=True))])
        for name in names
        if name != "command"
    ]
    if not rows:
        return None
    columns = [Column("setting", is_number=False), Column("value", is_number=False)]
    return Table("environment", "Where the runs were trained.", columns, rows)


def _configuration_table(
    number: int, arms: Iterable[str], shown: Mapping[str, Mapping[str, str]]
) -> Table:
    rows = [Row(name, [numeric(texts[name]) for texts in shown.values()]) for name in arms]
    caption = "Settings that differ between arms, as the runs recorded them in args.yaml."
    columns = [Column("arm", is_number=False), *map(Column, shown)]
    return Table(f"configuration-{number}", caption, columns, rows)


def _distinct(values: Iterable[Any], is_counted: bool = False) -> str:
    """The distinct values as one text, with how often each occurs where there are several."""
    counts: dict[str, int] = {}
    for value in values:
        text = as_text(value)
        counts[text] = counts.get(text, 0) + 1
    if len(counts) == 1 or not is_counted:
        shown = list(counts)[:4]
        return ", ".join(shown) + (" …" if len(counts) > 4 else "")
    return "; ".join(f"{text} ({count} runs)" for text, count in list(counts.items())[:8])


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in environment.items():
        if isinstance(value, Mapping):
            flat |= {str(inner): entry for inner, entry in value.items()}
        else:
            flat[str(name).replace("_", " ")] = value
    return flat
