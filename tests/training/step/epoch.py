"""An epoch of training steps, without what a run has around them."""

from collections.abc import Iterator
from typing import Any

from softmax_gradient_tampering.training.step.position import Position
from softmax_gradient_tampering.training.step.tally import Tally
from softmax_gradient_tampering.training.step.trainer import Outcome, Trainer


def train_epoch(
    trainer: Trainer, loader: Any, tally: Tally | None = None, wants_grad_range: bool = False
) -> Iterator[Outcome]:
    """Train on the batches of epoch 0, yielding what each did."""
    position = Position()
    for batch in loader.epoch(0):
        outcome = trainer.train_batch(batch, position, loader.batch_sizes, wants_grad_range)
        if tally is not None:
            tally.add(outcome)
        position.count_batch(outcome.is_update, outcome.is_skipped)
        yield outcome
