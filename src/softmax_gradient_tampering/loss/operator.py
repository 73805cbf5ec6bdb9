"""The operator of the cross-entropy: forward and backward per device, fake, autograd.

Torch's dispatcher picks the kernel: `cpu` on a CPU, `reference` on any other device.
The two operators are registered with `torch.library.Library` and wired into autograd
by hand, because `torch.library.custom_op` costs several times as much a call and does
not pass under torch.func.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels import cpu, reference
from softmax_gradient_tampering.loss.kernels.options import Options, compute_dtype, loss_divisor

_library = torch.library.Library("softmax_gradient_tampering", "DEF")
# alpha travels as a number, or as `alpha_tensor` where it may not be read.
_OPTIONS = (
    "Tensor target, float alpha, Tensor? alpha_tensor, Tensor? weight, int ignore_index, "
    "str reduction, float label_smoothing, ScalarType loss_dtype"
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
    is_transformed = torch._C._are_functorch_transforms_active()
    function = _Transformable if is_transformed else _Operator
    # The weight is an argument of its own, so that autograd sees it.
    return function.apply(logits, target, options.weight, alpha, options._replace(weight=None))


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
        options = options._replace(weight=weight)
        loss, stats = torch.ops.softmax_gradient_tampering.cross_entropy(
            logits, target, *_pack(alpha), *options
        )
        ctx.save_for_backward(logits, target, weight, stats)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, target, weight, stats = ctx.saved_tensors
        options = ctx.options._replace(weight=weight)
        if torch.is_grad_enabled():  # the graph of the gradient is wanted
            grad = reference.backward(grad_loss, logits, target, ctx.alpha, stats, options)
        else:
            grad = torch.ops.softmax_gradient_tampering.cross_entropy_backward(
                grad_loss, logits, stats, target, *_pack(ctx.alpha), *options
            )
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


def _pack(alpha: Alpha) -> tuple[float, Tensor | None]:
    return (1.0, alpha) if isinstance(alpha, Tensor) else (alpha, None)


_Forward = Callable[[Tensor, Tensor, Alpha, Options], tuple[Tensor, Tensor]]
_Backward = Callable[[Tensor, Tensor, Tensor, Alpha, Tensor, Options], Tensor]


def _register(dispatch_key: str, kernel_forward: _Forward, kernel_backward: _Backward) -> None:
    """Make a kernel the implementation of both operators for a dispatch key."""

    def forward(
        logits: Tensor, target: Tensor, alpha: float, alpha_tensor: Tensor | None, *options: Any
    ) -> tuple[Tensor, Tensor]:
        exponent = alpha if alpha_tensor is None else alpha_tensor
        return kernel_forward(logits, target, exponent, Options(*options))

    def backward(
        grad_loss: Tensor,
        logits: Tensor,
        stats: Tensor,
        target: Tensor,
        alpha: float,
        alpha_tensor: Tensor | None,
        *options: Any,
    ) -> Tensor:
        exponent = alpha if alpha_tensor is None else alpha_tensor
        return kernel_backward(grad_loss, logits, target, exponent, stats, Options(*options))

    _library.impl("cross_entropy", forward, dispatch_key)
    _library.impl("cross_entropy_backward", backward, dispatch_key)


@torch.library.register_fake("softmax_gradient_tampering::cross_entropy")
def _fake_forward(
    logits: Tensor, target: Tensor, alpha: float, alpha_tensor: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    shape = logits.shape[:1] if Options(*options).reduction == "none" else ()
    loss = logits.new_empty(shape, dtype=Options(*options).loss_dtype)
    return loss, logits.new_empty((), dtype=compute_dtype(logits.dtype))


@torch.library.register_fake("softmax_gradient_tampering::cross_entropy_backward")
def _fake_backward(grad_loss: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


_register("CompositeExplicitAutograd", reference.forward, reference.backward)
_register("CPU", cpu.forward, cpu.backward)
