"""Every number of a report as CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.studies.analysis.comparison import Results
from softmax_gradient_tampering.studies.report.numbers.curves import (
    ArmCurve,
    as_cell,
    curves_as_csv,
    curves_as_json,
)
from softmax_gradient_tampering.studies.report.numbers.rows import Table
from softmax_gradient_tampering.studies.report.wording import caution_sentences

FORMAT = 1


def number_files(
    stem: Path,
    results: Results,
    verdict: str,
    tables: Mapping[str, Table],
    curves: Sequence[ArmCurve],
) -> dict[Path, Iterable[str]]:
    """STEM-arms.csv, -differences.csv, -runs.csv, -curves.csv and STEM.json, in parts.

    Args:
        stem: the path of the report without its ending.
        results: what was compared.
        verdict: the report's first sentence.
        tables: of `rows.tables_of`.
        curves: of the arms.

    Returns:
        The content of every file by its path; it can be gone through once.
    """
    files: dict[Path, Iterable[str]] = {
        stem.with_name(f"{stem.name}-{name}.csv"): [_csv(table)] for name, table in tables.items()
    }
    files[stem.with_name(f"{stem.name}-curves.csv")] = curves_as_csv(curves)
    files[stem.with_name(f"{stem.name}.json")] = _json(results, verdict, tables, curves)
    return files


def _json(
    results: Results, verdict: str, tables: Mapping[str, Table], curves: Sequence[ArmCurve]
) -> Iterator[str]:
    study = results.study
    agreements = [
        {"arm": name, "seed": seed, **agreement._asdict()}
        for name, by_seed in study.agreements.items()
        for seed, agreement in by_seed.items()
    ]
    content = {
        "format": FORMAT,
        "kind": study.kind,
        "name": study.name,
        "verdict": verdict,
        "warnings": caution_sentences(results),
        "margin": results.margin,
        "metric": study.metric,
        "command": study.command,
        "notes": study.notes,
        "plan": [asdict(arm) for arm in study.arms],
        "classes": study.class_names,
        **tables,
        "curves": (),
        "agreements": agreements,
        "predictions": _predictions(results),
    }
    for number, (name, entry) in enumerate(content.items()):
        yield f"{',' if number else '{'}\n{json.dumps(name)}: "
        if name == "curves":
            yield from curves_as_json(curves)
        else:
            yield _lines(entry)
    yield "\n}\n"


def _lines(value: Any) -> str:
    """A value as JSON; a table with a line for every row."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        rows = (json.dumps(_plain(row), allow_nan=False, ensure_ascii=False) for row in value)
        return "[\n" + ",\n".join(rows) + "\n]"
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=False)


def _predictions(results: Results) -> Table:
    """Of every run with predictions: the reliability bins and the confused pairs."""
    return [
        {
            "arm": name,
            "seed": seed,
            "factors": run.predictions.factors,
            "bins": run.predictions.bins,
            "confused": [
                {"label": label, "prediction": prediction, "samples": count}
                for (label, prediction), count in sorted(run.predictions.confused.items())
            ],
        }
        for name, result in results.everything
        for seed, run in result.runs.items()
        if run.predictions is not None
    ]


def _csv(table: Table) -> str:
    buffer = io.StringIO()
    if table:
        writer = csv.DictWriter(buffer, list(table[0]), lineterminator="\n")
        writer.writeheader()
        for row in table:
            writer.writerow({name: _cell(value) for name, value in row.items()})
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    """A value as CSV has it: empty where there is no number."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return as_cell(value)


def _plain(value: Any) -> Any:
    """A value as JSON has it: null for what is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
