"""Restore the objects of a run from a checkpoint, and print what has changed since."""

from collections.abc import Callable
from pathlib import Path

from softmax_gradient_tampering.training.checkpoint.content import Checkpoint
from softmax_gradient_tampering.training.checkpoint.state import RunState, restore
from softmax_gradient_tampering.training.resume.comparison import check_place, compare_with
from softmax_gradient_tampering.training.setup.setup import Setup


def go_on_from(
    checkpoint: Checkpoint, setup: Setup, folder: Path, say: Callable[[str], None]
) -> RunState:
    """Restore the objects of a run, and return where it goes on.

    Args:
        checkpoint: to go on from.
        setup: the objects of the run.
        folder: the run folder.
        say: prints a line.

    Raises:
        UserError: it does not fit what is asked for.
    """
    path, content = checkpoint
    config = setup.config
    restore(content, setup.trainer, setup.schedule, config)
    state = RunState.of(content)
    if path.resolve().parent != folder.resolve():
        state.best = []  # their checkpoints are not in this folder
    if config.start_epoch is not None:
        state.start_over_at(config.start_epoch)
    position = state.position
    say(f"Going on from {path}: epoch {position.epoch + 1}, batch {position.batch}")
    notes = compare_with(content, setup.circumstances, position)
    num_batches, num_epochs = len(setup.data.train_loader), setup.schedule.num_epochs
    check_place(position, num_batches, num_epochs, config.start_epoch)
    for note in notes:
        say(note)
    return state
