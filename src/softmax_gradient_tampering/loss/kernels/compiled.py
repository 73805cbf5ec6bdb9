"""The reference for torch.compile: what is summed for the backward pass is saved.

The backward pass is then one pass over the logits, without sums, as it is of torch's own loss.
"""

from typing import Any

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels import reference
from softmax_gradient_tampering.loss.kernels.options import Options, compute_dtype

# So many that a kernel saves less time than the call of an operator in a compiled graph takes.
FEW_LOGITS = 2**17


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
        # The loss has the same largest logits: the compiler finds them once for both.
        largest = logits.to(compute_dtype(logits.dtype)).amax(1, keepdim=True)
        exp_sum = _exponentials(logits, largest, alpha).sum(1, keepdim=True)
        ctx.options = options
        ctx.number = None if isinstance(alpha, Tensor) else alpha
        alpha_tensor = alpha if ctx.number is None else None
        ctx.save_for_backward(logits, target, weight, divisor, largest, exp_sum, alpha_tensor)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, target, weight, divisor, largest, exp_sum, alpha = ctx.saved_tensors
        alpha, options = ctx.number if alpha is None else alpha, ctx.options._replace(weight=weight)
        if torch.is_grad_enabled():  # to be differentiated: the sums are no constants then
            grad = reference.backward(grad_loss, logits, target, alpha, divisor, options)
            return grad, None, None, None, None
        p = _exponentials(logits, largest, alpha) / exp_sum
        grad = reference.gradient(grad_loss, p, target, divisor, options)
        return grad.to(logits.dtype), None, None, None, None


def _exponentials(logits: Tensor, largest: Tensor, alpha: Alpha) -> Tensor:
    """exp(alpha (z - m)) with m the largest logits; at alpha = 0, 0 where z is -inf, and else 1."""
    z = logits.to(largest.dtype)
    if isinstance(alpha, float) and alpha > 0:
        return (alpha * (z - largest)).exp()
    factor = alpha.to(z.dtype) if isinstance(alpha, Tensor) else alpha
    zero = torch.as_tensor(factor == 0, device=z.device)
    exponent = torch.where(zero, 0, factor * (z - largest))  # 0 times inf or nan is nan
    return torch.where(z == -torch.inf, 0, exponent.exp())
