"""The training loop: an epoch, and the step in it. No I/O, and no value read from the device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import Tensor, nn

from softmax_gradient_tampering.data.loader import Batch, Loader
from softmax_gradient_tampering.data.order import counter_hash, seed_torch
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.step.finiteness import gradients_are_finite
from softmax_gradient_tampering.training.step.precision import Precision

LossFn = Callable[[Tensor, Tensor], Tensor]


class Clipping(NamedTuple):
    """Gradient clipping: the value, timm's mode, and the parameters that it covers."""

    value: float
    mode: str
    parameters: Sequence[nn.Parameter]


@dataclass
class Tally:
    """Sums over an epoch's samples, of this process, kept on the device until they are read."""

    device: torch.device
    loss: Tensor = field(init=False)
    correct: Tensor = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)

    def add(self, loss: Tensor, logits: Tensor, batch: Batch) -> None:
        labels = batch.labels if batch.targets.dim() == 1 else batch.targets.argmax(1)
        size = len(labels)
        self.loss += size * loss.double()
        self.correct += (logits[:size].argmax(1) == labels).sum()
        self.count += size

    def total(self, processes: Processes) -> list[float]:
        """Loss, correct and count, summed over all processes."""
        count = torch.full((), self.count, dtype=torch.float64, device=self.device)
        return processes.sum(torch.stack([self.loss, self.correct.double(), count])).tolist()

    def state(self) -> list[float]:
        return [self.loss.item(), self.correct.item(), self.count]

    def restore(self, state: Sequence[float]) -> None:
        self.loss.fill_(state[0])
        self.correct.fill_(int(state[1]))
        self.count = int(state[2])


class Outcome(NamedTuple):
    """What a batch did; tensors stay on the device."""

    number: int
    loss: Tensor
    logits: Tensor
    batch: Batch
    is_update: bool
    is_skipped: bool
    is_finite: Tensor  # 0-d bool: the losses so far of this optimizer step, then its gradient
    grad_range: tuple[Tensor, Tensor] | None


@dataclass
class Trainer:
    """A model and all that changes it.

    Attributes:
        model: as it is called: wrapped for several processes, compiled.
        optimizer: over the parameters of the model.
        loss_fn: of logits, float32 at least, and targets: the mean over the batch.
        precision: of the forward pass, and the loss scale.
        seed: of the random numbers that the model draws (dropout).
        rank: this process's number, likewise.
        accumulation: batches of an optimizer step.
        clipping: of the gradient, or None.
        ema: the averaged model and the bare model that it averages, or None.
        skips_nonfinite: leave out optimizer steps whose loss or gradient is not finite, and
            such losses from the tally; this reads a value from the device in every step.
        all_agree: whether a condition holds in all processes.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_fn: LossFn
    precision: Precision
    seed: int = 0
    rank: int = 0
    accumulation: int = 1
    clipping: Clipping | None = None
    ema: tuple[ModelEmaV3, nn.Module] | None = None
    skips_nonfinite: bool = False
    all_agree: Callable[[bool], bool] = bool


def train_one_epoch(
    trainer: Trainer,
    loader: Loader,
    epoch: int,
    tally: Tally,
    start: int = 0,
    wants_grad_range: Callable[[int], bool] = lambda _: False,
) -> Iterator[Outcome]:
    """Train on the batches of an epoch from number `start` on, yielding after each.

    Args:
        trainer: the model and all that changes it.
        loader: a training loader.
        epoch: from 0.
        tally: what is summed over the epoch.
        start: a batch that begins an optimizer step.
        wants_grad_range: whether to give the range of the logits' gradient at a batch.
    """
    trainer.model.train()
    sizes, accumulation = loader.batch_sizes, trainer.accumulation
    is_finite = torch.ones((), dtype=torch.bool)
    for number, batch in enumerate(loader.epoch(epoch, start), start):
        first = number - number % accumulation
        group = sizes[first : first + accumulation]
        is_update = number == first + len(group) - 1
        # Generators are set for every batch, so that a resumed run needs no state of them.
        seed_torch(counter_hash(trainer.seed, epoch, number, trainer.rank), batch.images.device)
        share = sizes[number] / sum(group)
        loss, logits, grad_range = _forward_backward(
            trainer, batch, share, is_update, wants_grad_range(number)
        )
        is_finite = loss.isfinite() if number == first else is_finite & loss.isfinite()
        is_skipped = False
        if is_update:
            is_finite, is_skipped = _update(trainer, is_finite)
        if not trainer.skips_nonfinite or loss.isfinite():
            tally.add(loss, logits, batch)
        yield Outcome(number, loss, logits, batch, is_update, is_skipped, is_finite, grad_range)


def _forward_backward(
    trainer: Trainer, batch: Batch, share: float, is_update: bool, wants_grad_range: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
    """Add a batch's gradient, as its share of the optimizer step, to the parameters'."""
    model = trainer.model
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model.require_backward_grad_sync = is_update
    with trainer.precision.forward():
        logits = model(batch.images)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = trainer.loss_fn(logits, batch.targets)
    grad_range = None
    if wants_grad_range:
        (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
        grad_range = (grad.amin(), grad.amax())
    needs_graph = bool(getattr(trainer.optimizer, "is_second_order", False))
    share_of_loss = loss if share == 1 else share * loss
    trainer.precision.scale(share_of_loss).backward(create_graph=needs_graph)
    return loss.detach(), logits.detach(), grad_range


def _update(trainer: Trainer, losses_are_finite: Tensor) -> tuple[Tensor, bool]:
    """Step the optimizer; returns whether all was finite, and whether the step was skipped."""
    is_finite = losses_are_finite
    if not trainer.precision.scaler.is_enabled():  # which looks at the gradients itself
        groups = trainer.optimizer.param_groups
        found = gradients_are_finite(p for group in groups for p in group["params"])
        is_finite = is_finite if found is None else is_finite & found
    if trainer.skips_nonfinite and not trainer.all_agree(bool(is_finite)):
        trainer.optimizer.zero_grad(set_to_none=True)
        return is_finite, True
    if trainer.clipping is not None:
        trainer.precision.unscale(trainer.optimizer)
        value, mode, parameters = trainer.clipping
        dispatch_clip_grad(parameters, value, mode)
    is_skipped = trainer.precision.step(trainer.optimizer)
    trainer.optimizer.zero_grad(set_to_none=True)
    if trainer.ema is not None:
        averaged, model = trainer.ema
        averaged.update(model)
    return is_finite, is_skipped
