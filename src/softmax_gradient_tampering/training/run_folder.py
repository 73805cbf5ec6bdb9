"""Which folder a run writes to, and which checkpoint it goes on from."""

import time
from dataclasses import dataclass
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint import CheckpointFolder
from softmax_gradient_tampering.training.setup import Setup

_TRACES = ("args.yaml", "summary.csv", "last.pth.tar", "result.json")


@dataclass(frozen=True)
class RunFolder:
    """A run folder, and the checkpoint to go on from.

    Attributes:
        path: the folder; it exists.
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


def _decide(setup: Setup) -> RunFolder:
    config = setup.config
    size = setup.image_size
    name = config.experiment or f"{time.strftime('%Y%m%d-%H%M%S')}-{config.model}-{size}"
    folder = Path(config.output or "output/train") / name
    holds_run = any((folder / trace).exists() for trace in _TRACES)
    if holds_run and not config.resume:
        raise UserError(
            f"{folder} already holds a run; go on with it by --resume auto, or choose another "
            "--experiment"
        )
    checkpoint = None
    if config.resume == "auto":
        if (folder / "result.json").exists():
            return RunFolder(folder, is_finished=True)
        newest = CheckpointFolder(folder, 1, False).newest()
        checkpoint = newest and newest[0]
    elif config.resume:
        checkpoint = Path(config.resume)
        if not checkpoint.is_file():
            raise UserError(f"--resume {checkpoint}: no such file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be made ({error})") from error
    return RunFolder(folder, checkpoint)
