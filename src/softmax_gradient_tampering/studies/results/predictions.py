"""predictions.npz: a run's logits on the validation set, and the labels."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from softmax_gradient_tampering.studies.results.arrays import read_arrays

FILE_NAME = "predictions.npz"
# What the training program writes is smaller: at most 2^24 logits, and a label for each row.
_MAX_BYTES = 2**28


class Predictions(NamedTuple):
    """What a run predicted after its last epoch.

    Attributes:
        logits: (N, C) float32.
        labels: (N,) int64, from 0 to C - 1.
    """

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @property
    def top1(self) -> float:
        """Accuracy in percent."""
        return 100 * float((self.logits.argmax(1) == self.labels).mean())


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
