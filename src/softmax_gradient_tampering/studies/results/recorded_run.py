"""A run folder, or a summary.csv, as a report reads it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from softmax_gradient_tampering import __version__
from softmax_gradient_tampering.errors import first_line
from softmax_gradient_tampering.files.yaml_files import read_args
from softmax_gradient_tampering.studies.results.predictions import (
    PredictionSummary,
    read_predictions,
    summarise,
)
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED, Config
from softmax_gradient_tampering.training.records.run_files import (
    NOT_HASHED,
    Row,
    read_summary,
    rows_hash,
    run_hash,
)

FloatArray = npt.NDArray[np.float64]

# Predictions of another batch size or precision may differ from the recorded evaluation's
# in a few samples at the border of two classes.
_TOP1_TOLERANCE = 0.2
# What a run fills in where the plan does not say it.
_FROM_THE_DATA = ("model", "num_classes")


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
        predictions: of predictions.npz, or None without one.
    """

    path: Path
    curves: dict[str, FloatArray]
    args: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    predictions: PredictionSummary | None = None

    @property
    def alpha(self) -> float:
        """Of the tampering; 1 where it is off."""
        value = as_number(self.args.get("modify_softmax"))
        return value if value > 0 else 1.0

    def final(self, column: str) -> float:
        """The value of the last evaluated epoch; nan if it was not measured."""
        curve = self.curves.get(column)
        return math.nan if curve is None else float(curve[-1])


def read_run(folder: Path, scale: float | None = None) -> RecordedRun:
    """Read a run folder.

    Args:
        folder: with a summary.csv of at least one row.
        scale: alpha of softmax(alpha z); the run's own when not given.

    Raises:
        ValueError: a file is missing, cannot be read, or contradicts another one.
    """
    run, predictions = _read(folder)
    if predictions is None:
        return run
    summary = summarise(*predictions, run.alpha if scale is None else scale)
    return replace(run, predictions=summary)


def check_run(folder: Path) -> None:
    """Check that a run folder can be read, and that its files do not contradict each other.

    Raises:
        ValueError: as `read_run`, which takes longer.
    """
    _read(folder)


def _read(folder: Path) -> tuple[RecordedRun, tuple[Tensor, Tensor] | None]:
    """A run's records, and its logits and labels where it has them."""
    curves = read_curves(folder / "summary.csv")
    path = folder / "args.yaml"
    args = read_args(path) if path.exists() else {}
    environment, result = (_mapping(folder / f"{name}.json") for name in ("environment", "result"))
    run = RecordedRun(folder, curves, args, environment, result)
    _check_is_one_run(run)
    path = folder / "predictions.npz"
    if not path.exists():
        return run, None
    logits, labels = read_predictions(path)
    _check_accuracy(100 * (logits.argmax(1) == labels).double().mean().item(), len(labels), run)
    return run, (logits, labels)


def differing_setting(args: Mapping[str, Any], planned: Mapping[str, Any]) -> str | None:
    """The first setting in which a run's args.yaml is not as planned, in words; None without one.

    Args:
        args: of args.yaml.
        planned: settings that the run was to have, as plain values.
    """
    default = to_mapping(Config())
    for name, value in planned.items():
        found = args.get(name, default.get(name))  # a flag may be newer than the file
        is_filled_in = value is None and name in _FROM_THE_DATA
        if found != value and not is_filled_in and name not in (*NOT_HASHED, *NOT_RECORDED):
            return f"args.yaml has {name}: {found!r:.40}, the plan {value!r:.40}"
    return None


def read_curves(path: Path) -> dict[str, FloatArray]:
    """The columns of a summary.csv, of ours or of the published program.

    Where epochs were trained again after a resumption, the later rows count.

    Raises:
        ValueError: it cannot be read, has no rows, or its columns are others.
    """
    try:
        rows = read_summary(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {first_line(error)}") from error
    if not rows:
        raise ValueError(f"{path.name} has no rows: no epoch was evaluated")
    if not {"epoch", "eval_top1"} <= rows[0].keys():
        raise ValueError(f"{path.name} has no columns epoch and eval_top1")
    rows = _last_of_each_epoch(rows)
    columns = {name: np.array([_recorded(row[name]) for row in rows]) for name in rows[0]}
    return {name: values for name, values in columns.items() if not np.isnan(values).all()}


def read_filter_norms(folder: Path) -> dict[str, FloatArray]:
    """The arrays of a run folder's filter_norms.npz, `epochs` first; empty without one.

    Raises:
        ValueError: it cannot be read, or a layer's array is not (epochs, filters).
    """
    path = folder / "filter_norms.npz"
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            loaded = {name: np.asarray(arrays[name], np.float64) for name in arrays.files}
        epochs = loaded.pop("epochs")
    except Exception as error:  # numpy raises what it meets in the file
        raise ValueError(f"{path.name} cannot be read ({type(error).__name__})") from error
    if epochs.ndim != 1 or any(
        norms.ndim != 2 or len(norms) != len(epochs) or norms.size == 0 for norms in loaded.values()
    ):
        raise ValueError(f"{path.name}: arrays that are not (epochs, filters)")
    return {"epochs": epochs, **loaded}


def as_number(value: Any) -> float:
    """A value of a JSON or YAML file as a float; nan if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


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


def _mapping(path: Path) -> dict[str, Any]:
    """A JSON file that holds names and values; empty without one."""
    if not path.exists():
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} cannot be read ({first_line(error)})") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path.name} does not hold names and values")
    return loaded


def _check_is_one_run(run: RecordedRun) -> None:
    """Whether the files are of one run, as the program left them."""
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
    rows, summary = run.result.get("summary_hash"), run.path / "summary.csv"
    if is_ours and rows is not None and rows != rows_hash(read_summary(summary)):
        raise ValueError("summary.csv is not the one that result.json was written with")


def _version(environment: Mapping[str, Any]) -> Any:
    packages = environment.get("packages")
    return packages.get("softmax-gradient-tampering") if isinstance(packages, Mapping) else None


def _check_accuracy(top1: float, num_samples: int, run: RecordedRun) -> None:
    recorded = run.final("eval_top1")
    if abs(top1 - recorded) > max(_TOP1_TOLERANCE, 200 / num_samples):
        raise ValueError(
            f"predictions.npz is right in {top1:.2f} % of its samples, summary.csv says "
            f"{recorded:.2f} %"
        )
