"""Which folder a run writes to, and which checkpoint it goes on from."""

import csv
import json
import socket
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
from softmax_gradient_tampering.files.untrusted import is_integer
from softmax_gradient_tampering.terminal.streams import print_line
from softmax_gradient_tampering.training.checkpoint.content import (
    Checkpoint,
    load_checkpoint,
    place,
)
from softmax_gradient_tampering.training.checkpoint.folder import CheckpointFolder
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.processes.launch import is_restart, launch_id
from softmax_gradient_tampering.training.records.run_files import Row, read_summary

_RESULT = "result.json"


@dataclass
class RunFolder:
    """A run folder, and the checkpoint to go on from.

    Attributes:
        path: the folder.
        checkpoint: to go on from, opened; or None to start afresh.
        origin: its file; or None.
        damaged: the folder's checkpoints that were passed over.
        is_finished: whether the run in it is finished, and nothing is to be done.
        rows: of a finished run's summary.csv.
        num_epochs: that a finished run has trained, or None where its result does not say.
        lock: of the folder, in process 0 while the run is open; else None.
    """

    path: Path
    checkpoint: Checkpoint | None = None
    origin: Path | None = None
    damaged: list[Path] = field(default_factory=list)
    is_finished: bool = False
    rows: list[Row] = field(default_factory=list)
    num_epochs: int | None = None
    lock: FolderLock | None = None

    def take_checkpoint(self) -> Checkpoint | None:
        """The checkpoint, which is then no longer held: it may be large."""
        checkpoint, self.checkpoint = self.checkpoint, None
        return checkpoint

    def check(self) -> None:
        """Check, before anything is written, that the folder is still the one that was locked.

        In a process without the lock, which writes nothing, nothing is checked.

        Raises:
            UserError: it was moved, removed or replaced, or another program has locked it.
        """
        if self.lock is not None:
            self.lock.check()


@contextmanager
def open_run_folder(config: Config, processes: Processes, default_name: str) -> Iterator[RunFolder]:
    """Decide on process 0, for all, and hold the folder's lock while the context lasts.

    Every process opens the checkpoint to go on from, once.

    Args:
        config: the configuration.
        processes: of the run.
        default_name: of the folder, where --experiment does not say it; the time is put before it.

    Raises:
        UserError: the folder holds a run and --resume was not given, another program is at work
            in it, or it cannot be made.
    """
    told: str | RunFolder = ""  # what process 0 sends to the others: its refusal, or the folder
    opened: Checkpoint | None = None
    lock = None
    if processes.is_first:
        try:
            lock, told = _lock_and_decide(config, default_name)
            opened = told.take_checkpoint()
        except UserError as error:
            told = str(error)
    try:
        told = processes.from_first(told)
        if isinstance(told, str):
            raise UserError(told)
        told.lock = lock
        _check_is_shared(config, processes, told)
        if told.origin is not None:
            told.checkpoint = opened or Checkpoint(told.origin, load_checkpoint(told.origin))
        opened = None
        yield told
    finally:
        if lock is not None:
            lock.release()


def _check_is_shared(config: Config, processes: Processes, run_folder: RunFolder) -> None:
    """Refuse a folder on disks of the hosts' own: a run would start over, or wait for ever.

    Raises:
        UserError: some processes see a checkpoint to go on from, and others do not.
    """
    if not config.resume and not is_restart():
        return
    path = run_folder.origin
    sees = bool(_checkpoints(run_folder.path)) if path is None else path.exists()
    hosts = processes.gather((socket.gethostname(), sees))
    if path is None and not hosts[0][1]:  # else none is whole, which has been said
        others = [host for host, sees in hosts if sees]
        if others:
            raise UserError(
                f"{run_folder.path}: host {hosts[0][0]}, of process 0, has no checkpoint of this "
                f"run, and host {others[0]} has; they do not share the folder: give an --output "
                "that they share, or start process 0 where the checkpoints are"
            )
    blind = [host for host, sees in hosts if not sees]
    if path is not None and blind:
        raise UserError(
            f"{path}: not seen by host {blind[0]}; process 0, on {hosts[0][0]}, goes on from it: "
            "give an --output that all hosts share"
        )


def newest_checkpoint(output: str, experiment: str) -> Checkpoint | None:
    """The newest whole checkpoint of a run, by the names that --output and --experiment give."""
    folder = _folder(output, experiment)
    _check_path(folder / _RESULT, f"--output {output!r:.80}")
    return CheckpointFolder(folder).newest()


