"""The files of a run folder: each read once, and held against the others."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from softmax_gradient_tampering import __version__
from softmax_gradient_tampering.errors import first_line
from softmax_gradient_tampering.files.text import read_record
from softmax_gradient_tampering.files.untrusted import is_number
from softmax_gradient_tampering.files.yaml_files import read_args
from softmax_gradient_tampering.studies.results import predictions, summary
from softmax_gradient_tampering.studies.results.arrays import read_arrays
from softmax_gradient_tampering.studies.results.predictions import (
    Answers,
    Predictions,
    read_predictions,
)
from softmax_gradient_tampering.studies.results.summary import FloatArray, Summary
from softmax_gradient_tampering.training.measure.classes import ClassCounts, read_counts
from softmax_gradient_tampering.training.records.run_files import (
    parse_summary,
    rows_hash,
    run_hash,
)

# Predictions of another batch size or precision may differ from the recorded evaluation's
# in a few samples at the border of two classes.
_TOP1_TOLERANCE = 0.2
_MAX_ANSWERS = 2**17  # of a test set that is larger the sampling error is small
_MAX_FILTER_BYTES = 2**30  # a large net's filters over hundreds of epochs are a tenth of it


@dataclass(frozen=True)
class RunFiles:
    """What a run left behind, as it stands in its files.

    Attributes:
        path: the run folder, or the summary.csv.
        summary: of summary.csv.
        args: of args.yaml; empty without one.
        environment: of environment.json; empty without one.
        result: of result.json; empty while the run is not finished.
        predictions: of predictions.npz; None without one.
        classes: how often each class of the test set was there, was predicted, and rightly: by
            predictions.npz, else as result.json has it; None where neither does.
        answers: labels and predicted classes, by predictions.npz; None without one, and of so
            many samples that those of all runs would fill the memory.
    """

    path: Path
    summary: Summary
    args: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    predictions: Predictions | None = None
    classes: ClassCounts | None = None
    answers: Answers | None = None


def read_run(folder: Path, args: Mapping[str, Any] | None = None) -> RunFiles:
    """Read a run folder.

    Args:
        folder: with a summary.csv of at least one row.
        args: of its args.yaml, where that is read already.

    Raises:
        ValueError: a file is missing, cannot be read, or contradicts another one.
    """
    text = _read(folder / summary.FILE_NAME)
    if args is None:
        args = read_args(folder / "args.yaml") if (folder / "args.yaml").exists() else {}
    run = RunFiles(
        folder,
        Summary(text),
        args,
        environment=read_json(folder / "environment.json") or {},
        result=read_json(folder / "result.json") or {},
        predictions=_read_predictions(folder / predictions.FILE_NAME),
    )
    _check_is_one_run(run, text)
    return _with_classes(run)


def read_summary_alone(path: Path) -> RunFiles:
    """A summary.csv, of ours or of the published program, as all that is known of a run.

    Raises:
        ValueError: it cannot be read, has no rows, or its columns are others.
    """
    return RunFiles(path, Summary(_read(path)))


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file that holds names and values; None without one.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    try:
        loaded = json.loads(read_record(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read ({first_line(error)})") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path.name} does not hold names and values")
    return loaded


def as_number(value: Any) -> float:
    """A value of a JSON or YAML file as a float; nan if it is no number."""
    return float(value) if is_number(value) else math.nan


def read_filter_norms(folder: Path) -> dict[str, FloatArray]:
    """The arrays of a run folder's filter_norms.npz, `epochs` first; empty without one.

    Raises:
        ValueError: it cannot be read, or a layer's array is not (epochs, filters).
    """
    path = folder / "filter_norms.npz"
    if not path.exists():
        return {}
    loaded = read_arrays(path, _MAX_FILTER_BYTES)
    if "epochs" not in loaded or any(array.dtype.kind not in "iuf" for array in loaded.values()):
        raise ValueError(f"{path.name} has no epochs, or arrays that are no numbers")
    arrays = {name: np.asarray(array, np.float64) for name, array in loaded.items()}
    epochs = arrays.pop("epochs")
    if epochs.ndim != 1 or any(
        norms.ndim != 2 or len(norms) != len(epochs) or norms.size == 0 for norms in arrays.values()
    ):
        raise ValueError(f"{path.name}: arrays that are not (epochs, filters)")
    return {"epochs": epochs, **arrays}


def _read(path: Path) -> str:
    try:
        return read_record(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {first_line(error)}") from error


def _read_predictions(path: Path) -> Predictions | None:
    return read_predictions(path) if path.exists() else None


def _check_is_one_run(run: RunFiles, text: str) -> None:
    """Check that the files are of one run, as the program left them.

    Args:
        run: what is in them.
        text: of summary.csv.

    Raises:
        ValueError: they are not, or a number of summary.csv cannot be read.
    """
    recorded = run.result.get("config_hash")
    # Another version may leave other settings out of the hash.
    is_ours = _version(run.environment) in (None, __version__)
    if is_ours and recorded is not None and recorded != run_hash(run.args):
        raise ValueError("args.yaml is not the one that result.json was written with")
    final = run.result.get("final")
    for name, value in (final if isinstance(final, Mapping) else {}).items():
        number = as_number(value)
        number = math.inf if math.isnan(number) else number  # as a summary has it
        if value is not None and run.summary.final(name) != number:
            raise ValueError(f"{name} of summary.csv and of result.json differ")
    recorded = run.result.get("summary_hash") if is_ours else None
    if recorded is None:
        _ = run.summary.curves  # every number can be read
    elif not run.summary.has_hash(recorded) and recorded != rows_hash(parse_summary(text)):
        raise ValueError("summary.csv is not the one that result.json was written with")


def _version(environment: Mapping[str, Any]) -> Any:
    packages = environment.get("packages")
    return packages.get("softmax-gradient-tampering") if isinstance(packages, Mapping) else None


def _with_classes(run: RunFiles) -> RunFiles:
    """A run with what it answered; result.json names the classes."""
    recorded = read_counts(run.result.get("classes"))
    if recorded is not None:
        _check_accuracy("result.json", recorded, run)
    if run.predictions is None:
        return replace(run, classes=recorded)
    answers = run.predictions.answers
    counted = answers.count_classes(run.predictions.logits.shape[1])
    _check_accuracy(predictions.FILE_NAME, counted, run)
    return replace(
        run,
        classes=counted.named(() if recorded is None else recorded.names),
        answers=answers if len(answers.labels) <= _MAX_ANSWERS else None,
    )


def _check_accuracy(name: str, found: ClassCounts, run: RunFiles) -> None:
    """Check that a file is right in about as many samples as summary.csv says."""
    recorded = run.summary.final("eval_top1")
    if abs(found.accuracy - recorded) > max(_TOP1_TOLERANCE, 200 / sum(found.samples)):
        raise ValueError(
            f"{name} is right in {found.accuracy:.2f} % of its samples, summary.csv says "
            f"{recorded:.2f} %"
        )
