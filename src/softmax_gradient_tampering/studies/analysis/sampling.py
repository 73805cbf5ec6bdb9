"""What the test set itself leaves open: the sampling error of a difference on it.

The intervals over seeds take the test set as it is. Another one of the same size, from the same
source, would give other numbers to the same networks; how far, their answers on this one say.
"""

import math
from collections.abc import Iterable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from softmax_gradient_tampering.studies.analysis.measurements import (
    ACCURACY,
    BALANCED,
    LOWEST_RECALL,
    MACRO_F1,
)
from softmax_gradient_tampering.studies.analysis.statistics import CONFIDENCE
from softmax_gradient_tampering.studies.plan.plan import RECALL
from softmax_gradient_tampering.studies.results.recorded_run import RecordedRun

FloatArray = npt.NDArray[np.float64]
_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def sampling_half_width(key: str, pairs: Iterable[tuple[RecordedRun, RecordedRun]]) -> float:
    """Half the 95 % interval of a difference of two arms over test sets like this one.

    The runs are taken as they are, and the samples as drawn: with d the influence of every sample
    on the mean difference, it is 1.96 sqrt(sum d^2) (the infinitesimal jackknife). Of accuracies
    that is the usual error of a mean of paired differences, right or wrong.

    Args:
        key: what is judged.
        pairs: the treated run and the control of every seed.

    Returns:
        In points; nan where the answers are not known, or are of different samples.
    """
    total, number = np.zeros(0), 0
    for treated, control in pairs:
        one, other = treated.answers, control.answers
        if one is None or other is None or not np.array_equal(one.labels, other.labels):
            return math.nan
        difference = influences(key, treated) - influences(key, control)
        total = total + difference if number else difference
        number += 1
    return _QUANTILE * math.sqrt(float((total**2).sum())) / number if number else math.nan


def influences(key: str, run: RecordedRun) -> FloatArray:
    """How much each sample (N,) of the test set moves a measure, in points; their sum is 0.

    Args:
        key: what is judged.
        run: with its answers.
    """
    assert run.answers is not None
    assert run.classes is not None
    labels, predicted = run.answers
    is_right = (labels == predicted).astype(np.float64)
    if key == ACCURACY:
        return 100 * (is_right - is_right.mean()) / len(labels)
    samples, answers = (
        np.array(row, float) for row in (run.classes.samples, run.classes.predicted)
    )
    right = np.array(run.classes.correct, float)
    if key == MACRO_F1:
        weight = samples + answers
        with np.errstate(divide="ignore", invalid="ignore"):  # of classes that are nowhere
            f1 = 2 * right / weight
            found = 2 * is_right / weight[labels]
            lost = f1[labels] / weight[labels] + f1[predicted] / weight[predicted]
        return 100 * (found - lost) / np.count_nonzero(weight)
    recall = right / np.maximum(samples, 1)
    of_samples = 100 * (is_right - recall[labels]) / samples[labels]
    if key == BALANCED:
        return of_samples / np.count_nonzero(samples)
    if key == LOWEST_RECALL:
        return np.where(labels == run.classes.lowest, of_samples, 0.0)
    return np.where(labels == run.classes.names.index(key.removeprefix(RECALL)), of_samples, 0.0)
