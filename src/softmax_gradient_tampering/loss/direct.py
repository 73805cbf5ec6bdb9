"""The loss by the fewest steps, of plain calls: of few logits every step of Python counts.

What options a call has for that, `functional.is_direct` says. On a CPU the compiled code computes
it, or torch's operations where that is missing; on a GPU the kernel that makes loss and gradient
at once.
"""

from typing import Any

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.kernels.cpu import blocks, native
from softmax_gradient_tampering.loss.kernels.cpu.native_library import native_library
from softmax_gradient_tampering.loss.kernels.cpu.plain import PlainLogits
from softmax_gradient_tampering.loss.kernels.options import DEFAULTS
from softmax_gradient_tampering.loss.kernels.selection import select_plain
from softmax_gradient_tampering.loss.operator import gradient
from softmax_gradient_tampering.loss.torch_internals import is_plain_gradient


def direct_cross_entropy(
    logits: Tensor, target: Tensor, alpha: float, kernel: str
) -> Tensor | None:
    """The loss of logits and class indices with the default options; its gradient is tampered with.

    None where they need more steps.
    """
    loss: Tensor | None = None
    if logits.is_cuda:
        if kernel == "auto" and _is_for_device(logits, target):
            loss = OnDevice.apply(logits, target, alpha)
    elif alpha >= native.SMALLEST_ALPHA and PlainLogits.takes(logits, target):
        library = None if kernel == "blocks" else native_library()
        if library is None:
            plain: PlainLogits = blocks.PlainLogits(logits, target)
        else:
            plain = native.PlainLogits(library, logits, target)
        loss = OnCpu.apply(logits, target, alpha, plain)
    return loss


def _is_for_device(logits: Tensor, target: Tensor) -> bool:
    if not (logits.requires_grad and torch.is_grad_enabled()):
        return False
    plain = select_plain(logits)
    return plain is not None and bool(plain.takes(logits, target))


class OnCpu(torch.autograd.Function):
    """By a kernel's `PlainLogits`."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, alpha: float, plain: PlainLogits
    ) -> Tensor:
        ctx.plain, ctx.alpha = plain, alpha
        ctx.save_for_backward(logits, target)
        return plain.forward(logits, target)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None]:
        logits, target = ctx.saved_tensors
        plain, alpha = ctx.plain, ctx.alpha
        # Whoever saves tensors for autograd (a hook of torch's) may give others back.
        if is_plain_gradient(grad_loss) and plain.holds(logits, target):
            return plain.backward(grad_loss, logits, target, alpha), None, None, None
        grad = gradient(grad_loss, logits, plain.stats, target, alpha, DEFAULTS)
        return grad, None, None, None


class OnDevice(torch.autograd.Function):
    """By `fused.PlainLogits`, on a GPU; `operator` says what becomes of a gradient made at once."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, alpha: float) -> Tensor:
        is_autocast = torch.is_autocast_enabled("cuda")
        loss_dtype = torch.float32 if is_autocast else logits.dtype
        plain = select_plain(logits)(logits, target, loss_dtype)
        loss, stats, grad = plain.forward(logits, target, alpha)
        ctx.plain, ctx.alpha = plain, alpha
        ctx.address = None if grad is None else grad.data_ptr()
        ctx.save_for_backward(logits, target, stats, grad)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None]:
        logits, target, stats, grad = ctx.saved_tensors
        plain, is_made = ctx.plain, grad is not None
        if is_made:  # and handed out once
            ctx.plain = None
        is_here = plain is not None and plain.holds(logits)
        is_here &= not is_made or grad.data_ptr() == ctx.address
        if is_here and is_plain_gradient(grad_loss):
            grad = plain.backward(grad_loss, logits, target, ctx.alpha, stats, grad)
        else:
            options = DEFAULTS._replace(kernel="triton")  # the statistics are its own
            grad = gradient(grad_loss, logits, stats, target, ctx.alpha, options)
        return grad, None, None
