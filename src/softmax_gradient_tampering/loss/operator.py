"""The operator of the cross-entropy: forward and backward, fake, autograd.

Its two halves are operators of torch's dispatcher, for those who trace. They are defined and
differentiated by hand: `torch.library.custom_op` costs several times as much a call, and what it
makes of a formula does not pass under torch.func. An eager call goes to the kernel directly.
"""

from typing import Any

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.dispatcher import (
    Implementations,
    LossOperator,
    as_graph_input,
)
from softmax_gradient_tampering.loss.generic import composite_cross_entropy, is_for_operations
from softmax_gradient_tampering.loss.kernels import compiled, reference
from softmax_gradient_tampering.loss.kernels.options import (
    Options,
    compute_dtype,
    is_index,
    loss_divisor,
)
from softmax_gradient_tampering.loss.kernels.selection import select_fused, select_kernel
from softmax_gradient_tampering.loss.torch_internals import (
    has_tangent,
    is_batch_of_gradients,
    is_eager,
    is_plain_gradient,
    is_transformed,
)


def differentiable_cross_entropy(
    logits: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> Tensor:
    """The loss of (N, C, d1, ...) logits; its gradient is tampered with.

    Under torch.func's transforms the reference kernel runs, in torch operations that these
    transforms know, and for few logits under torch.compile too; elsewhere the kernel of the device.
    """
    if torch.compiler.is_compiling() and _is_better_compiled(logits, options):
        from softmax_gradient_tampering.loss.kernels import in_graph  # loads torch's compiler

        return in_graph.cross_entropy_in_graph(logits, target, as_graph_input(alpha), *options)
    if torch.compiler.is_compiling() or not (is_transformed() or is_eager(logits)):
        return _FORWARD(logits, target, alpha, options)[0]
    return _apply(logits, target, alpha, options)[0]


def _is_better_compiled(logits: Tensor, options: Options) -> bool:
    """Whether the compiler makes faster code of torch's operations than a call of a kernel is."""
    is_free = options.kernel == "auto" and not torch.compiler.is_exporting()
    return is_free and logits.device.type == "cpu" and logits.numel() <= compiled.FEW_LOGITS


def _apply(logits: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """Loss and statistics, recorded by autograd."""
    if is_for_operations():
        loss = composite_cross_entropy(logits, target, alpha, options)
        return loss, loss_divisor(target, options, logits)
    function: type[torch.autograd.Function] = _Recorded
    if is_transformed() or has_tangent(logits):
        function = _Transformable
    elif _is_fused(logits, options):
        function = _Fused
    return _call(function, logits, target, alpha, options)


def _is_fused(logits: Tensor, options: Options) -> bool:
    """Whether a backward pass is to come for which the gradient is better made at once."""
    is_recorded = logits.requires_grad and torch.is_grad_enabled() and is_eager(logits)
    return is_recorded and select_fused(options.kernel, logits, options) is not None


def _call(
    function: type[torch.autograd.Function],
    logits: Tensor,
    target: Tensor,
    alpha: Alpha,
    options: Options,
) -> tuple[Tensor, Tensor]:
    weight = options.weight
    if weight is not None:  # an argument of its own, so that autograd sees it
        options = options._replace(weight=None)
    return function.apply(logits, target, weight, alpha, options)


class _Recorded(torch.autograd.Function):
    """The kernel of the device, as autograd records it, eagerly or while somebody traces."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        alpha: Alpha,
        options: Options,
    ) -> tuple[Tensor, Tensor]:
        loss, stats = _FORWARD.run(logits, target, alpha, _with_weight(options, weight))
        ctx.options, ctx.number = options, None if isinstance(alpha, Tensor) else alpha
        # A tensor is saved for torch to see where it is written to before the backward pass.
        alpha_tensor = alpha if ctx.number is None else None
        ctx.save_for_backward(logits, target, weight, stats, alpha_tensor)
        ctx.mark_non_differentiable(stats)
        ctx.set_materialize_grads(False)  # none is made for the statistics
        return loss, stats

    @staticmethod
    def backward(
        ctx: Any, grad_loss: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, None, None, None, None]:
        if grad_loss is None:
            return None, None, None, None, None
        logits, target, weight, stats, alpha = ctx.saved_tensors
        alpha, options = ctx.number if alpha is None else alpha, _with_weight(ctx.options, weight)
        grad = gradient(grad_loss, logits, stats, target, alpha, options)
        return grad, None, None, None, None


class _Fused(torch.autograd.Function):
    """The same with the gradient made at once, in the memory in which it is handed out, once.

    A later backward pass over the same graph makes another, and so does one that somebody wants
    to differentiate, or to whom a hook gives other tensors than were saved.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        alpha: Alpha,
        options: Options,
    ) -> tuple[Tensor, Tensor]:
        ctx.kernel = select_fused(options.kernel, logits, options)
        ctx.options, ctx.number = options, None if isinstance(alpha, Tensor) else alpha
        loss, stats, made = ctx.kernel.forward(logits, target, alpha, _with_weight(options, weight))
        ctx.made, ctx.addresses = made, (logits.data_ptr(), made.grad.data_ptr())
        alpha_tensor = alpha if ctx.number is None else None
        ctx.save_for_backward(logits, target, weight, stats, alpha_tensor, made.grad)
        ctx.mark_non_differentiable(stats)
        ctx.set_materialize_grads(False)
        return loss, stats

    @staticmethod
    def backward(
        ctx: Any, grad_loss: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, None, None, None, None]:
        if grad_loss is None:
            return None, None, None, None, None
        logits, target, weight, stats, alpha, grad = ctx.saved_tensors
        alpha, options = ctx.number if alpha is None else alpha, _with_weight(ctx.options, weight)
        made, ctx.made = ctx.made, None
        is_here = made is not None and ctx.addresses == (logits.data_ptr(), grad.data_ptr())
        if is_here and is_plain_gradient(grad_loss):
            arguments = grad_loss, logits, target, alpha, stats, options
            return ctx.kernel.backward(*arguments, made), None, None, None, None
        grad = gradient(grad_loss, logits, stats, target, alpha, options)
        return grad, None, None, None, None


class _Reference(torch.autograd.Function):
    """The reference kernel, in torch's operations."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        logits: Tensor, target: Tensor, weight: Tensor | None, alpha: Alpha, options: Options
    ) -> tuple[Tensor, Tensor]:
        return reference.forward(logits, target, alpha, options._replace(weight=weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *_, alpha, ctx.options = inputs
        ctx.number = None if isinstance(alpha, Tensor) else alpha
        ctx.save_for_backward(*_tensors_of(inputs))
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # so that a missing tangent is None

    @staticmethod
    def backward(
        ctx: Any, grad_loss: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, None, None, None, None]:
        grad = None if grad_loss is None else _Reference._gradient(ctx, grad_loss)
        return grad, None, None, None, None

    @staticmethod
    def _gradient(ctx: Any, grad_loss: Tensor) -> Tensor:
        logits, target, weight, alpha = ctx.saved_tensors
        options = ctx.options._replace(weight=weight)
        alpha = alpha if ctx.number is None else ctx.number
        return _differentiable_gradient(grad_loss, logits, target, alpha, options)


class _Transformable(_Reference):
    """The same for torch.func.grad, vmap, jvp and their compositions.

    Torch.compile takes no Function that has a jvp.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _Reference.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*_tensors_of(inputs))

    @staticmethod
    def jvp(ctx: Any, logits_tangent: Tensor | None, *others: Tensor | None) -> Any:
        if logits_tangent is None or any(tangent is not None for tangent in others):
            raise NotImplementedError("forward-mode AD is in the logits alone")
        rows = ctx.options.reduction == "none"
        shape = logits_tangent.shape[:1] + logits_tangent.shape[2:] if rows else ()
        grad = _Transformable._gradient(ctx, logits_tangent.new_ones(shape))
        product = grad * logits_tangent
        tangent = product.sum(1) if rows else product.sum()
        return tangent.to(ctx.options.loss_dtype), None


