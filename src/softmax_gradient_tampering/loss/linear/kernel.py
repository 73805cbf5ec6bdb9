"""The loss of hidden states without their logits: blocks of classes, matrix products, torch.

Legend: N rows, D features, C classes; h (N, D) hidden states, W (C, D), b (C,);
z = h W^T + b (N, C) logits, of which a block of columns exists at a time; q the target
distribution with the class weights multiplied in; p' = softmax(alpha z).

    forward    per row the largest logit m, sum_c exp(z - m), sum_c exp(alpha (z - m)) and
               sum_c q (z - m), all of them corrected as m grows from block to block
    backward   the block of z again, from it u = scale * (sum_c(q) p' - q), and then
               dh += u W_block,  dW_block = u^T h,  db_block = sum_rows(u)

Blocks of classes, not of rows: every row of dW is then one product over all rows of h, written
once and in its own dtype, without an accumulator, and the products are large. Computing z
twice costs one product more than a gradient that is made in the forward pass would; for it,
three numbers a row are all that is kept between the passes, and the incoming gradient is known
when the gradients are rounded.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.options import (
    Options,
    compute_dtype,
    is_index,
    loss_divisor,
    row_scale,
)
from softmax_gradient_tampering.loss.linear.products import operand, product
from softmax_gradient_tampering.loss.linear.target_blocks import TargetBlocks
from softmax_gradient_tampering.loss.torch_internals import assert_on_device

# A block takes at most this part of the memory of the logits in the dtype of the input, and
# no more elements than this, as larger ones are not faster.
LARGEST_PART = 0.08
LARGEST_CPU, LARGEST = 2**20, 2**24
# But the second limit makes it no narrower than so many classes, and neither makes it smaller
# than so many elements.
NARROWEST, SMALLEST = 512, 2**14
# The memory of a block in units of its logits in the compute dtype: logits, exponentials, a
# mask of -inf. Soft targets add the target's block and a product with it.
BUFFERS, BUFFERS_SOFT = 2.25, 4.25


class Head(NamedTuple):
    """What makes the logits, of one dtype: hidden (N, D), weight (C, D), bias (C,)."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None


class RowStatistics(NamedTuple):
    """What the backward pass needs of the forward one, (N,) each, in the compute dtype."""

    largest: Tensor  # m, the largest logit
    log_sum: Tensor  # log sum_c exp(alpha (z_c - m))
    mass: Tensor  # sum_c q_c


class Needed(NamedTuple):
    """Which gradients are wanted."""

    hidden: bool
    weight: bool
    bias: bool


class _Block(NamedTuple):
    """A block of classes; the tensors in the dtype that the products take."""

    classes: slice
    weight: Tensor
    bias: Tensor | None


def forward(
    head: Head, target: Tensor, alpha: Alpha, options: Options, is_differentiated: bool
) -> tuple[Tensor, RowStatistics]:
    """The ordinary cross-entropy of the logits, and the statistics for `backward`.

    Args:
        head: hidden states, weight and bias.
        target: (N,) class indices as int64, or (N, C) probabilities.
        alpha: the exponent, a number or a 0-d tensor.
        options: the loss's options; their `weight` is that of the classes.
        is_differentiated: whether `backward` may follow; if not, alpha is not looked at.

    Returns:
        loss: 0-d, or (N,) where the reduction is "none", in `options.loss_dtype`.
        stats: the statistics of the rows.
    """
    check_labels(target, head.weight.shape[0], options.ignore_index)
    dtype = compute_dtype(head.hidden.dtype)
    hidden = operand(head.hidden, dtype)
    q = TargetBlocks(target, options, head.weight.shape[0], dtype)
    sums = _RowSums(target, alpha if is_differentiated else 1.0, dtype)
    for block in blocks_of(head, target, dtype):
        sums.add(_logits(hidden, block, dtype), q, block.classes)
    loss = q.mass() * sums.exp.log() - sums.rest - q.label_part(sums.largest)
    if is_index(target):
        loss = torch.where(target == options.ignore_index, 0, loss)
    if options.reduction != "none":
        loss = loss.sum() / loss_divisor(target, options, head.hidden)
    stats = RowStatistics(sums.largest, sums.exp_tampered.log(), q.mass())
    return loss.to(options.loss_dtype), stats