def _lock_and_decide(config: Config, default_name: str) -> tuple[FolderLock | None, RunFolder]:
    _check_path(_folder(config.output, "."), f"--output {config.output!r:.80}")
    name = config.experiment or _restarted_name(config.output)
    folder = _folder(config.output, name) if name else _new_folder(config.output, default_name)
    _check_path(folder / _RESULT, f"--output {config.output!r:.80}")
    # Processes that torchrun started in the place of failed ones have the same command line.
    goes_on = config.resume == "auto" or (is_restart() and _holds_run(folder))
    result = _finished_result(folder) if goes_on else None
    if result is not None:
        _remove_spares(folder)
        num_epochs = result.get("epochs")
        return None, RunFolder(
            folder,
            is_finished=True,
            rows=_finished_rows(folder),
            num_epochs=num_epochs if is_integer(num_epochs) else None,
        )
    lock = FolderLock(folder)
    try:
        return lock, _decide(config, folder, goes_on)
    except UserError:
        lock.release()
        raise


def _remove_spares(folder: Path) -> None:
    """Remove what the end of a finished run left, where a full disk or a kill came between."""
    checkpoints = CheckpointFolder(folder)
    if checkpoints.spares():
        with suppress(UserError):  # somebody is at work there, or it is not to be written to
            lock = FolderLock(folder)
            try:
                if (folder / _RESULT).exists():  # nobody has trained it on in the meantime
                    checkpoints.remove_spares()
            finally:
                lock.release()


def _decide(config: Config, folder: Path, goes_on: bool) -> RunFolder:
    """The checkpoint to go on from, once it is known that the folder may be written to."""
    checkpoints = CheckpointFolder(folder)
    checkpoint = None
    if goes_on:
        checkpoint = checkpoints.newest()
        if checkpoint is None and _checkpoints(folder):
            print_line(
                as_printable(f"{folder}: no checkpoint is whole; the run starts anew over them")
            )
    elif config.resume:
        path = Path(config.resume)
        _check_path(path, f"--resume {config.resume!r:.80}")
        if not path.exists():
            raise UserError(f"--resume {path}: no such file")
        checkpoint = Checkpoint(path, load_checkpoint(path))
    if _holds_run(folder) and not goes_on:
        _check_goes_on(checkpoints, checkpoint)
    return RunFolder(folder, checkpoint, checkpoint and checkpoint.path, checkpoints.damaged)


def _check_path(path: Path, flag: str) -> None:
    """Refuse a path that the system cannot look up: too long, forbidden, or not text.

    Raises:
        UserError: it names the flag that gave the path.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # such a path can be used; whether it exists is checked elsewhere
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise UserError(f"{flag}: not a path that can be used ({reason})") from error


def _finished_result(folder: Path) -> dict[str, Any] | None:
    """The result.json; one that is not a mapping is reported and does not count."""
    path = folder / _RESULT
    if not path.exists():
        return None
    try:
        result = _read_mapping(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if result is None:
        print_line(as_printable(f"{path}: not whole; the run is taken to be unfinished"))
    return result


def _finished_rows(folder: Path) -> list[Row]:
    """The rows of summary.csv; none, with a message, where it was deleted or edited since."""
    path = folder / "summary.csv"
    try:
        return read_summary(path)
    except (OSError, ValueError, csv.Error) as error:
        print_line(as_printable(f"{path}: not read ({first_line(error):.200})"))
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


def _check_goes_on(checkpoints: CheckpointFolder, checkpoint: Checkpoint | None) -> None:
    """Refuse to write into a folder that holds a run, unless it goes on where that run is."""
    folder = checkpoints.folder
    if checkpoint is None:
        raise UserError(
            f"{folder} already holds a run; go on with it by --resume auto, or choose another "
            "--experiment"
        )
    if checkpoint.path.resolve().parent != folder.resolve():
        raise UserError(
            f"{folder} already holds another run than {checkpoint.path}'s; choose another "
            "--experiment"
        )
    newest = checkpoints.newest(opened=checkpoint)
    if newest is not None and place(newest.content) > place(checkpoint.content):
        raise UserError(
            f"--resume {checkpoint.path}: {newest.path.name} of the same folder is further on and "
            "would be lost; give another --experiment for a run that goes on from here"
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


def _new_folder(output: str, name: str) -> Path:
    """time-name, with a number where two runs start in one second."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(path for name in names if not (path := _folder(output, name)).exists())
