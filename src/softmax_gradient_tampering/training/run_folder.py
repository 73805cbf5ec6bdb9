"""Which folder a run writes to, and which checkpoint it goes on from."""

import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint import CheckpointFolder, load_checkpoint, place
from softmax_gradient_tampering.training.setup import Setup


@dataclass(frozen=True)
class RunFolder:
    """A run folder, and the checkpoint to go on from.

    Attributes:
        path: the folder; it may not exist yet.
        checkpoint: to go on from, or None to start afresh.
        is_finished: whether the run in it is finished, and nothing is to be done.
    """

    path: Path
    checkpoint: Path | None = None
    is_finished: bool = False


def open_run_folder(setup: Setup) -> RunFolder:
    """Decide on process 0, for all: they see the same folder, or fail with the same error.

    Raises:
        UserError: the folder holds a run and --resume was not given, or cannot be made.
    """
    decided: RunFolder | str = ""
    if setup.processes.is_first:
        try:
            decided = _decide(setup)
        except UserError as error:
            decided = str(error)
    decided = setup.processes.from_first(decided)
    if isinstance(decided, str):
        raise UserError(decided)
    return decided


def make_run_folder(path: Path) -> None:
    """Make a run folder, no longer a finished one.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "result.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--output {path}: cannot be made ({error})", is_local=True) from error


def newest_checkpoint(output: str, experiment: str) -> Path | None:
    """The newest whole checkpoint of a run, by the names that --output and --experiment give."""
    newest = CheckpointFolder(_folder(output, experiment), 1, False).newest()
    return newest and newest[0]


def _decide(setup: Setup) -> RunFolder:
    config = setup.config
    folder = _folder(config.output, config.experiment or _default_name(setup))
    is_finished = (folder / "result.json").exists()
    holds_run = is_finished or any(folder.glob("*.pth.tar"))
    checkpoint = None
    if config.resume == "auto":
        if is_finished:
            return RunFolder(folder, is_finished=True)
        checkpoint = newest_checkpoint(config.output, config.experiment)
    elif config.resume:
        checkpoint = Path(config.resume)
        if not checkpoint.is_file():
            raise UserError(f"--resume {checkpoint}: no such file")
    if holds_run and config.resume != "auto":
        _check_goes_on(folder, checkpoint)
    return RunFolder(folder, checkpoint)


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


def _default_name(setup: Setup) -> str:
    """time-model-size, with a number where two runs start in one second."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{setup.config.model}-{setup.image_size}"
    numbered = (f"{name}-{number}" for number in count(2))
    while _folder(setup.config.output, name).exists():
        name = next(numbered)
    return name
