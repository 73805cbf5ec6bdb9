"""The run folder: args.yaml, environment.json, summary.csv, result.json."""

import csv
import hashlib
import io
import json
import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.files.text import read_record
from softmax_gradient_tampering.files.whole import write_text
from softmax_gradient_tampering.files.yaml_files import write_settings
from softmax_gradient_tampering.training.processes.launch import launch_id

Row = dict[str, float | int | None]

COLUMNS = (
    "epoch",
    "train_loss",
    "train_acc",
    "eval_loss",
    "eval_top1",
    "eval_top5",
    "lr",
    "images_per_s",
    "logit_norm",
    "logit_mean",
    "logit_max",
    "logit_var",
    "eval_loss_ema",
    "eval_top1_ema",
    "skipped_steps",
    "bad_images",
    "zeroed_filters",
    "zeroed_features",
)

# Settings that change what a run prints and keeps, but not how it trains.
NOT_HASHED = (
    *("workers", "max_steps", "recovery_interval", "checkpoint_hist", "final_validate"),
    *("log_interval", "per_line", "log", "log_wandb", "print_model", "save_images"),
    *("save_predictions", "batch_timeout"),
)


def write_args(folder: Path, args: Mapping[str, Any]) -> None:
    """args.yaml: the resolved configuration, which `--config` reads."""
    write_settings(folder / "args.yaml", args)


def write_environment(
    folder: Path,
    device: str,
    num_threads: int,
    loss_kernel: str,
    backends: Mapping[str, Any] | None,
) -> None:
    """environment.json: versions, device, what computes the loss, git commit, command."""
    packages = ("torch", "timm", "torchvision", "numpy", "softmax-gradient-tampering")
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in packages},
        "device": device,
        "threads": num_threads,
        "loss_kernel": loss_kernel,
        "backends": backends,
        "git_commit": _git_commit(),
        "command": sys.argv,
        "launch": launch_id(),
    }
    write_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")


class SummaryFile:
    """summary.csv of a run, to which rows are added.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "summary.csv"
        self._text = io.StringIO()
        self._num_rows = 0
        self._writer = csv.DictWriter(self._text, COLUMNS, lineterminator="\n")
        self._writer.writeheader()

    def write(self, rows: Sequence[Row]) -> None:
        """Write all rows anew, so that the file is whole at any time and has one header.

        Its name lasts with the next file's: the checkpoint of the same epoch is written after it.

        Args:
            rows: of the run; the first ones are those that were written before.
        """
        self._writer.writerows(rows[self._num_rows :])
        self._num_rows = len(rows)
        write_text(self._path, self._text.getvalue(), lasts=False)


def read_summary(path: Path) -> list[Row]:
    """The rows of a summary.csv, of ours or of the published program.

    The published program writes a second header where it resumes; it is passed over.

    Raises:
        OSError: it cannot be read.
        ValueError: a value is not a number, or a line has more values than the header names.
    """
    return parse_summary(read_record(path))


def parse_summary(text: str) -> list[Row]:
    """The rows of the text of a summary.csv; see `read_summary`."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [
        {name: _number(text) for name, text in row.items()}
        for row in rows
        if any(name != text for name, text in row.items())
    ]


def rows_hash(rows: Sequence[Row]) -> str:
    """A hash of a summary's rows but for the speed, in which equal runs differ."""
    kept = [{name: row.get(name) for name in COLUMNS if name != "images_per_s"} for row in rows]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


def lines_hash(lines: Sequence[Sequence[str]]) -> str:
    """`rows_hash` of the lines that `SummaryFile` wrote, without making numbers of them.

    CSV and JSON write a number alike. Of a line that is written in another way, as with 0.10
    for 0.1, the hash is another: then that of the rows counts.

    Args:
        lines: values of every row, in the order of COLUMNS.
    """
    at = COLUMNS.index("images_per_s")
    names = (*COLUMNS[:at], *COLUMNS[at + 1 :])
    row = "{" + ", ".join(f'"{name}": %s' for name in names) + "}"
    shown = [[text or "null" for text in (*line[:at], *line[at + 1 :])] for line in lines]
    text = "[" + ", ".join(row % tuple(texts) for texts in shown) + "]"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """result.json, written last: its presence means that the run is finished."""
    plain = {name: _without_nan(value) for name, value in result.items()}
    write_text(folder / "result.json", json.dumps(plain, indent=2, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    """The value with None in the place of nan and inf, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def config_hash(args: Mapping[str, Any]) -> str:
    """A hash of a configuration, the same for the same values."""
    text = json.dumps(dict(args), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_hash(args: Mapping[str, Any]) -> str:
    """The hash of what a run's args.yaml says of its training; result.json records it."""
    return config_hash({name: value for name, value in args.items() if name not in NOT_HASHED})


def _number(text: str | list[str] | None) -> float | int | None:
    if not text:
        return None
    if isinstance(text, list):  # values beyond the header's columns
        raise ValueError(f"more values than columns: {', '.join(text)}")
    return int(text) if text.lstrip("-").isdigit() else float(text)


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache  # of the code that runs, whatever is checked out meanwhile
def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
