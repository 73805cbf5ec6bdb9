"""The arms' curves as CSV and JSON, which can be millions of rows: written curve by curve."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from softmax_gradient_tampering.studies.analysis.comparison import Results
from softmax_gradient_tampering.studies.analysis.curves import Curve, arm_curve
from softmax_gradient_tampering.studies.results.summary import FloatArray

_NUMBERS = ("epoch", "n", "mean", "low", "high")
_PLACES = ["%s"] * len(_NUMBERS)


class ArmCurve(NamedTuple):
    """The curve of an arm in a column of summary.csv."""

    arm: str
    column: str
    curve: Curve


def arm_curves(results: Results) -> list[ArmCurve]:
    """The curves of all arms, over the epochs, by column of summary.csv."""
    curves = []
    for name, result in results.everything:
        runs = list(result.runs.values())
        for column in sorted({column for run in runs for column in run.curves} - {"epoch"}):
            curve = arm_curve(runs, column)
            if curve is not None:
                curves.append(ArmCurve(name, column, curve))
    return curves


def curves_as_csv(curves: Sequence[ArmCurve]) -> Iterator[str]:
    """A row for every arm, column of summary.csv and evaluated epoch: n, mean, interval."""
    head = f"arm,column,{','.join(_NUMBERS)}\n"
    for arm, column, curve in curves:
        yield head
        head = ""
        labels = io.StringIO()
        csv.writer(labels, lineterminator="\n").writerow((as_cell(arm), as_cell(column)))
        begin = _escaped(labels.getvalue().removesuffix("\n"))
        yield _lines(f"{begin},{','.join(_PLACES)}\n", curve, "")


def curves_as_json(curves: Sequence[ArmCurve]) -> Iterator[str]:
    """The same rows as a list of JSON, a line each."""
    names = ", ".join(f'"{name}": %s' for name in _NUMBERS)
    for number, (*labels, curve) in enumerate(curves):
        yield ",\n" if number else "[\n"
        arm, column = (_escaped(json.dumps(label, ensure_ascii=False)) for label in labels)
        row = f'{{"arm": {arm}, "column": {column}, {names}}},\n'
        yield _lines(row, curve, "null").removesuffix(",\n")
    yield "\n]" if curves else "[]"


def as_cell(value: object) -> object:
    """A value as CSV has it: a spreadsheet must not take text for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _lines(row: str, curve: Curve, missing: str) -> str:
    """The rows of a curve: a text with a place for each number, and the word for none."""
    counts = (map(str, map(int, values.tolist())) for values in (curve.epochs, curve.num_runs))
    bounds = (curve.mean, curve.mean - curve.half_width, curve.mean + curve.half_width)
    numbers = (_texts(values, missing) for values in bounds)
    return "".join(map(row.__mod__, zip(*counts, *numbers, strict=True)))


def _texts(values: FloatArray, missing: str) -> list[str]:
    """Numbers as text; JSON has no word for an infinite one, CSV has."""
    is_shown = np.isfinite(values) if missing else ~np.isnan(values)
    shown = zip(values.tolist(), is_shown.tolist(), strict=True)
    return [repr(value) if is_number else missing for value, is_number in shown]


def _escaped(text: str) -> str:
    """A text in a row, in which % stands for a number."""
    return text.replace("%", "%%")
