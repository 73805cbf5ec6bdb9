"""The operator of hidden states and a classifier: forward and backward, fake, autograd.

It is one kernel for every device, in torch's own operations, and opaque to torch.compile:
traced, the blocks would be unrolled, and the memory between them the compiler's choice.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.dispatcher import Implementations, LossOperator
from softmax_gradient_tampering.loss.functional import tampered_cross_entropy
from softmax_gradient_tampering.loss.kernels import reference
from softmax_gradient_tampering.loss.kernels.options import Options, compute_dtype, loss_divisor
from softmax_gradient_tampering.loss.linear import device, native
from softmax_gradient_tampering.loss.linear import kernel as linear
from softmax_gradient_tampering.loss.linear.arguments import check_head, check_target
from softmax_gradient_tampering.loss.linear.kernel import Head, Needed, RowStatistics
from softmax_gradient_tampering.loss.torch_internals import (
    has_tangent,
    is_batch_of_gradients,
    is_eager,
    is_plain,
    is_transformed,
)


def differentiable_linear_cross_entropy(
    head: Head, target: Tensor, alpha: Alpha, options: Options
) -> Tensor:
    """The loss of hidden (N, D) and its classifier; the gradients are tampered with."""
    if not is_plain(*head, target) or has_tangent(*head):
        return _by_logits(head, target, alpha, options)
    if torch.compiler.is_compiling():
        loss: Tensor = _FORWARD(*head, False, target, alpha, options)[0]
        return loss
    return _apply(*head, False, target, alpha, options)[0]


def _by_logits(head: Head, target: Tensor, alpha: Alpha, options: Options) -> Tensor:
    """The loss of the whole logits, for what their operator and torch's operations know alone."""
    arguments = options._asdict()
    dtype = arguments.pop("loss_dtype")
    return tampered_cross_entropy(F.linear(*head), target, alpha, **arguments).to(dtype)


def _apply(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    is_differentiated: bool,
    target: Tensor,
    alpha: Alpha,
    options: Options,
) -> tuple[Tensor, ...]:
    """Loss and statistics, recorded by autograd.

    Whether they are differentiated is found here, as inside the Function the grad mode is off.
    A compiled graph, which runs without autograd, says so itself.
    """
    head = hidden, weight, bias
    if is_transformed():  # the logits know what to do; the statistics stay in the operator
        loss = _by_logits(Head(*head), target, alpha, options)
        return loss, *hidden.new_zeros(3, hidden.shape[0]).unbind()
    is_differentiated |= torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in head
    )
    # The class weight is an argument of its own, so that autograd sees it.
    rest = options._replace(weight=None)
    return _Recorded.apply(*head, is_differentiated, target, options.weight, alpha, rest)


class _Recorded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        is_differentiated: bool,
        target: Tensor,
        class_weight: Tensor | None,
        alpha: Alpha,
        options: Options,
    ) -> tuple[Tensor, ...]:
        head, ctx.options, ctx.memory = Head(hidden, weight, bias), options, None
        of_loss = target, alpha, options._replace(weight=class_weight)
        keeps_logits = is_differentiated and ctx.needs_input_grad[1] and is_eager(hidden)
        if keeps_logits and native.takes(head, *of_loss):
            # Outside of what torch saves, as the backward pass writes over it.
            ctx.memory = native.memory_for_logits(head)
            loss, *stats = _run_forward(*head, True, *of_loss, memory=ctx.memory)
        else:
            loss, *stats = _FORWARD.run(*head, is_differentiated, *of_loss)
        ctx.number = None if isinstance(alpha, Tensor) else alpha
        # A tensor is saved for torch to see where it is written to before the backward pass.
        alpha_tensor = alpha if ctx.number is None else None
        ctx.save_for_backward(*head, *stats, target, class_weight, alpha_tensor)
        ctx.mark_non_differentiable(*stats)
        ctx.set_materialize_grads(False)  # none is made for the statistics
        return loss, *stats

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad_loss is None:
            return (None,) * 8
        *head, largest, log_sum, mass, target, class_weight, alpha = ctx.saved_tensors
        stats = RowStatistics(largest, log_sum, mass)
        options = ctx.options._replace(weight=class_weight)
        alpha, needed = ctx.number if alpha is None else alpha, ctx.needs_input_grad[:3]
        memory, ctx.memory = ctx.memory, None  # a further backward pass makes the logits again
        grads = _gradients(grad_loss, Head(*head), stats, needed, target, alpha, options, memory)
        wanted = [
            grad if is_wanted else None for grad, is_wanted in zip(grads, needed, strict=True)
        ]
        return *wanted, *(None,) * 5


