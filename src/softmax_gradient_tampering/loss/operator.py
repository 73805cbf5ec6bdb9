"""The operator of the cross-entropy: forward and backward, fake, autograd.

The two operators are registered with `torch.library.Library` and wired into autograd
by hand, because `torch.library.custom_op` costs several times as much a call and does
not pass under torch.func. They are for those who trace: torch.compile, fake tensors,
dispatch modes. An eager call goes to the kernel directly, which saves the dispatcher's part.
"""

from typing import Any

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels import reference
from softmax_gradient_tampering.loss.kernels.options import Options, compute_dtype, loss_divisor
from softmax_gradient_tampering.loss.kernels.selection import select_kernel
from softmax_gradient_tampering.loss.torch_internals import (
    has_dispatch_mode,
    is_batch_of_gradients,
    is_transformed,
)

_library = torch.library.Library("softmax_gradient_tampering", "DEF")
# alpha travels as a number, or as `alpha_tensor` where it may not be read. An argument
# of the name `kernel` would clash with one of torch's own when it compiles.
_OPTIONS = (
    "Tensor target, float alpha, Tensor? alpha_tensor, Tensor? weight, int ignore_index, "
    "str reduction, float label_smoothing, ScalarType loss_dtype, str kernel_name='auto'"
)
_library.define(f"cross_entropy(Tensor logits, {_OPTIONS}) -> (Tensor loss, Tensor stats)")
_library.define(
    f"cross_entropy_backward(Tensor grad_loss, Tensor logits, Tensor stats, {_OPTIONS}) -> Tensor"
)


def tampered_cross_entropy_rows(
    logits: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> Tensor:
    """The loss of (N, C) logits; its gradient is tampered with.

    Under torch.func's transforms the reference kernel runs, in torch operations that
    these transforms know; elsewhere the operators above.
    """
    function = _Transformable if is_transformed() else _Operator
    weight = options.weight
    if weight is not None:  # an argument of its own, so that autograd sees it
        options = options._replace(weight=None)
    return function.apply(logits, target, weight, alpha, options)


class _Operator(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        alpha: Alpha,
        options: Options,
    ) -> Tensor:
        ctx.alpha, ctx.options = alpha, options
        loss, stats = _forward(logits, target, alpha, _with_weight(options, weight))
        ctx.save_for_backward(logits, target, weight, stats)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, target, weight, stats = ctx.saved_tensors
        options = _with_weight(ctx.options, weight)
        if torch.is_grad_enabled():
            # The graph of the gradient is wanted: the kernel that torch can differentiate.
            divisor = loss_divisor(target, options, logits)
            grad = reference.backward(grad_loss, logits, target, ctx.alpha, divisor, options)
        else:
            grad = _backward(grad_loss, logits, target, ctx.alpha, stats, options)
        return grad, None, None, None, None


class _Transformable(torch.autograd.Function):
    """The reference kernel, for torch.func.grad, vmap, jvp and their compositions."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        logits: Tensor, target: Tensor, weight: Tensor | None, alpha: Alpha, options: Options
    ) -> Tensor:
        options = options._replace(weight=weight)
        return reference.forward(logits, target, alpha, options)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, target, weight, alpha, ctx.options = inputs
        ctx.number = None if isinstance(alpha, Tensor) else alpha
        saved = (logits, target, weight, alpha if ctx.number is None else None)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        ctx.set_materialize_grads(False)  # so that a missing tangent is None

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _Transformable._gradient(ctx, grad_loss), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, logits_tangent: Tensor | None, *others: Tensor | None) -> Tensor:
        if logits_tangent is None or any(tangent is not None for tangent in others):
            raise NotImplementedError("forward-mode AD is in the logits alone")
        rows = ctx.options.reduction == "none"
        shape = logits_tangent.shape[:1] if rows else ()
        grad = _Transformable._gradient(ctx, logits_tangent.new_ones(shape))
        tangent = (grad * logits_tangent).sum(-1 if rows else (0, 1))
        return tangent.to(ctx.options.loss_dtype)

    @staticmethod
    def _gradient(ctx: Any, grad_loss: Tensor) -> Tensor:
        logits, target, weight, alpha = ctx.saved_tensors
        options = ctx.options._replace(weight=weight)
        alpha = alpha if ctx.number is None else ctx.number
        stats = loss_divisor(target, options, logits)
        return reference.backward(grad_loss, logits, target, alpha, stats, options)


def _forward(
    logits: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> tuple[Tensor, Tensor]:
    if _is_eager(logits):
        return select_kernel(options.kernel, logits).forward(logits, target, alpha, options)
    arguments = target, *_pack(alpha), *options
    return torch.ops.softmax_gradient_tampering.cross_entropy(logits, *arguments)


def _backward(
    grad_loss: Tensor, logits: Tensor, target: Tensor, alpha: Alpha, stats: Tensor, options: Options
) -> Tensor:
    if _is_eager(logits):
        kernel = select_kernel(options.kernel, logits)
        if is_batch_of_gradients(grad_loss):
            # A whole batch of gradients at once (is_grads_batched): torch's operations know it.
            kernel = reference
        return kernel.backward(grad_loss, logits, target, alpha, stats, options)
    arguments = target, *_pack(alpha), *options
    return torch.ops.softmax_gradient_tampering.cross_entropy_backward(
        grad_loss, logits, stats, *arguments
    )


def _is_eager(logits: Tensor) -> bool:
    """Whether nobody traces or intercepts: a plain tensor, no compiler, no dispatch mode."""
    return (
        type(logits) in (Tensor, torch.nn.Parameter)
        and not torch.compiler.is_compiling()
        and not has_dispatch_mode()
    )


def _with_weight(options: Options, weight: Tensor | None) -> Options:
    return options if weight is None else options._replace(weight=weight)


def _pack(alpha: Alpha) -> tuple[float, Tensor | None]:
    return (1.0, alpha) if isinstance(alpha, Tensor) else (alpha, None)


def _run_forward(
    logits: Tensor, target: Tensor, alpha: float, alpha_tensor: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    exponent, unpacked = alpha if alpha_tensor is None else alpha_tensor, Options(*options)
    return select_kernel(unpacked.kernel, logits).forward(logits, target, exponent, unpacked)


def _run_backward(
    grad_loss: Tensor,
    logits: Tensor,
    stats: Tensor,
    target: Tensor,
    alpha: float,
    alpha_tensor: Tensor | None,
    *options: Any,
) -> Tensor:
    exponent, unpacked = alpha if alpha_tensor is None else alpha_tensor, Options(*options)
    kernel = select_kernel(unpacked.kernel, logits)
    return kernel.backward(grad_loss, logits, target, exponent, stats, unpacked)


@torch.library.register_fake("softmax_gradient_tampering::cross_entropy")
def _fake_forward(
    logits: Tensor, target: Tensor, alpha: float, alpha_tensor: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    unpacked = Options(*options)
    shape = logits.shape[:1] if unpacked.reduction == "none" else ()
    loss = logits.new_empty(shape, dtype=unpacked.loss_dtype)
    stats_shape = select_kernel(unpacked.kernel, logits).stats_shape(logits, target, unpacked)
    return loss, logits.new_empty(stats_shape, dtype=compute_dtype(logits.dtype))


@torch.library.register_fake("softmax_gradient_tampering::cross_entropy_backward")
def _fake_backward(grad_loss: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


_library.impl("cross_entropy", _run_forward, "CompositeExplicitAutograd")
_library.impl("cross_entropy_backward", _run_backward, "CompositeExplicitAutograd")
