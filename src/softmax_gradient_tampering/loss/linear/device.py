"""The contract of `kernel` on a GPU, for float32 and half types, by Triton.

Blocks of classes as there, and the same statistics. What is done to a block between the products
is one pass each way, over blocks that stay in the second cache: statistics are corrected from
block to block, and the gradient is written in the dtype that the products take.
"""

from typing import Any

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.options import (
    Options,
    is_index,
    loss_divisor,
    row_scale,
)
from softmax_gradient_tampering.loss.kernels.selection import select_class_blocks
from softmax_gradient_tampering.loss.linear import kernel
from softmax_gradient_tampering.loss.linear.kernel import Gradients, Head, Needed, RowStatistics
from softmax_gradient_tampering.loss.linear.products import has_mixed_product, operand, product
from softmax_gradient_tampering.loss.torch_internals import is_transformed

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def takes(head: Head, target: Tensor, alpha: Alpha, options: Options) -> bool:
    """Whether these arguments can be computed here."""
    hidden = head.hidden
    return (
        hidden.dtype in _DTYPES
        and (hidden.dtype is torch.float32 or has_mixed_product(hidden))
        and hidden.shape[0] > 0
        and not is_transformed()
        and select_class_blocks(hidden.device) is not None
    )


def forward(
    head: Head, target: Tensor, alpha: Alpha, options: Options, is_differentiated: bool
) -> tuple[Tensor, RowStatistics]:
    """See `kernel.forward`."""
    num_classes = head.weight.shape[0]
    kernel.check_labels(target, num_classes, options.ignore_index)
    sums = _passes(head, target, alpha if is_differentiated else 1.0, options)
    hidden = operand(head.hidden, torch.float32)
    for block in kernel.blocks_of(head, target, torch.float32):
        z = product(hidden, block.weight.t(), torch.float32)
        sums.add(z, block.classes.start)
    largest, exp, exp_tampered, rest_mass, rest, label_logit = sums.sums
    mass = rest_mass
    loss = -rest
    if is_index(target):
        label_mass = _label_mass(target, options, num_classes)
        mass = mass + label_mass
        loss = loss - label_mass * (label_logit - largest)
    loss = mass * exp.log() + loss
    if is_index(target):
        loss = torch.where(target == options.ignore_index, 0, loss)
    if options.reduction != "none":
        loss = loss.sum() / loss_divisor(target, options, head.hidden)
    stats = RowStatistics(largest.clone(), exp_tampered.log(), mass.clone())
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
    """See `kernel.backward`."""
    hidden = operand(head.hidden, torch.float32)
    scale = row_scale(grad_loss, target, loss_divisor(target, options, head.hidden), options)
    unit = None
    if hidden.dtype == torch.float16:  # bfloat16 holds what is as small as in float32
        scale, unit = kernel.split_scale(scale)
    gradients = Gradients(head, needed, unit)
    passes = _passes(head, target, alpha, options)
    for block in kernel.blocks_of(head, target, torch.float32):
        z = product(hidden, block.weight.t(), torch.float32)
        grad_z = z if hidden.dtype == z.dtype else torch.empty_like(z, dtype=hidden.dtype)
        passes.gradient(z, block.classes.start, stats, scale, grad_z)
        del z  # before the products take their memory
        gradients.add(grad_z, hidden, block)
    return gradients.finish()


def _passes(head: Head, target: Tensor, alpha: Alpha, options: Options) -> Any:
    class_blocks: Any = select_class_blocks(head.hidden.device)
    return class_blocks.Passes(head.bias, head.weight.shape[0], target, alpha, options)


def _label_mass(target: Tensor, options: Options, num_classes: int) -> Tensor:
    """The part of q that is the label's, (N,)."""
    mass = torch.full(
        target.shape, 1 - options.label_smoothing, dtype=torch.float32, device=target.device
    )
    if options.weight is None:
        return mass
    label_weight = options.weight.float()[target.clamp(0, num_classes - 1)]
    return mass * torch.where(target == options.ignore_index, 0, label_weight)
