"""Every number of a report as CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.files.whole import write_parts, write_text
from softmax_gradient_tampering.studies.analysis.comparison import Results
from softmax_gradient_tampering.studies.analysis.measurements import (
    MEASUREMENTS,
    measured_keys,
    measurement_of,
)
from softmax_gradient_tampering.studies.report.curve_files import (
    ArmCurve,
    arm_curves,
    as_cell,
    curves_as_csv,
    curves_as_json,
)
from softmax_gradient_tampering.studies.report.wording import caution_sentences

FORMAT = 1
Table = list[dict[str, Any]]


def write_tables(stem: Path, results: Results, verdict: str) -> list[Path]:
    """Write STEM-arms.csv, -differences.csv, -runs.csv, -curves.csv and STEM.json.

    Args:
        stem: the path of the report without its ending.
        results: what was compared.
        verdict: the report's first sentence.

    Returns:
        The paths written.

    Raises:
        UserError: one cannot be written.
    """
    tables = {
        "arms": arm_table(results),
        "differences": difference_table(results),
        "runs": run_table(results),
    }
    paths = []
    for name, table in tables.items():
        paths.append(stem.with_name(f"{stem.name}-{name}.csv"))
        write_text(paths[-1], _csv(table))
    paths.append(stem.with_name(f"{stem.name}-curves.csv"))
    curves = arm_curves(results)
    write_parts(paths[-1], curves_as_csv(curves))
    paths.append(stem.with_name(f"{stem.name}.json"))
    write_parts(paths[-1], _json(results, verdict, tables, curves))
    return paths


def arm_table(results: Results) -> Table:
    """A row for every arm and measurement: n, mean, sd, interval."""
    return [
        {
            "arm": name,
            "kind": result.arm.kind,
            "alpha": result.arm.alpha,
            "measurement": key,
            "unit": measurement_of(key).unit,
            "n": spread.num_values,
            "not_finite": spread.num_left_out,
            "mean": spread.interval.mean,
            "sd": spread.sd,
            "low": spread.interval.low,
            "high": spread.interval.high,
        }
        for name, result in results.everything
        for key, spread in result.spreads.items()
    ]


def difference_table(results: Results) -> Table:
    """A row for every arm, arm that it is compared with, and measurement."""
    rows = []
    for name, result in results.arms.items():
        for reference, comparisons in result.against.items():
            for key, comparison in comparisons.items():
                if comparison.num_pairs == 0:
                    continue
                rows.append(
                    {
                        "arm": name,
                        "reference": reference,
                        "measurement": key,
                        "unit": measurement_of(key).unit,
                        "pairs": comparison.num_pairs,
                        "not_finite": comparison.num_left_out,
                        "difference": comparison.mean,
                        "sd": comparison.sd,
                        "low": comparison.interval.low if comparison.has_interval else math.nan,
                        "high": comparison.interval.high if comparison.has_interval else math.nan,
                        "test_set_half_width": comparison.test_half_width,
                        "interval": "sequence" if comparison.is_sequential else "t",
                        "p_t": comparison.p_t,
                        "p_anytime": comparison.p_anytime,
                        "p_holm": comparison.p_holm,
                        "p_sign": comparison.p_sign,
                        "p_permutation": comparison.p_permutation,
                        "is_exact": comparison.is_exact,
                        "verdict": comparison.verdict,
                        "seeds_to_settle": comparison.seeds,
                    }
                )
    return rows


def run_table(results: Results) -> Table:
    """A row for every cell: its state and, of a finished one, all measurements."""
    values = {
        (name, seed): measured
        for name, result in results.everything
        for seed, measured in result.values.items()
    }
    keys = measured_keys([dict.fromkeys((m.key for m in MEASUREMENTS), 0.0), *values.values()])
    return [
        {
            "cell": record.cell.id,
            "arm": record.cell.arm,
            "seed": record.cell.seed,
            "state": record.state,
            "reason": record.reason,
            **dict.fromkeys(keys, math.nan),
            **values.get((record.cell.arm, record.cell.seed), {}),
        }
        for record in results.study.cells
    ]


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
