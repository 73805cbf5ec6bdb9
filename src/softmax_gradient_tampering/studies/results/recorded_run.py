"""What a run left behind: its records, read and held against each other."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from softmax_gradient_tampering import __version__
from softmax_gradient_tampering.errors import first_line
from softmax_gradient_tampering.files.yaml_files import read_args
from softmax_gradient_tampering.studies.results import predictions as predictions_file
from softmax_gradient_tampering.studies.results.predictions import Predictions, read_predictions
from softmax_gradient_tampering.training.records.run_files import (
    Row,
    read_summary,
    rows_hash,
    run_hash,
)

if TYPE_CHECKING:  # it needs torch, and whoever asks for a study's status does not
    from softmax_gradient_tampering.studies.results.prediction_summary import PredictionSummary

FloatArray = npt.NDArray[np.float64]

# Predictions of another batch size or precision may differ from the recorded evaluation's
# in a few samples at the border of two classes.
_TOP1_TOLERANCE = 0.2


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
        predictions: what predictions.npz says; None without one, or where it was not measured.
    """

    path: Path
    curves: dict[str, FloatArray]
    args: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    predictions: "PredictionSummary | None" = None

    @property
    def alpha(self) -> float:
        """Of the tampering; 1 where it is off."""
        value = as_number(self.args.get("modify_softmax"))
        return value if value > 0 else 1.0

    def final(self, column: str) -> float:
        """The value of the last evaluated epoch; nan if it was not measured."""
        curve = self.curves.get(column)
        return math.nan if curve is None else float(curve[-1])


def read_run(
    folder: Path, args: dict[str, Any] | None = None
) -> tuple[RecordedRun, Predictions | None]:
    """Read a run folder, each of its files once.

    Args:
        folder: with a summary.csv of at least one row.
        args: of its args.yaml, where that is read already.

    Returns:
        The run without its predictions measured, and the predictions where it has them.

    Raises:
        ValueError: a file is missing, cannot be read, or contradicts another one.
    """
    rows = _read_rows(folder / "summary.csv")
    if args is None:
        args = read_args(folder / "args.yaml") if (folder / "args.yaml").exists() else {}
    environment, result = (
        read_json(folder / f"{name}.json") or {} for name in ("environment", "result")
    )
    run = RecordedRun(folder, _curves(rows), args, environment, result)
    _check_is_one_run(run, rows)
    path = folder / predictions_file.FILE_NAME
    if not path.exists():
        return run, None
    predictions = read_predictions(path)
    _check_accuracy(predictions, run)
    return run, predictions


def read_summary_alone(path: Path) -> RecordedRun:
    """A summary.csv, of ours or of the published program, as all that is known of a run.

    Raises:
        ValueError: it cannot be read, has no rows, or its columns are others.
    """
    return RecordedRun(path, _curves(_read_rows(path)))


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file that holds names and values; None without one.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read ({first_line(error)})") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path.name} does not hold names and values")
    return loaded


def as_number(value: Any) -> float:
    """A value of a JSON or YAML file as a float; nan if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def _read_rows(path: Path) -> list[Row]:
    try:
        rows = read_summary(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {first_line(error)}") from error
    if not rows:
        raise ValueError(f"{path.name} has no rows: no epoch was evaluated")
    if not {"epoch", "eval_top1"} <= rows[0].keys():
        raise ValueError(f"{path.name} has no columns epoch and eval_top1")
    return rows


def _curves(rows: list[Row]) -> dict[str, FloatArray]:
    """The columns; where epochs were trained again after a resumption, the later rows count."""
    rows = _last_of_each_epoch(rows)
    columns = {name: np.array([_recorded(row[name]) for row in rows]) for name in rows[0]}
    return {name: values for name, values in columns.items() if not np.isnan(values).all()}


def _recorded(value: float | None) -> float:
    """nan for a missing value, inf for one that is not a number."""
    if value is None:
        return math.nan
    return math.inf if math.isnan(value) else float(value)


def _last_of_each_epoch(rows: list[Row]) -> list[Row]:
    """Rows without those that a later one, of the same or an earlier epoch, has overtaken."""
    kept: list[Row] = []
    for row in rows:
        epoch = row["epoch"]
        if epoch is None or not math.isfinite(epoch):
            raise ValueError("summary.csv has a row without an epoch")
        while kept and (kept[-1]["epoch"] or 0) >= epoch:
            kept.pop()
        kept.append(row)
    return kept


def _check_is_one_run(run: RecordedRun, rows: list[Row]) -> None:
    """Check that the files are of one run, as the program left them."""
    if not run.result:
        return
    recorded = run.result.get("config_hash")
    # Another version may leave other settings out of the hash.
    is_ours = _version(run.environment) in (None, __version__)
    if is_ours and recorded is not None and recorded != run_hash(run.args):
        raise ValueError("args.yaml is not the one that result.json was written with")
    final = run.result.get("final")
    for name, value in (final if isinstance(final, Mapping) else {}).items():
        if value is not None and _recorded(as_number(value)) != run.final(name):
            raise ValueError(f"{name} of summary.csv and of result.json differ")
    recorded = run.result.get("summary_hash")
    if is_ours and recorded is not None and recorded != rows_hash(rows):
        raise ValueError("summary.csv is not the one that result.json was written with")


def _version(environment: Mapping[str, Any]) -> Any:
    packages = environment.get("packages")
    return packages.get("softmax-gradient-tampering") if isinstance(packages, Mapping) else None


def _check_accuracy(predictions: Predictions, run: RecordedRun) -> None:
    recorded = run.final("eval_top1")
    allowed = max(_TOP1_TOLERANCE, 200 / len(predictions.labels))
    if abs(predictions.top1 - recorded) > allowed:
        raise ValueError(
            f"predictions.npz is right in {predictions.top1:.2f} % of its samples, summary.csv "
            f"says {recorded:.2f} %"
        )
