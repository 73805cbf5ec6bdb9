"""The reference for torch.compile: what both passes sum is summed at once.

The backward pass is then one pass over the logits, without sums, as it is of torch's own loss.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels import reference
from softmax_gradient_tampering.loss.kernels.options import Options, compute_dtype


def compiled_cross_entropy(
    logits: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> Tensor:
    """The loss of (N, C, d1, ...) logits, whose gradient is tampered with, to be compiled."""
    without_weight = options._replace(weight=None)  # an argument of its own, so that autograd sees
    loss: Tensor = _Compiled.apply(logits, target, options.weight, alpha, without_weight)
    return loss


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        alpha: Alpha,
        options: Options,
    ) -> Tensor:
        loss, divisor = reference.forward(logits, target, alpha, options._replace(weight=weight))
        log_sum = reference.tampered_log_sum(logits.to(compute_dtype(logits.dtype)), alpha)
        ctx.options = options
        ctx.number = None if isinstance(alpha, Tensor) else alpha
        alpha_tensor = alpha if ctx.number is None else None
        ctx.save_for_backward(logits, target, weight, divisor, log_sum, alpha_tensor)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, target, weight, divisor, log_sum, alpha = ctx.saved_tensors
        alpha = ctx.number if alpha is None else alpha
        log_p = reference.multiply(logits.to(log_sum.dtype), alpha) - log_sum
        options = ctx.options._replace(weight=weight)
        grad = reference.gradient(grad_loss, log_p, target, divisor, options)
        return grad.to(logits.dtype), None, None, None, None
