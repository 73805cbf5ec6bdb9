"""The training step: a batch's gradient, the optimizer's update. No value leaves the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from softmax_gradient_tampering.data.loader import Batch
from softmax_gradient_tampering.data.order import counter_hash, seed_torch
from softmax_gradient_tampering.training.step.finiteness import are_finite
from softmax_gradient_tampering.training.step.optimizer import (
    Generators,
    is_second_order,
    may_draw,
    own_generators,
    seed_optimizer,
)
from softmax_gradient_tampering.training.step.position import Position
from softmax_gradient_tampering.training.step.precision import Precision

_OPTIMIZER = -1  # in the place of a process's number: the optimizer's random numbers are the same
LossFn = Callable[[Tensor, Tensor], Tensor]
Range = tuple[Tensor, Tensor]


class Clipping(NamedTuple):
    """Gradient clipping: the value, timm's mode, and the parameters that it covers."""

    value: float
    mode: str
    parameters: Sequence[nn.Parameter]


class Outcome(NamedTuple):
    """What a batch did; tensors stay on the device.

    Attributes:
        number: of the batch in its epoch, from 0.
        loss: the mean over the batch, 0-d.
        logits: (n, C), float32 at least.
        batch: the batch.
        is_update: whether it ended an optimizer step.
        is_skipped: whether that step was left out, its gradient not being finite.
        is_finite: 0-d bool: the losses so far of this optimizer step, then its gradient too.
        is_counted: 0-d bool: whether it counts in the sums of its epoch; None where all do.
        grad_range: smallest and largest gradient of the logits, where that was asked for.
    """

    number: int
    loss: Tensor
    logits: Tensor
    batch: Batch
    is_update: bool
    is_skipped: bool
    is_finite: Tensor
    is_counted: Tensor | None
    grad_range: Range | None


@dataclass
class Trainer:
    """A model and all that changes it.

    Attributes:
        model: the bare model, whose state is saved; compiled in place.
        optimizer: over the parameters of the model.
        loss_fn: of logits, float32 at least, and targets: the mean over the batch.
        precision: of the forward pass, and the loss scale.
        parallel: the model as it is called where there are several processes, else None.
        average: the moving average of the model, or None.
        seed: of the random numbers that the model draws (dropout).
        rank: this process's number, likewise.
        accumulation: batches of an optimizer step.
        clipping: of the gradient, or None.
        skips_nonfinite: leave out optimizer steps whose loss or gradient is not finite, and
            such losses from the sums; this reads one value from the device in every step.
        all_agree: whether a condition holds in all processes.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_fn: LossFn
    precision: Precision
    parallel: DistributedDataParallel | None = None
    average: ModelEmaV3 | None = None
    seed: int = 0
    rank: int = 0
    accumulation: int = 1
    clipping: Clipping | None = None
    skips_nonfinite: bool = False
    all_agree: Callable[[bool], bool] = bool
    _losses: list[Tensor] = field(init=False, default_factory=list)  # of this optimizer step

    def __post_init__(self) -> None:
        # Looked for once: for a small net every step of Python counts.
        groups = self.optimizer.param_groups
        self._parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self._generators: Generators = own_generators(self.optimizer)

    def train_batch(
        self,
        batch: Batch,
        position: Position,
        sizes: Sequence[int],
        wants_grad_range: bool = False,
        before_waiting: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Train on a batch; the last one of every `accumulation` steps the optimizer.

        Args:
            batch: the batch.
            position: of the run before the batch. The first batch of a resumed epoch begins an
                optimizer step.
            sizes: of all batches of the epoch.
            wants_grad_range: whether to give the range of the logits' gradient.
            before_waiting: called before the step waits for a GPU to have the gradient, where it
                has to: for what can be done meanwhile.
        """
        number = position.batch
        first = number - number % self.accumulation
        group = sizes[first : first + self.accumulation]
        is_update = number == first + len(group) - 1
        # Generators are set for every batch, so that a resumed run needs no state of them.
        counters = [self.seed, position.epoch, number, self.rank]
        if position.taken:  # a batch of this number has been in this epoch
            counters.append(position.taken)
        seed_torch(counter_hash(*counters), batch.images.device)
        share = sizes[number] / sum(group)
        loss, logits, grad_range = self._add_gradient(batch, share, is_update, wants_grad_range)
        self._losses = [loss] if number == first else [*self._losses, loss]
        is_skipped = False
        if is_update:
            if self._waits_for_gpu:
                before_waiting()
            if may_draw(self.optimizer):
                bits = counter_hash(*counters[:3], _OPTIMIZER, *counters[4:])
                seed_optimizer(self._generators, bits, batch.images.device)
            is_finite, is_skipped = self._update()
        else:
            is_finite = are_finite(self._losses)
        is_counted = loss.isfinite() if self.skips_nonfinite else None
        return Outcome(
            number, loss, logits, batch, is_update, is_skipped, is_finite, is_counted, grad_range
        )

    @property
    def _waits_for_gpu(self) -> bool:
        """Whether a step reads a value: float16's loss scale or a skipped step depends on it."""
        reads = self.precision.scaler.is_enabled() or self.skips_nonfinite
        return reads and self.precision.device.type == "cuda"

    def _add_gradient(
        self, batch: Batch, share: float, is_update: bool, wants_grad_range: bool
    ) -> tuple[Tensor, Tensor, Range | None]:
        """Add a batch's gradient, as its share of the optimizer step, to the parameters'."""
        model: nn.Module = self.model
        if self.parallel is not None:
            model = self.parallel
            self.parallel.require_backward_grad_sync = is_update
        with self.precision.forward():
            logits = model(batch.images)
        if logits.dtype.itemsize < torch.float32.itemsize:
            logits = logits.float()
        loss = self.loss_fn(logits, batch.targets)
        grad_range = None
        if wants_grad_range:
            (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
            grad_range = (grad.amin(), grad.amax())
        needs_graph = is_second_order(self.optimizer)
        share_of_loss = loss if share == 1 else share * loss
        self.precision.scale(share_of_loss).backward(create_graph=needs_graph)
        return loss.detach(), logits.detach(), grad_range

    def _update(self) -> tuple[Tensor, bool]:
        """Step the optimizer; returns whether all was finite, and whether the step was skipped."""
        # The loss scale looks at the gradients itself.
        looks = not self.precision.scaler.is_enabled()
        is_finite = are_finite(self._losses, [p.grad for p in self._parameters] if looks else ())
        if self.skips_nonfinite and not self.all_agree(bool(is_finite)):
            self._forget_gradients()
            return is_finite, True
        if self.clipping is not None:
            self.precision.unscale(self.optimizer)
            value, mode, parameters = self.clipping
            dispatch_clip_grad(parameters, value, mode)
        is_skipped = self.precision.step(self.optimizer)
        self._forget_gradients()
        if self.average is not None:
            self.average.update(self.model)
        return is_finite, is_skipped

    def _forget_gradients(self) -> None:
        """What the optimizer's zero_grad does, without what that does for profilers."""
        for parameter in self._parameters:
            parameter.grad = None
