"""The contract of `kernel` on a CPU, for float32 and class indices, by the compiled code.

Blocks of classes as there, and the same statistics; what is done to a block between the products
is done in one pass each way, and the products are compiled code too. Logits may be kept from the
forward to the backward pass, which saves making them again, a matrix product: in memory of the
weight's gradient, of its shape (C, D), which the backward pass writes over the logits that it has
used. That costs no memory in the end, and holds D / N of the logits: all of them with at most as
many rows as features.
"""

import ctypes
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.cpu.native import SMALLEST_ALPHA
from softmax_gradient_tampering.loss.kernels.cpu.native_library import (
    ClassBlock,
    Matrix,
    RowSums,
    native_library,
)
from softmax_gradient_tampering.loss.kernels.options import (
    Options,
    is_index,
    loss_divisor,
    row_scale,
)
from softmax_gradient_tampering.loss.linear import kernel
from softmax_gradient_tampering.loss.linear.kernel import Head, Needed, RowStatistics
from softmax_gradient_tampering.loss.torch_internals import is_transformed


def takes(head: Head, target: Tensor, alpha: Alpha, options: Options) -> bool:
    """Whether these arguments can be computed here."""
    return (
        head.hidden.device.type == "cpu"
        and head.hidden.dtype is torch.float32
        and head.hidden.shape[0] > 0
        and is_index(target)
        and options.label_smoothing == 0
        and type(alpha) is float
        and alpha >= SMALLEST_ALPHA
        and not is_transformed()
        and native_library() is not None
    )


def memory_for_logits(head: Head) -> Tensor:
    """Memory for the weight's gradient, and until it is written for logits."""
    return torch.empty_like(head.weight, memory_format=torch.contiguous_format)


def forward(
    head: Head,
    target: Tensor,
    alpha: float,
    options: Options,
    is_differentiated: bool,
    memory: Tensor | None = None,
) -> tuple[Tensor, RowStatistics]:
    """See `kernel.forward`; `memory` of `memory_for_logits` is filled with logits."""
    num_classes = head.weight.shape[0]
    kernel.check_labels(target, num_classes, options.ignore_index)
    largest = head.hidden.new_full(target.shape, torch.finfo(torch.float32).min)
    label_logit = torch.zeros_like(largest)
    exp = torch.zeros_like(largest, dtype=torch.float64)
    has_tampered = is_differentiated and alpha != 1
    exp_tampered = torch.zeros_like(exp) if has_tampered else exp
    sums = RowSums(
        largest.data_ptr(),
        exp.data_ptr(),
        exp_tampered.data_ptr() if has_tampered else None,
        label_logit.data_ptr(),
    )
    for block in _blocks(head, target, options, memory):
        block.make()
        _library().sgt_add_classes(block.problem, alpha, sums)
    mass = _label_mass(target, options, num_classes, largest)
    loss = mass * (exp.log() - (label_logit - largest))
    loss = torch.where(target == options.ignore_index, 0, loss)
    if options.reduction != "none":
        loss = loss.sum() / loss_divisor(target, options, head.hidden)
    stats = RowStatistics(largest, exp_tampered.log().float(), mass)
    return loss.to(options.loss_dtype), stats


