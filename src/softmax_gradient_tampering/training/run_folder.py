"""Which folder a run writes to, and which checkpoint it goes on from."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint import CheckpointFolder, load_checkpoint, place
from softmax_gradient_tampering.training.distributed import is_restart, launch_id
from softmax_gradient_tampering.training.lock import FolderLock
from softmax_gradient_tampering.training.setup import Setup


@dataclass(frozen=True)
class RunFolder:
    """A run folder, and the checkpoint to go on from.

    Attributes:
        path: the folder.
        checkpoint: to go on from, or None to start afresh.
        is_finished: whether the run in it is finished, and nothing is to be done.
    """

    path: Path
    checkpoint: Path | None = None
    is_finished: bool = False


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
    newest = CheckpointFolder(_folder(output, experiment), 1, False).newest()
    return newest and newest[0]


def _lock_and_decide(setup: Setup) -> tuple[FolderLock | None, RunFolder]:
    config = setup.config
    name = config.experiment or _restarted_name(config.output) or _default_name(setup)
    folder = _folder(config.output, name)
    # Processes that torchrun started in the place of failed ones have the same command line.
    goes_on = config.resume == "auto" or (is_restart() and _holds_run(folder))
    if goes_on and _is_finished(folder):
        return None, RunFolder(folder, is_finished=True)
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
    elif config.resume:
        checkpoint = Path(config.resume)
        if not checkpoint.is_file():
            raise UserError(f"--resume {checkpoint}: no such file")
    if _holds_run(folder) and not goes_on:
        _check_goes_on(folder, checkpoint)
    return RunFolder(folder, checkpoint)


def _is_finished(folder: Path) -> bool:
    return (folder / "result.json").exists()


def _holds_run(folder: Path) -> bool:
    return _is_finished(folder) or any(folder.glob("*.pth.tar"))


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
        if json.loads(path.read_text()).get("launch") == launch:
            return path.parent.name
    return None


def _default_name(setup: Setup) -> str:
    """time-model-size, with a number where two runs start in one second."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{setup.config.model}-{setup.image_size}"
    numbered = (f"{name}-{number}" for number in count(2))
    while _folder(setup.config.output, name).exists():
        name = next(numbered)
    return name
