"""predictions.npz: a run's logits on the validation set and the labels, and what they say."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from softmax_gradient_tampering.studies.results.arrays import read_arrays
from softmax_gradient_tampering.training.measure.classes import (
    ClassCounts,
    counts_without_names,
)

FILE_NAME = "predictions.npz"
PLAIN, SCALED, HELD_OUT = "softmax(z)", "softmax(alpha z)", "softmax(s z), s held out"
# What the training program writes is smaller: at most 2^24 logits, and a label for each row.
_MAX_BYTES = 2**28

Pair = tuple[int, int]


class Answers(NamedTuple):
    """What a run predicted, in few bytes: a study keeps those of all its runs.

    Attributes:
        labels: (N,) unsigned.
        predicted: (N,) unsigned, the class of the largest logit.
    """

    labels: npt.NDArray[np.unsignedinteger[Any]]
    predicted: npt.NDArray[np.unsignedinteger[Any]]

    def count_classes(self, num_classes: int) -> ClassCounts:
        """How often each class was there, was predicted, and was predicted rightly."""
        labels, predicted = self
        rows = (labels, predicted, predicted[predicted == labels])
        return counts_without_names(
            [np.bincount(row, minlength=num_classes).tolist() for row in rows]
        )


class Predictions(NamedTuple):
    """What a run predicted after its last epoch.

    Attributes:
        logits: (N, C) float32.
        labels: (N,) int64, from 0 to C - 1.
    """

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @property
    def answers(self) -> "Answers":
        """The predicted classes."""
        predicted = self.logits.argmax(1)
        size = np.min_scalar_type(self.logits.shape[1])
        labels = _kept_labels(self.labels.astype(size).tobytes(), size)
        return Answers(labels, predicted.astype(size))

    def count_classes(self) -> ClassCounts:
        """How often each class was there, was predicted, and was predicted rightly."""
        return self.answers.count_classes(self.logits.shape[1])


@dataclass(frozen=True)
class PredictionSummary:
    """What a run's predictions on the validation set say.

    Attributes:
        calibration: nll (nats), brier (0 to 2) and ece (percent), by prediction.
        bins: by prediction, rows of samples, sum of confidences and correct ones per bin.
        factors: of the logits, fitted on the samples of even and of odd index; both are
            measured on the other samples.
        logit_norm, logit_mean, logit_max, logit_var: the logits' statistics.
        confused: number of samples by (label, wrong prediction).
    """

    calibration: dict[str, dict[str, float]]
    bins: dict[str, list[list[float]]]
    factors: tuple[float, float]
    logit_norm: float
    logit_mean: float
    logit_max: float
    logit_var: float
    confused: dict[Pair, int]

    @property
    def factor(self) -> float:
        """The geometric mean of the two fitted factors; 1 / temperature."""
        return math.sqrt(self.factors[0] * self.factors[1])


class Agreement(NamedTuple):
    """How nearly an equivalent run gave the predictions of the run that it must follow.

    Attributes:
        num_samples: of the validation set.
        num_same: samples with the same predicted class.
        deviation: largest |z_equivalent - alpha z_tampered|.
        scale: largest |alpha z_tampered|, to judge the deviation by.
    """

    num_samples: int
    num_same: int
    deviation: float
    scale: float


def read_predictions(path: Path) -> Predictions:
    """Read a predictions.npz.

    Raises:
        ValueError: the file is not one, or its arrays do not fit each other.
    """
    arrays = read_arrays(path, _MAX_BYTES, ("logits", "labels"))
    logits, labels = arrays["logits"], arrays["labels"]
    is_whole = logits.ndim == 2 and labels.shape == logits.shape[:1] and logits.size > 0
    if not is_whole or logits.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{path.name} holds logits {logits.dtype} {logits.shape} and labels {labels.dtype} "
            f"{labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"{path.name} has labels outside its {logits.shape[1]} classes")
    return Predictions(logits.astype(np.float32, copy=False), labels.astype(np.int64, copy=False))


@lru_cache(maxsize=8)
def _kept_labels(content: bytes, size: np.dtype[Any]) -> npt.NDArray[Any]:
    """Labels as an array; those of the runs of a study are the same, and are kept once."""
    return np.frombuffer(content, size)


def agreement(tampered: Predictions, equivalent: Predictions, alpha: float) -> Agreement:
    """Compare two runs' predictions, whose logits should be z and alpha z.

    Raises:
        ValueError: they are of different samples.
    """
    z, other = tampered.logits, equivalent.logits
    if z.shape != other.shape or (tampered.labels != equivalent.labels).any():
        raise ValueError("the predictions are of different samples")
    expected = alpha * z.astype(np.float64)
    return Agreement(
        num_samples=len(z),
        num_same=int((z.argmax(1) == other.argmax(1)).sum()),
        deviation=float(np.abs(other - expected).max()),
        scale=float(np.abs(expected).max()),
    )