def backward(
    grad_loss: Tensor,
    head: Head,
    target: Tensor,
    alpha: float,
    stats: RowStatistics,
    options: Options,
    needed: Needed,
    memory: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """See `kernel.backward`; `memory` that `forward` has filled becomes the weight's gradient."""
    hidden, weight, bias = head
    scale = row_scale(grad_loss, target, loss_divisor(target, options, hidden), options)
    at_label = scale.squeeze(-1) * stats.mass
    factor = at_label * stats.log_sum.neg().exp()
    of_hidden = of_weight = of_bias = None
    if needed.hidden:
        of_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    if needed.weight:
        of_weight = memory_for_logits(head) if memory is None else memory
    if needed.bias and bias is not None:
        of_bias = torch.empty_like(bias)
    rows = [tensor.contiguous() for tensor in (stats.largest, factor, at_label)]
    for block in _blocks(head, target, options, memory):
        if block.kept is None:
            block.make()
        u, classes = block.scratch, block.classes
        pointers = (tensor.data_ptr() for tensor in (*rows, u))
        _library().sgt_write_classes(block.problem, alpha, *pointers)
        if of_hidden is not None:
            _multiply(u, weight[classes], of_hidden, adds=classes.start > 0)
        if of_weight is not None:
            _multiply(u.t(), hidden, of_weight[classes])
        if of_bias is not None:
            torch.sum(u, 0, out=of_bias[classes])
    return of_hidden, of_weight, of_bias


class _Block(NamedTuple):
    """A block of classes: its logits, which are kept or in `scratch`, and how they are made."""

    classes: slice
    problem: ClassBlock
    scratch: Tensor  # (N, block), the same memory for every block
    kept: Tensor | None
    head: Head

    def make(self) -> None:
        """Compute the logits."""
        hidden, weight, bias = self.head
        z = self.scratch if self.kept is None else self.kept
        if bias is not None:
            z.copy_(bias[self.classes])
        _multiply(hidden, weight[self.classes].t(), z, adds=bias is not None)


def _blocks(
    head: Head, target: Tensor, options: Options, memory: Tensor | None
) -> Iterator[_Block]:
    """The classes in slices of one size; the last may be smaller."""
    num_rows, num_classes = head.hidden.shape[0], head.weight.shape[0]
    size = kernel.block_size(num_rows, num_classes, head.hidden, False)
    if size % 128 == 0:
        size -= 64  # rows a power of two apart would have the same places in a cache
    scratch = head.hidden.new_empty(num_rows * size)
    labels = target.resolve_neg().contiguous()
    for start in range(0, num_classes, size):
        classes = slice(start, min(start + size, num_classes))
        shape = (num_rows, classes.stop - start)
        of_block = scratch[: math.prod(shape)].view(shape)
        kept = None if memory is None else _place(memory, start, shape)
        z = of_block if kept is None else kept
        problem = ClassBlock(
            *(z.data_ptr(), labels.data_ptr(), num_rows, start, shape[1]),
            *(options.ignore_index, torch.get_num_threads()),
        )
        yield _Block(classes, problem, of_block, kept, head)


def _place(memory: Tensor, start: int, shape: tuple[int, int]) -> Tensor | None:
    """Where the logits (N, block) of the classes from `start` on are kept, if they are.

    Blocks begin where those before them cannot reach, neither with N logits a class, nor with the
    D numbers of a class's gradient, which are written once the logits up to them have been used.
    """
    first = start * max(shape[0], memory.shape[1])
    end = first + math.prod(shape)
    return memory.view(-1)[first:end].view(shape) if end <= memory.numel() else None


def _label_mass(target: Tensor, options: Options, num_classes: int, like: Tensor) -> Tensor:
    """sum_c q_c, (N,): the label's class weight, 0 where it is ignored."""
    if options.weight is None:
        mass = torch.ones_like(like)
    else:
        mass = options.weight.to(like.dtype)[target.clamp(0, num_classes - 1)]
    return torch.where(target == options.ignore_index, 0, mass)


def _multiply(left: Tensor, right: Tensor, to: Tensor, adds: bool = False) -> None:
    """Write left right to `to`, or add it: torch's products leave much of some processors idle."""
    left, right = left.resolve_neg(), right.resolve_neg()
    of_left, of_right, of_product = (
        Matrix(tensor.data_ptr(), *tensor.shape, *tensor.stride()) for tensor in (left, right, to)
    )
    _library().sgt_multiply(of_left, of_right, adds, of_product, torch.get_num_threads())


def _library() -> ctypes.CDLL:
    library = native_library()
    assert library is not None  # `takes` was asked
    return library
