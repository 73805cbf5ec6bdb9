"""Restore the objects of a run from a checkpoint, and print what has changed since."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.data.order import BatchPlan
from softmax_gradient_tampering.training.checkpoint.content import Checkpoint
from softmax_gradient_tampering.training.checkpoint.state import RunState, restore
from softmax_gradient_tampering.training.resume.comparison import (
    check_place,
    compare_with,
    settings_of_optimizer,
)
from softmax_gradient_tampering.training.setup.setup import Setup
from softmax_gradient_tampering.training.step.position import Position


def go_on_from(
    checkpoint: Checkpoint, setup: Setup, folder: Path, say: Callable[[str], None]
) -> tuple[RunState, Setup]:
    """Restore the objects of a run, and return where it goes on, and with which settings.

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
    position, plan = state.position, setup.data.train_loader.plan
    say(f"Going on from {path}: epoch {position.epoch + 1}, batch {position.batch}")
    notes = compare_with(content, setup.circumstances, position)
    check_place(position, plan.num_samples, setup.schedule.num_epochs, config.start_epoch)
    if not _is_between_steps(position, plan, config.grad_accum_steps):
        position.go_on_after_samples()
        notes.append(_other_batches(position, plan))
    for note in notes:
        say(note)
    settings: dict[str, Any] = dict(settings_of_optimizer(content, config))
    kept = replace(config, **settings)
    return state, replace(setup, circumstances=replace(setup.circumstances, config=kept))


def _is_between_steps(position: Position, plan: BatchPlan, accumulation: int) -> bool:
    """Whether the place is one between two optimizer steps of this run too, by batches of it."""
    plan = replace(plan, taken=position.taken)
    is_after_step = position.batch % accumulation == 0 or position.batch == len(plan)
    is_same_place = plan.taken_by(position.batch) == position.samples
    return position.batch == 0 or (is_after_step and is_same_place)


def _other_batches(position: Position, plan: BatchPlan) -> str:
    rest = replace(plan, taken=position.taken)
    return (
        f"Warning: epoch {position.epoch + 1} was begun with optimizer steps over another number "
        f"of samples; it goes on after its first {position.taken} of {plan.num_samples}, in "
        f"{len(rest)} batches of {plan.batch_size * plan.num_processes}; the learning rate stays "
        "as it is"
    )
