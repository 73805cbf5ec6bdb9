"""Which folder a run writes to, and which checkpoint it goes on from."""

import csv
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, as_printable, first_line
from softmax_gradient_tampering.files.lock import FolderLock
from softmax_gradient_tampering.files.text import read_record
from softmax_gradient_tampering.training.checkpoint.folder import (
    CheckpointFolder,
    load_checkpoint,
    place,
)
from softmax_gradient_tampering.training.processes.launch import is_restart, launch_id
from softmax_gradient_tampering.training.records.run_files import Row, read_summary
from softmax_gradient_tampering.training.setup.setup import Setup

_RESULT = "result.json"


@dataclass(frozen=True)
class RunFolder:
    """A run folder, and the checkpoint to go on from.

    Attributes:
        path: the folder.
        checkpoint: to go on from, or None to start afresh.
        is_finished: whether the run in it is finished, and nothing is to be done.
        rows: of a finished run's summary.csv.
    """

    path: Path
    checkpoint: Path | None = None
    is_finished: bool = False
    rows: list[Row] = field(default_factory=list)


@contextmanager
def open_run_folder(setup: Setup) -> Iterator[RunFolder]:
    """Decide on process 0, for all, and hold the folder's lock while the context lasts.

    Raises:
        UserError: the folder holds a run and --resume was not given, another program is at work
            in it, or it cannot be made.
    """
    decided: RunFolder | str = ""
    lock = None
    if setup.processes.is_first:
        try:
            lock, decided = _lock_and_decide(setup)
        except UserError as error:
            decided = str(error)
    try:
        decided = setup.processes.from_first(decided)
        if isinstance(decided, str):
            raise UserError(decided)
        yield decided
    finally:
        if lock is not None:
            lock.release()


def newest_checkpoint(output: str, experiment: str) -> Path | None:
    """The newest whole checkpoint of a run, by the names that --output and --experiment give."""
    folder = _folder(output, experiment)
    _check_path(folder / _RESULT, f"--output {output!r:.80}")
    newest = CheckpointFolder(folder, 1, False).newest()
    return newest and newest[0]


def _lock_and_decide(setup: Setup) -> tuple[FolderLock | None, RunFolder]:
    config = setup.config
    _check_path(_folder(config.output, "."), f"--output {config.output!r:.80}")
    name = config.experiment or _restarted_name(config.output) or _default_name(setup)
    folder = _folder(config.output, name)
    _check_path(folder / _RESULT, f"--output {config.output!r:.80}")
    # Processes that torchrun started in the place of failed ones have the same command line.
    goes_on = config.resume == "auto" or (is_restart() and _holds_run(folder))
    if goes_on and _is_finished(folder):
        return None, RunFolder(folder, is_finished=True, rows=_finished_rows(folder))
    lock = FolderLock(folder)
    try:
        return lock, _decide(setup, folder, goes_on)
    except UserError:
        lock.release()
        raise


def _decide(setup: Setup, folder: Path, goes_on: bool) -> RunFolder:
    config = setup.config
    checkpoint = None
    if goes_on:
        checkpoint = newest_checkpoint(config.output, folder.name)
        if checkpoint is None and _checkpoints(folder):
            print(as_printable(f"{folder}: no checkpoint is whole; the run starts anew over them"))
    elif config.resume:
        checkpoint = Path(config.resume)
        _check_path(checkpoint, f"--resume {config.resume!r:.80}")
        if not checkpoint.is_file():
            raise UserError(f"--resume {checkpoint}: no such file")
    if _holds_run(folder) and not goes_on:
        _check_goes_on(folder, checkpoint)
    return RunFolder(folder, checkpoint)


def _check_path(path: Path, flag: str) -> None:
    """Refuse a path that the system will not look up: too long, not to be entered, no text.

    Raises:
        UserError: it names the flag that gave the path.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # what is there is another question
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise UserError(f"{flag}: not a path that can be used ({reason})") from error


def _is_finished(folder: Path) -> bool:
    """Whether there is a result.json that says so; of one that is no mapping it is said."""
    path = folder / _RESULT
    if not path.exists():
        return False
    try:
        is_whole = _read_mapping(path) is not None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not is_whole:
        print(as_printable(f"{path}: not whole; the run is taken to be unfinished"))
    return is_whole


def _finished_rows(folder: Path) -> list[Row]:
    """The rows of summary.csv, none where it was deleted or edited after the run, which is said."""
    path = folder / "summary.csv"
    try:
        return read_summary(path)
    except (OSError, ValueError, csv.Error) as error:
        print(as_printable(f"{path}: not read ({first_line(error):.200})"))
        return []


def _read_mapping(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None where it holds something else or is damaged."""
    try:
        content = json.loads(read_record(path))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _holds_run(folder: Path) -> bool:
    return (folder / _RESULT).exists() or bool(_checkpoints(folder))


def _checkpoints(folder: Path) -> list[Path]:
    """Its checkpoints, without those that a killed run was writing, whose names have a dot."""
    return [path for path in folder.glob("*.pth.tar") if not path.name.startswith(".")]


def _check_goes_on(folder: Path, checkpoint: Path | None) -> None:
    """Refuse to write into a folder that holds a run, unless it goes on where that run is."""
    if checkpoint is None:
        raise UserError(
            f"{folder} already holds a run; go on with it by --resume auto, or choose another "
            "--experiment"
        )
    if checkpoint.resolve().parent != folder.resolve():
        raise UserError(
            f"{folder} already holds another run than {checkpoint}'s; choose another --experiment"
        )
    newest = CheckpointFolder(folder, 1, False).newest()
    if newest is not None and place(newest[1]) > place(load_checkpoint(checkpoint)):
        raise UserError(
            f"--resume {checkpoint}: {newest[0].name} of the same folder is further on and would "
            "be lost; give another --experiment for a run that goes on from here"
        )


def _folder(output: str, experiment: str) -> Path:
    return Path(output or "output/train") / experiment


def _restarted_name(output: str) -> str | None:
    """The folder of this launch before torchrun restarted it, by what environment.json says."""
    launch = launch_id()
    if not is_restart() or launch is None:
        return None
    for path in _folder(output, "").glob("*/environment.json"):
        with suppress(OSError):  # another run's, which is none of this one's business
            if (_read_mapping(path) or {}).get("launch") == launch:
                return path.parent.name
    return None


def _default_name(setup: Setup) -> str:
    """time-model-size, with a number where two runs start in one second."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{setup.config.model}-{setup.image_size}"
    numbered = (f"{name}-{number}" for number in count(2))
    while _folder(setup.config.output, name).exists():
        name = next(numbered)
    return name
