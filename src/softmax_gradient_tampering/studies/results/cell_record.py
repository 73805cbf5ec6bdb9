"""What has become of a cell, from its files; each of them is read once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import first_line
from softmax_gradient_tampering.files.untrusted import COUNT, TEXT, Form, find_fault
from softmax_gradient_tampering.files.yaml_files import read_args
from softmax_gradient_tampering.studies.plan.plan import Cell, State
from softmax_gradient_tampering.studies.results.run_files import RunFiles, read_json, read_run
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED, Config
from softmax_gradient_tampering.training.records.run_files import NOT_HASHED

FAILURE_NAME = "failure.json"
_FAILURE: Form = {"attempts": COUNT, "error": TEXT}
# How the training program says that a loss or a gradient was not finite.
_DIVERGED = re.compile(r"epoch \d+, .*(the loss .*is (nan|-?inf)\b|not finite)")
_DEFAULTS = to_mapping(Config())
_NOT_COMPARED = {*NOT_HASHED, *NOT_RECORDED}
# What a run fills in where the plan does not say it.
_FROM_THE_DATA = ("model", "num_classes")


@dataclass(frozen=True)
class CellRecord:
    """A cell of a study, and what has become of it.

    Attributes:
        cell: of the plan.
        state: of the cell.
        reason: why it diverged, failed or is invalid; one line.
        attempts: of one that diverged or failed, how often it was tried; 0 where that is not known.
        run: what it left behind, where it is finished.
    """

    cell: Cell
    state: State
    reason: str = ""
    attempts: int = 0
    run: RunFiles | None = None


@dataclass(frozen=True)
class Failure:
    """A failure.json.

    Attributes:
        attempts: how often the run was tried.
        error: of the last time, in one line.
    """

    attempts: int
    error: str


def read_cell(folder: Path, cell: Cell, settings: Mapping[str, Any]) -> CellRecord:
    """Read a cell's folder.

    Args:
        folder: of the cell; it may be missing.
        cell: of the plan.
        settings: what its args.yaml must say.
    """
    is_finished = (folder / "result.json").exists()
    has_begun = (folder / "args.yaml").exists()
    try:
        args = read_args(folder / "args.yaml") if has_begun else {}
        if has_begun:
            _check_settings(args, settings)
        elif is_finished:
            raise ValueError("result.json without args.yaml")
        if is_finished:
            return CellRecord(cell, State.FINISHED, run=read_run(folder, args))
    except (OSError, ValueError) as error:
        return CellRecord(cell, State.INVALID, first_line(error))
    failure = read_failure(folder)
    if failure is not None:
        state = State.DIVERGED if _DIVERGED.match(failure.error) else State.FAILED
        return CellRecord(cell, state, failure.error, failure.attempts)
    has_begun = has_begun or (folder / "summary.csv").exists()
    return CellRecord(cell, State.UNFINISHED if has_begun else State.MISSING)


def read_failure(folder: Path) -> Failure | None:
    """The failure.json of a cell; None without one. One that cannot be read counts no attempts."""
    try:
        loaded = read_json(folder / FAILURE_NAME)
        if loaded is None:
            return None
        if find_fault(loaded, _FAILURE) is None:
            lines = loaded["error"].splitlines() or ["no reason recorded"]
            return Failure(loaded["attempts"], lines[0])
    except ValueError:
        pass
    return Failure(0, f"{FAILURE_NAME} cannot be read")


def _check_settings(args: Mapping[str, Any], planned: Mapping[str, Any]) -> None:
    """Check that a run has the settings that the plan has in its place.

    Raises:
        ValueError: one is another.
    """
    for name, value in planned.items():
        found = args.get(name, _DEFAULTS.get(name))  # a flag may be newer than the file
        is_filled_in = value is None and name in _FROM_THE_DATA
        if found != value and not is_filled_in and name not in _NOT_COMPARED:
            raise ValueError(f"args.yaml has {name}: {found!r:.40}, the plan {value!r:.40}")
