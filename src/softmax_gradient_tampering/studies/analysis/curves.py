"""An arm's curve over the epochs: means over its runs, with intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from softmax_gradient_tampering.studies.analysis.statistics import CONFIDENCE, t_quantile
from softmax_gradient_tampering.studies.results.recorded_run import RecordedRun
from softmax_gradient_tampering.studies.results.summary import FloatArray


class Curve(NamedTuple):
    """Arrays of one length, a point per epoch that at least one run was evaluated at.

    Attributes:
        epochs: from 1.
        num_runs: that have a finite value.
        mean: over those runs.
        half_width: of the 95 % t interval; nan for one run.
    """

    epochs: FloatArray
    num_runs: FloatArray
    mean: FloatArray
    half_width: FloatArray


def arm_curve(runs: Sequence[RecordedRun], column: str) -> Curve | None:
    """The mean curve of a column of summary.csv; None if no run has a finite value of it."""
    measured = [(run.curves["epoch"], run.curves[column]) for run in runs if column in run.curves]
    if not measured:
        return None
    epochs = np.unique(np.concatenate([epoch for epoch, _ in measured]))
    values = np.full((len(measured), len(epochs)), math.nan)
    for row, (epoch, curve) in zip(values, measured, strict=True):
        row[np.searchsorted(epochs, epoch)] = curve
    is_finite = np.isfinite(values)
    num_runs = is_finite.sum(0)
    kept = num_runs > 0
    if not kept.any():
        return None
    values, is_finite, num_runs = values[:, kept], is_finite[:, kept], num_runs[kept]
    mean = np.where(is_finite, values, 0.0).sum(0) / num_runs
    squares = np.where(is_finite, (values - mean) ** 2, 0.0).sum(0)
    degrees = num_runs - 1
    quantiles = {d: t_quantile(CONFIDENCE, d) if d else math.nan for d in set(degrees.tolist())}
    quantile = np.array([quantiles[d] for d in degrees.tolist()])
    variance = squares / np.maximum(degrees, 1)
    half_width = quantile * np.sqrt(variance / num_runs)
    return Curve(epochs[kept], num_runs.astype(float), mean, half_width)