def _tensors_of(inputs: tuple[Any, ...]) -> tuple[Tensor | None, ...]:
    """Logits, target, weight, and alpha where it is a tensor."""
    *tensors, alpha, _ = inputs
    return *tensors, alpha if isinstance(alpha, Tensor) else None


def gradient(
    grad_loss: Tensor, logits: Tensor, stats: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> Tensor:
    """The tampered gradient; by the kernel that torch can differentiate where it may have to.

    That is where the graph of the gradient is wanted, and where a whole batch of incoming
    gradients comes at once (is_grads_batched).
    """
    is_recorded = torch.is_grad_enabled() and (grad_loss.requires_grad or logits.requires_grad)
    if is_recorded or is_transformed() or is_batch_of_gradients(grad_loss):
        return _differentiable_gradient(grad_loss, logits, target, alpha, options)
    grad: Tensor = _BACKWARD.run(grad_loss, logits, stats, target, alpha, options)
    return grad


def _differentiable_gradient(
    grad_loss: Tensor, logits: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> Tensor:
    """The tampered gradient by the kernel that torch can differentiate."""
    divisor = loss_divisor(target, options, logits)
    return reference.backward(grad_loss, logits, target, alpha, divisor, options)


def _with_weight(options: Options, weight: Tensor | None) -> Options:
    return options if weight is None else options._replace(weight=weight)


# What the dispatcher calls, through `LossOperator`.


def _run_forward(
    logits: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> tuple[Tensor, Tensor]:
    return select_kernel(options.kernel, logits).forward(logits, target, alpha, options)


def _run_backward(
    grad_loss: Tensor, logits: Tensor, stats: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> Tensor:
    kernel = select_kernel(options.kernel, logits)
    return kernel.backward(grad_loss, logits, target, alpha, stats, options)


def _fake_forward(
    logits: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> tuple[Tensor, Tensor]:
    shape = logits.shape[:1] + logits.shape[2:] if options.reduction == "none" else ()
    loss = logits.new_empty(shape, dtype=options.loss_dtype)
    stats_shape = select_kernel(options.kernel, logits).stats_shape(logits, target, options)
    return loss, logits.new_empty(stats_shape, dtype=compute_dtype(logits.dtype))


def _fake_backward(grad_loss: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _check_forward(logits: Tensor, target: Tensor, options: Options) -> None:
    fits = logits.dim() >= 2 and logits.is_floating_point() and target.device == logits.device
    if is_index(target):
        rows = logits.shape[:1] + logits.shape[2:]
        fits &= target.shape == rows and target.dtype == torch.int64
    else:
        fits &= target.shape == logits.shape
    weight = options.weight
    if weight is not None:
        fits &= weight.shape == logits.shape[1:2] and weight.device == logits.device
    if not fits:
        raise ValueError(
            f"the operator takes logits (N, C, d1, ...), here {tuple(logits.shape)}, and class "
            "indices (N, d1, ...) of int64 or probabilities of the logits' shape, here "
            f"{tuple(target.shape)} of {target.dtype}; tampered_cross_entropy says what is wrong"
        )


def _check_backward(
    grad_loss: Tensor, logits: Tensor, stats: Tensor, target: Tensor, options: Options
) -> None:
    _check_forward(logits, target, options)
    rows = logits.shape[:1] + logits.shape[2:]
    of_loss = rows if options.reduction == "none" else ()
    of_stats = select_kernel(options.kernel, logits).stats_shape(logits, target, options)
    if grad_loss.shape != of_loss or stats.shape != of_stats:
        raise ValueError(
            f"the operator takes a gradient of shape {tuple(of_loss)} and statistics of shape "
            f"{tuple(of_stats)}, here {tuple(grad_loss.shape)} and {tuple(stats.shape)}"
        )


_FORWARD = LossOperator(
    "cross_entropy",
    "Tensor logits",
    "(Tensor loss, Tensor stats)",
    Implementations(_check_forward, _run_forward, _fake_forward, _apply),
    has_kernel=True,
)
_BACKWARD = LossOperator(
    "cross_entropy_backward",
    "Tensor grad_loss, Tensor logits, Tensor stats",
    "Tensor",
    Implementations(_check_backward, _run_backward, _fake_backward, gradient),
    has_kernel=True,
)
