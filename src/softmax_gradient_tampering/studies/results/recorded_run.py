"""A run as a report shows it: its curves as arrays, its predictions measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from softmax_gradient_tampering.studies.results.predictions import Answers, PredictionSummary
from softmax_gradient_tampering.studies.results.run_files import RunFiles, as_number
from softmax_gradient_tampering.studies.results.summary import FloatArray
from softmax_gradient_tampering.training.measure.classes import ClassCounts


@dataclass(frozen=True)
class RecordedRun:
    """What a run left behind.

    Attributes:
        path: the run folder, or the summary.csv.
        curves: an array over the evaluated epochs by column of summary.csv, "epoch" among
            them; nan where a value is missing, inf where it is not a number, as the loss of
            a diverged run; no array where all are missing.
        args: of args.yaml; empty without one.
        environment: of environment.json; empty without one.
        result: of result.json; empty while the run is not finished.
        predictions: what predictions.npz says; None without one.
        classes: how often each class of the test set was there, was predicted, and rightly;
            None where that is not recorded.
        answers: labels and predicted classes of the test set; None without predictions.npz, and
            of so many samples that they would fill the memory.
    """

    path: Path
    curves: dict[str, FloatArray]
    args: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    predictions: PredictionSummary | None = None
    classes: ClassCounts | None = None
    answers: Answers | None = None

    @property
    def alpha(self) -> float:
        """Of the tampering; 1 where it is off."""
        return alpha_of(self.args)

    def final(self, column: str) -> float:
        """The value of the last evaluated epoch; nan if it was not measured."""
        curve = self.curves.get(column)
        return math.nan if curve is None else float(curve[-1])


def measure_files(files: RunFiles, scale: float) -> RecordedRun:
    """A run of what stands in its files.

    Args:
        files: of the run.
        scale: alpha of softmax(alpha z), for its predictions.
    """
    predictions = None
    if files.predictions is not None:
        from softmax_gradient_tampering.studies.results.prediction_measures import summarise

        predictions = summarise(files.predictions, scale)
    return RecordedRun(
        files.path,
        files.summary.curves,
        files.args,
        files.environment,
        files.result,
        predictions,
        files.classes,
        files.answers,
    )


def measure_ends(files: RunFiles) -> RecordedRun:
    """A run of what stands in its files, its curves of the last evaluated epoch alone.

    Predictions are not measured.
    """
    curves = {name: np.array([value]) for name, value in files.summary.finals.items()}
    return RecordedRun(
        files.path,
        curves,
        files.args,
        files.environment,
        files.result,
        classes=files.classes,
        answers=files.answers,
    )


def alpha_of(args: Mapping[str, Any]) -> float:
    """The alpha of a run's args.yaml; 1 where the tampering is off."""
    value = as_number(args.get("modify_softmax"))
    return value if value > 0 else 1.0