def backward(
    grad_loss: Tensor,
    head: Head,
    target: Tensor,
    alpha: Alpha,
    stats: RowStatistics,
    options: Options,
    needed: Needed,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The tampered gradients of hidden, weight and bias, each in its own dtype."""
    dtype = compute_dtype(head.hidden.dtype)
    hidden = operand(head.hidden, dtype)
    q = TargetBlocks(target, options, head.weight.shape[0], dtype)
    scale = row_scale(grad_loss, target, loss_divisor(target, options, head.hidden), options)
    unit = None
    if hidden.dtype != dtype:
        scale, unit = split_scale(scale)
    gradients = Gradients(head, needed, unit)
    for block in blocks_of(head, target, dtype):
        z = _logits(hidden, block, dtype).sub_(stats.largest.unsqueeze(1))
        _temper_(z, alpha).sub_(stats.log_sum.unsqueeze(1)).exp_()
        q.subtract_from_(z, stats.mass, block.classes)
        grad_z = z if z.dtype == hidden.dtype else torch.empty_like(z, dtype=hidden.dtype)
        torch.mul(z, scale, out=grad_z)
        del z  # before the products take their memory
        gradients.add(grad_z, hidden, block)
    return gradients.finish()


def check_labels(target: Tensor, num_classes: int, ignore_index: int) -> None:
    """Refuse a label beyond the classes: IndexError on a CPU, device assertion on a GPU."""
    if not is_index(target):
        return
    is_wrong = (target != ignore_index) & ((target < 0) | (target >= num_classes))
    if target.device.type == "cpu":
        if is_wrong.any():
            raise IndexError(f"Target {int(target[is_wrong][0])} is out of bounds.")
    elif target.device.type == "cuda":
        assert_on_device(~is_wrong.any(), "a label is out of bounds")


def block_size(num_rows: int, num_classes: int, like: Tensor, is_soft: bool) -> int:
    """How many classes are in a block; the constants above say why.

    Args:
        num_rows: N.
        num_classes: C.
        like: of the dtype and on the device of the input.
        is_soft: whether the target holds probabilities.
    """
    num_rows = max(1, num_rows)
    buffers = BUFFERS_SOFT if is_soft else BUFFERS
    ratio = compute_dtype(like.dtype).itemsize / like.dtype.itemsize
    largest = LARGEST_CPU if like.device.type == "cpu" else LARGEST
    size = min(
        int(LARGEST_PART * num_classes / (buffers * ratio)), max(NARROWEST, largest // num_rows)
    )
    size = max(size, SMALLEST // num_rows, 1)
    if size > 64:
        size -= size % 64  # products in whole tiles
    return min(size, num_classes)


class _RowSums:
    """Sums over the classes so far, relative to the largest logit so far; (N,) each."""

    def __init__(self, target: Tensor, alpha: Alpha, dtype: torch.dtype) -> None:
        zeros = torch.zeros(target.shape[0], dtype=dtype, device=target.device)
        self.alpha = alpha
        # Not -inf, which would make nan of a first block that is all -inf.
        self.largest = torch.full_like(zeros, torch.finfo(dtype).min)
        self.exp = self.exp_tampered = self.rest = zeros

    def add(self, z: Tensor, q: TargetBlocks, classes: slice) -> None:
        """Add a block of logits, which is overwritten."""
        q.take_labels(z, classes)
        largest = torch.maximum(self.largest, z.amax(1))
        shift, self.largest = self.largest - largest, largest
        z.sub_(largest.unsqueeze(1))
        self.rest = q.add_rest(self.rest, shift, z, classes)
        self.exp = self.exp * shift.exp() + z.exp().sum(1)
        if isinstance(self.alpha, float) and self.alpha == 1:
            self.exp_tampered = self.exp
            return
        tampered = _temper_(z, self.alpha).exp_().sum(1)
        self.exp_tampered = self.exp_tampered * _temper_(shift, self.alpha).exp() + tampered


class Gradients:
    """The gradients, as they grow by blocks.

    Args:
        head: what they are of.
        needed: which of them.
        unit: 0-d, what they are yet to be multiplied by, or None.
    """

    def __init__(self, head: Head, needed: Needed, unit: Tensor | None) -> None:
        self.unit, self.dtype = unit, head.hidden.dtype
        hidden, weight, bias = head
        self.hidden = self.weight = self.bias = None
        if needed.hidden:  # every block adds to it
            self.hidden = hidden.new_zeros(hidden.shape, dtype=compute_dtype(self.dtype))
        if needed.weight:
            self.weight = weight.new_empty(weight.shape)
        if needed.bias and bias is not None:
            self.bias = bias.new_empty(bias.shape)

    def add(self, grad_z: Tensor, hidden: Tensor, block: _Block) -> None:
        """Add what a block's gradient of the logits (N, block) gives."""
        dtype = compute_dtype(self.dtype)
        if self.hidden is not None:
            if grad_z.dtype == dtype:
                self.hidden.addmm_(grad_z, block.weight)
            elif self.hidden.is_cuda:
                torch.addmm(self.hidden, grad_z, block.weight, out_dtype=dtype, out=self.hidden)
            else:
                self.hidden.add_(product(grad_z, block.weight, dtype))
        if self.weight is not None:
            weight = self.weight[block.classes]
            if (
                grad_z.dtype == weight.dtype and self.unit is None
            ):  # summed in float32, rounded once
                torch.mm(grad_z.t(), hidden, out=weight)
            else:
                weight.copy_(self._scaled(product(grad_z.t(), hidden, dtype)))
        if self.bias is not None:
            self.bias[block.classes] = self._scaled(grad_z.sum(0, dtype=dtype))

    def finish(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        hidden = self.hidden
        if hidden is not None:
            hidden = self._scaled(hidden).to(self.dtype)
        return hidden, self.weight, self.bias

    def _scaled(self, gradient: Tensor) -> Tensor:
        return gradient if self.unit is None else gradient.mul_(self.unit)


def blocks_of(head: Head, target: Tensor, dtype: torch.dtype) -> Iterator[_Block]:
    """The classes in slices of one size; the last may be smaller."""
    num_rows, num_classes = head.hidden.shape[0], head.weight.shape[0]
    size = block_size(num_rows, num_classes, head.hidden, not is_index(target))
    for start in range(0, num_classes, size):
        classes = slice(start, min(start + size, num_classes))
        bias = None if head.bias is None else head.bias[classes].to(dtype)
        yield _Block(classes, operand(head.weight[classes], dtype), bias)


def _logits(hidden: Tensor, block: _Block, dtype: torch.dtype) -> Tensor:
    """A block of logits, (N, block), in the compute dtype."""
    if block.bias is None:
        return product(hidden, block.weight.t(), dtype)
    if hidden.dtype == dtype:
        return torch.addmm(block.bias, hidden, block.weight.t())
    return product(hidden, block.weight.t(), dtype).add_(block.bias)


def split_scale(scale: Tensor) -> tuple[Tensor, Tensor]:
    """Rows' scales as at most 1 and their largest, which the finished gradients are scaled by.

    A gradient of the logits that is rounded to float16 would else lose the small
    probabilities, as 1 / N and the loss scale are in it.
    """
    if scale.numel() == 0:
        return scale, scale.new_ones(())
    unit = scale.abs().amax()
    return torch.where(unit == 0, 0, scale / unit), unit


def _temper_(z: Tensor, alpha: Alpha) -> Tensor:
    """alpha z, in place; -inf stays, whatever alpha is."""
    if isinstance(alpha, float) and alpha > 0:
        return z if alpha == 1 else z.mul_(alpha)
    is_excluded = z == -torch.inf
    factor = alpha.to(z.dtype) if isinstance(alpha, Tensor) else alpha
    return z.mul_(factor).masked_fill_(is_excluded, -torch.inf)
