"""Measuring a run's predictions: calibration, temperature, confusions. What needs torch is here."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from softmax_gradient_tampering.loss import logit_statistics
from softmax_gradient_tampering.studies.results.predictions import (
    HELD_OUT,
    PLAIN,
    SCALED,
    Pair,
    Predictions,
    PredictionSummary,
)
from softmax_gradient_tampering.training.measure.calibration import Calibration

# Factors are searched within this ratio of where the search starts: where every sample of
# a half is classified rightly, the best factor is infinite.
MAX_RATIO = 100.0
_CHUNK_ELEMENTS = 2_000_000  # float64 copies of a large set's logits do not fit into memory
_CPU = torch.device("cpu")


def summarise(predictions: Predictions, scale: float) -> PredictionSummary:
    """Measure a run's predictions.

    Args:
        predictions: of the run.
        scale: alpha of softmax(alpha z); the fit of a factor starts there.
    """
    logits, labels = map(torch.from_numpy, predictions)
    halves = [slice(0, None, 2), slice(1, None, 2)]
    fitted = [fit_factor(logits[half], labels[half], scale) for half in halves]
    factors = torch.empty(len(labels), 1, dtype=torch.float64)
    factors[halves[0]], factors[halves[1]] = fitted[1], fitted[0]  # each half has the other's
    plain = _calibrate(logits, labels, 1.0)
    measured = {
        PLAIN: plain,
        SCALED: plain if scale == 1 else _calibrate(logits, labels, scale),
        HELD_OUT: _calibrate(logits, labels, factors),
    }
    predicted = logits.argmax(1)
    norm, mean, peak, var = (value.item() for value in logit_statistics(logits))
    return PredictionSummary(
        calibration={name: calibration.result() for name, calibration in measured.items()},
        bins={name: calibration.bins for name, calibration in measured.items()},
        factors=(fitted[0], fitted[1]),
        logit_norm=norm,
        logit_mean=mean,
        logit_max=peak,
        logit_var=var,
        confused=_confused(labels, predicted),
    )


def fit_factor(logits: Tensor, labels: Tensor, start: float) -> float:
    """The factor s of the logits with the least NLL of softmax(s z): 1 / temperature.

    The NLL is convex in s, with the derivative mean(E_p[z] - z_label) and the curvature
    mean(Var_p[z]); Newton's steps, and bisection where one leaves the bracket.

    Args:
        logits: (n, C) float.
        labels: (n,) int64.
        start: where the search begins, above 0 (or 0, for 1); the answer lies within a
            factor of 100 of it.

    Returns:
        nan where there are no samples or logits that are not finite.

    >>> z = torch.tensor([[4.0, 0.0]]).repeat(4, 1)  # says 98 %, is right in 3 of 4
    >>> round(fit_factor(z, torch.tensor([0, 0, 0, 1]), start=1.0), 4)  # log(3) / 4
    0.2747
    """
    if not len(labels) or not bool(torch.isfinite(logits).all()):
        return math.nan
    if logits.numel() <= _CHUNK_ELEMENTS:
        logits = logits.double()  # once, not in every step
    factor = start = start or 1.0
    low, high = start / MAX_RATIO, start * MAX_RATIO
    for _ in range(100):
        slope, curvature = _slope(logits, labels, factor)
        low, high = (low, factor) if slope > 0 else (factor, high)
        step = factor - slope / curvature if curvature > 0 else math.nan
        new = step if low < step < high else math.sqrt(low * high)
        if slope == 0 or abs(new - factor) <= 1e-6 * factor:
            return new if slope else factor
        factor = new
    return factor


def _calibrate(logits: Tensor, labels: Tensor, scale: float | Tensor) -> Calibration:
    """At one factor of the logits, or at (N, 1) factors of their rows."""
    calibration = Calibration(1.0 if isinstance(scale, Tensor) else scale, _CPU)
    begin = 0
    for part, part_labels in _chunks(logits, labels):
        end = begin + len(part)
        rows = scale[begin:end] * part.double() if isinstance(scale, Tensor) else part
        calibration.add(rows, part_labels)
        begin = end
    return calibration


def _slope(logits: Tensor, labels: Tensor, factor: float) -> tuple[float, float]:
    """First and second derivative of the NLL's sum by the factor."""
    slope = curvature = 0.0
    for part, part_labels in _chunks(logits, labels):
        z = part.double()
        p = torch.softmax(factor * z, dim=1)
        mean = (p * z).sum(1)
        slope += (mean - z.gather(1, part_labels[:, None]).squeeze(1)).sum().item()
        curvature += ((p * z * z).sum(1) - mean * mean).sum().item()
    return slope, curvature


def _confused(labels: Tensor, predicted: Tensor) -> dict[Pair, int]:
    wrong = predicted != labels
    pairs, counts = torch.stack([labels[wrong], predicted[wrong]]).unique(dim=1, return_counts=True)
    return {
        (label, prediction): count
        for label, prediction, count in zip(*pairs.tolist(), counts.tolist(), strict=True)
    }


def _chunks(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    rows = max(1, _CHUNK_ELEMENTS // logits.shape[1])
    return zip(logits.split(rows), labels.split(rows), strict=True)
