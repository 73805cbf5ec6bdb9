"""Every number of a report as tables of plain rows: arms, differences, runs."""

import math
from typing import Any

from softmax_gradient_tampering.studies.analysis.comparison import Results
from softmax_gradient_tampering.studies.analysis.measurements import (
    MEASUREMENTS,
    measured_keys,
    measurement_of,
)

Table = list[dict[str, Any]]


def tables_of(results: Results) -> dict[str, Table]:
    """All three by their names."""
    return {
        "arms": arm_table(results),
        "differences": difference_table(results),
        "runs": run_table(results),
    }


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
