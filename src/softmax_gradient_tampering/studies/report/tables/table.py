"""A table: its columns, its rows, and where in the CSV files a number stands."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softmax_gradient_tampering.studies.report.wording import number


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what stands in it.
        style: num, verdict, dim, code or several of these; empty for words.
        source: the row and column of the CSV file that the number is from.
        span: how many columns it takes.
        mark: an ornament before the text.
    """

    text: str
    style: str = ""
    source: str | None = None
    span: int = 1
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table: its heading and its cells."""

    label: str
    cells: Sequence[Cell]
    style: str = ""


@dataclass(frozen=True)
class Column:
    """A heading of a column, which stands above numbers or above words."""

    label: str
    is_number: bool = True


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        name: its id.
        caption: what it shows.
        columns: the first is that of the rows' headings.
        rows: from the top.
        groups: headings above the columns' headings, and how many columns each spans.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    groups: Sequence[tuple[str, int]] = ()


def numeric(text: object, source: str | None = None) -> Cell:
    """A cell of a number."""
    return Cell(str(text), "num", source)


def plus_minus(
    mean: float, half: float, digits: int, source: str, note: str = "", sign: bool = False
) -> Cell:
    """A mean ± half-width."""
    text = number(mean, digits, sign)
    if not math.isnan(half):
        text += f" ± {number(half, digits)}"
    return numeric(text + note, source)


def as_text(value: Any) -> str:
    """A value of a JSON or YAML file as text."""
    if isinstance(value, str):
        return value or "''"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {as_text(entry)}" for name, entry in value.items())
    return json.dumps(value, default=str)