def _gradients(
    grad_loss: Tensor,
    head: Head,
    stats: RowStatistics,
    needed: Sequence[bool],
    target: Tensor,
    alpha: Alpha,
    options: Options,
    memory: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The gradients; by way of the logits where torch may have to differentiate them.

    That is where their graph is wanted, and where a whole batch of incoming gradients comes at
    once (is_grads_batched).
    """
    is_recorded = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (grad_loss, *head)
    )
    if not (is_recorded or is_transformed() or is_batch_of_gradients(grad_loss)):
        arguments = grad_loss, *head, *stats, [*needed], target, alpha, options
        if memory is not None:
            return _run_backward(*arguments, memory=memory)
        grads: tuple[Tensor, ...] = _BACKWARD.run(*arguments)
        return grads
    logits = F.linear(*head)
    divisor = loss_divisor(target, options, logits)
    grad = reference.backward(grad_loss, logits, target, alpha, divisor, options)
    return _or_empty(
        grad @ head.weight if needed[0] else None,
        grad.t() @ head.hidden if needed[1] else None,
        grad.sum(0) if needed[2] else None,
        like=head.hidden,
    )


def _or_empty(*grads: Tensor | None, like: Tensor) -> tuple[Tensor, ...]:
    """An operator's results are tensors; one that is not needed is empty."""
    return tuple(like.new_empty(0) if grad is None else grad for grad in grads)


# What the dispatcher calls, through `LossOperator`.


def _kernel(head: Head, target: Tensor, alpha: Any, options: Options) -> Any:
    """The fastest that can compute it."""
    for module in (native, device):
        if module.takes(head, target, alpha, options):
            return module
    return linear


def _run_forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    is_differentiated: bool,
    target: Tensor,
    alpha: Any,
    options: Options,
    **memory: Tensor,
) -> tuple[Tensor, ...]:
    head = Head(hidden, weight, bias)
    kernel = _kernel(head, target, alpha, options)
    with torch.autocast(hidden.device.type, enabled=False):
        loss, stats = kernel.forward(head, target, alpha, options, is_differentiated, **memory)
    return loss, *stats


def _run_backward(grad_loss: Tensor, *arguments: Any, **memory: Tensor) -> tuple[Tensor, ...]:
    head, stats = Head(*arguments[:3]), RowStatistics(*arguments[3:6])
    needed, target, alpha, options = arguments[6:]
    kernel = _kernel(head, target, alpha, options)
    rest = target, alpha, stats, options, Needed(*needed)
    with torch.autocast(head.hidden.device.type, enabled=False):
        grads = kernel.backward(grad_loss, head, *rest, **memory)
    return _or_empty(*grads, like=head.hidden)


def _differentiate_backward(grad_loss: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    head, stats = Head(*arguments[:3]), RowStatistics(*arguments[3:6])
    return _gradients(grad_loss, head, stats, *arguments[6:])


def _fake_forward(hidden: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    options, rows = arguments[-1], hidden.shape[:1]
    loss = hidden.new_empty(rows if options.reduction == "none" else (), dtype=options.loss_dtype)
    dtype = compute_dtype(hidden.dtype)
    return loss, *(hidden.new_empty(rows, dtype=dtype) for _ in RowStatistics._fields)


def _fake_backward(grad_loss: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    head, needed = arguments[:3], arguments[6]
    grads = (
        torch.empty_like(tensor, memory_format=torch.contiguous_format) if is_needed else None
        for tensor, is_needed in zip(head, needed, strict=True)
    )
    return _or_empty(*grads, like=head[0])


def _check(hidden: Tensor, weight: Tensor, bias: Tensor | None, *others: Any) -> None:
    *_, target, options = others
    if hidden.dim() != 2 or weight.dim() != 2:
        raise ValueError(
            "the operator takes hidden (N, D) and weight (C, D), here "
            f"{tuple(hidden.shape)} and {tuple(weight.shape)}"
        )
    check_head(hidden, weight, bias)
    check_target(target, hidden, weight, options.weight)


def _check_backward(grad_loss: Tensor, *arguments: Any) -> None:
    _check(*arguments)


_HEAD = "Tensor hidden, Tensor weight, Tensor? bias"
_STATS = "Tensor largest, Tensor log_sum, Tensor mass"
_FORWARD = LossOperator(
    "linear_cross_entropy",
    f"{_HEAD}, bool is_differentiated",
    f"(Tensor loss, {_STATS})",
    Implementations(_check, _run_forward, _fake_forward, _apply),
)
_BACKWARD = LossOperator(
    "linear_cross_entropy_backward",
    f"Tensor grad_loss, {_HEAD}, {_STATS}, bool[3] needed",
    "(Tensor, Tensor, Tensor)",
    Implementations(_check_backward, _run_backward, _fake_backward, _differentiate_backward),
)
