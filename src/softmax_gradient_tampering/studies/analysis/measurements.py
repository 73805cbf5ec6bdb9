"""The measurements of a run that a report compares: their names, units and values."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from softmax_gradient_tampering.studies.plan.plan import ACCURACY as METRIC_ACCURACY
from softmax_gradient_tampering.studies.plan.plan import RECALL
from softmax_gradient_tampering.studies.results.predictions import HELD_OUT, PLAIN, SCALED
from softmax_gradient_tampering.studies.results.recorded_run import RecordedRun
from softmax_gradient_tampering.studies.results.run_files import as_number
from softmax_gradient_tampering.training.measure.classes import ClassCounts

ACCURACY = "eval_top1"
BALANCED, MACRO_F1, LOWEST_RECALL = "balanced_accuracy", "macro_f1", "lowest_recall"
# Of more classes no table has the recall of each; the lowest is among its measurements.
MAX_CLASSES = 100
EPOCHS_TO_BASELINE = "epochs_to_baseline"


class Measurement(NamedTuple):
    """A number of a run.

    Attributes:
        key: its name in the CSV and JSON files.
        label: what a reader sees.
        unit: of the number; empty for a pure one.
        digits: decimals that a reader sees.
        group: the part of the table of all measurements that it stands in.
    """

    key: str
    label: str
    unit: str
    digits: int
    group: str


_CALIBRATION = tuple(
    Measurement(f"{name}_{suffix}", f"{label}, {prediction}", unit, digits, "Calibration")
    for name, label, unit, digits in (
        ("nll", "NLL", "nats", 4),
        ("brier", "Brier score", "", 4),
        ("ece", "ECE, 15 bins", "%", 2),
    )
    for suffix, prediction in (("plain", PLAIN), ("alpha", SCALED), ("held_out", HELD_OUT))
)

MEASUREMENTS = (
    Measurement("train_acc", "train accuracy", "%", 2, "Accuracy and loss"),
    Measurement(ACCURACY, "test accuracy", "%", 2, "Accuracy and loss"),
    Measurement("eval_top5", "test accuracy, top 5", "%", 2, "Accuracy and loss"),
    Measurement("train_loss", "train loss", "nats", 4, "Accuracy and loss"),
    Measurement("eval_loss", "test loss", "nats", 4, "Accuracy and loss"),
    Measurement(
        EPOCHS_TO_BASELINE,
        "epochs to the baseline's final train accuracy",
        "epochs",
        1,
        "Accuracy and loss",
    ),
    Measurement(BALANCED, "balanced accuracy", "%", 2, "Classes"),
    Measurement(MACRO_F1, "macro-F1", "%", 2, "Classes"),
    Measurement(LOWEST_RECALL, "lowest recall of a class", "%", 2, "Classes"),
    *_CALIBRATION,
    Measurement("factor", "s fitted on held-out halves", "", 3, "Calibration"),
    Measurement("logit_norm", "logit norm", "", 2, "Logits on the test set"),
    Measurement("logit_mean", "logit mean, absolute", "", 3, "Logits on the test set"),
    Measurement("logit_max", "logit maximum, absolute", "", 2, "Logits on the test set"),
    Measurement("logit_var", "logit variance", "", 2, "Logits on the test set"),
    Measurement("zeroed_filters", "zeroed filters", "filters", 1, "Network and cost"),
    Measurement("zeroed_features", "zeroed features", "features", 1, "Network and cost"),
    Measurement("skipped_steps", "steps skipped, not finite", "steps", 1, "Network and cost"),
    Measurement("images_per_s", "images a second, median epoch", "images/s", 0, "Network and cost"),
    Measurement("seconds", "duration", "s", 1, "Network and cost"),
)

_BY_KEY = {measurement.key: measurement for measurement in MEASUREMENTS}
_ORDER = {key: place for place, key in enumerate(_BY_KEY)}


def measurement_of(key: str) -> Measurement:
    """The measurement of a key, of a class's recall too.

    >>> measurement_of("recall:frog").label
    'recall of frog'
    """
    if key.startswith(RECALL):
        return Measurement(key, f"recall of {key.removeprefix(RECALL)}", "%", 2, "Classes")
    return _BY_KEY[key]


_FINAL = (
    *("train_acc", ACCURACY, "eval_top5", "train_loss", "eval_loss"),
    *("zeroed_filters", "zeroed_features", "skipped_steps"),
)


def measure(run: RecordedRun, target_train_acc: float = math.nan) -> dict[str, float]:
    """All measurements of a run by key; nan where one was not made.

    Args:
        run: the run.
        target_train_acc: percent; the final train accuracy of the baseline of its seed.
    """
    values = {name: run.final(name) for name in _FINAL}
    speeds = run.curves.get("images_per_s")
    values["images_per_s"] = math.nan if speeds is None else float(np.nanmedian(speeds))
    values["seconds"] = as_number(run.result.get("seconds"))
    values[EPOCHS_TO_BASELINE] = epochs_to_reach(run, target_train_acc)
    for name in ("logit_norm", "logit_mean", "logit_max", "logit_var"):
        values[name] = run.final(name)
        if math.isnan(values[name]) and run.predictions is not None:
            values[name] = getattr(run.predictions, name)
    values |= _calibration(run)
    values["factor"] = math.nan if run.predictions is None else run.predictions.factor
    values |= measure_classes(run.classes)
    return {key: values[key] for key in sorted(values, key=_place)}


def key_of_metric(metric: str) -> str:
    """The measurement that a plan's metric names.

    >>> [key_of_metric(name) for name in ("accuracy", "macro-f1", "recall:sea-lion")]
    ['eval_top1', 'macro_f1', 'recall:sea-lion']
    """
    if metric == METRIC_ACCURACY:
        return ACCURACY
    return metric if metric.startswith(RECALL) else metric.replace("-", "_")


def judged_value(metric: str, accuracy: float, counts: ClassCounts | None) -> float:
    """The value of a plan's metric, in percent; nan where it is not known.

    Args:
        metric: of the plan.
        accuracy: as summary.csv has it, in percent.
        counts: of the classes.
    """
    if metric == METRIC_ACCURACY:
        return accuracy
    if counts is None:
        return math.nan
    if metric.startswith(RECALL):
        recalls = dict(zip(counts.names, counts.recalls, strict=True))
        return recalls.get(metric.removeprefix(RECALL), math.nan)
    return measure_classes(counts)[key_of_metric(metric)]


def measure_classes(counts: ClassCounts | None) -> dict[str, float]:
    """Measures that count classes alike, and the recall of each of a number of classes."""
    if counts is None:
        return dict.fromkeys((BALANCED, MACRO_F1, LOWEST_RECALL), math.nan)
    recalls = counts.recalls
    found = {
        BALANCED: counts.balanced_accuracy,
        MACRO_F1: counts.macro_f1,
        LOWEST_RECALL: recalls[counts.lowest],
    }
    if len(recalls) > MAX_CLASSES:
        return found
    named = zip(counts.names, recalls, strict=True)
    return found | {f"{RECALL}{name}": recall for name, recall in named}


def epochs_to_reach(run: RecordedRun, train_acc: float) -> float:
    """The first evaluated epoch with at least this train accuracy (percent); nan if none."""
    curve = run.curves.get("train_acc")
    if curve is None or math.isnan(train_acc):
        return math.nan
    reached = np.flatnonzero(curve >= train_acc)
    return float(run.curves["epoch"][reached[0]]) if len(reached) else math.nan


def measured_keys(runs: Iterable[dict[str, float]]) -> list[str]:
    """The keys that at least one run has a number for, in the order of MEASUREMENTS.

    The recalls of the classes stand with the measures of classes, in the order of the classes.
    """
    found = dict.fromkeys(key for values in runs for key in values if not math.isnan(values[key]))
    return sorted(found, key=_place)


def _place(key: str) -> int:
    return _ORDER[LOWEST_RECALL if key.startswith(RECALL) else key]


def _calibration(run: RecordedRun) -> dict[str, float]:
    """From the predictions where there are any, else what the run recorded itself."""
    recorded = run.result.get("measurements")
    measured = recorded if isinstance(recorded, dict) else {}
    if run.predictions is not None:
        measured = run.predictions.calibration
    values = {}
    for suffix, prediction in (("plain", PLAIN), ("alpha", SCALED), ("held_out", HELD_OUT)):
        entry = measured.get(prediction)
        for name in ("nll", "brier", "ece"):
            value = entry.get(name) if isinstance(entry, dict) else None
            # A score that is no number was measured, of a model that has diverged.
            is_nan = isinstance(value, float) and math.isnan(value)
            values[f"{name}_{suffix}"] = math.inf if is_nan else as_number(value)
    return values
