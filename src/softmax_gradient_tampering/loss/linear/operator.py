"""The operators of hidden states and a classifier: forward, backward, fake, autograd.

They are one kernel for every device, in torch's own operations, and opaque to torch.compile:
traced, the blocks would be unrolled, and the memory between them the compiler's choice.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.functional import tampered_cross_entropy
from softmax_gradient_tampering.loss.kernels.options import Options, compute_dtype
from softmax_gradient_tampering.loss.linear import kernel as linear
from softmax_gradient_tampering.loss.linear.kernel import Head, Needed, RowStatistics

_library = torch.library.Library("softmax_gradient_tampering", "FRAGMENT")
_HEAD = "Tensor hidden, Tensor weight, Tensor? bias"
_STATS = "Tensor largest, Tensor log_sum, Tensor mass"
_OPTIONS = (
    "Tensor target, float alpha, Tensor? alpha_tensor, Tensor? class_weight, int ignore_index, "
    "str reduction, float label_smoothing, ScalarType loss_dtype"
)
_library.define(
    f"linear_cross_entropy({_HEAD}, {_OPTIONS}, bool is_differentiated) -> (Tensor loss, {_STATS})"
)
_library.define(
    f"linear_cross_entropy_backward(Tensor grad_loss, {_HEAD}, {_STATS}, {_OPTIONS}, "
    f"bool[3] needed) -> (Tensor, Tensor, Tensor)"
)


def linear_cross_entropy_rows(head: Head, target: Tensor, alpha: Alpha, options: Options) -> Tensor:
    """The loss of hidden (N, D) and its classifier; the gradients are tampered with."""
    # Inside the Function the grad mode is off, whatever it is here.
    is_differentiated = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in head
    )
    # The class weight is an argument of its own, so that autograd sees it.
    rest = options._replace(weight=None)
    loss: Tensor = _Operator.apply(*head, target, options.weight, alpha, rest, is_differentiated)
    return loss


class _Operator(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        class_weight: Tensor | None,
        alpha: Alpha,
        options: Options,
        is_differentiated: bool,
    ) -> Tensor:
        ctx.alpha, ctx.options = alpha, options
        options = options._replace(weight=class_weight)
        loss, *stats = torch.ops.softmax_gradient_tampering.linear_cross_entropy(
            hidden, weight, bias, target, *_pack(alpha), *_of_loss(options), is_differentiated
        )
        ctx.save_for_backward(hidden, weight, bias, target, class_weight, *stats)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, target, class_weight, *stats = ctx.saved_tensors
        head, options = Head(hidden, weight, bias), ctx.options._replace(weight=class_weight)
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # the graph of the gradients is wanted
            grads = _differentiable_gradients(grad_loss, head, target, ctx.alpha, options, needed)
        else:
            grads = torch.ops.softmax_gradient_tampering.linear_cross_entropy_backward(
                grad_loss, *head, *stats, target, *_pack(ctx.alpha), *_of_loss(options), needed
            )
        grads = [grad if is_needed else None for grad, is_needed in zip(grads, needed, strict=True)]
        return *grads, None, None, None, None, None


def _differentiable_gradients(
    grad_loss: Tensor,
    head: Head,
    target: Tensor,
    alpha: Alpha,
    options: Options,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    """The gradients with their graph, by way of the logits."""
    options_of_loss = options._asdict()
    dtype = options_of_loss.pop("loss_dtype")
    loss = tampered_cross_entropy(F.linear(*head), target, alpha, **options_of_loss).to(dtype)
    inputs = [tensor for tensor, is_needed in zip(head, needed, strict=True) if is_needed]
    grads = iter(torch.autograd.grad(loss, inputs, grad_loss, create_graph=True))  # type: ignore[arg-type]
    return [next(grads) if is_needed else None for is_needed in needed]


def _of_loss(options: Options) -> tuple[Any, ...]:
    """The options without the kernel's name: here there is one kernel."""
    return options[: options._fields.index("kernel")]


def _pack(alpha: Alpha) -> tuple[float, Tensor | None]:
    return (1.0, alpha) if isinstance(alpha, Tensor) else (alpha, None)


def _unpack(alpha: float, alpha_tensor: Tensor | None) -> Alpha:
    return alpha if alpha_tensor is None else alpha_tensor


def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    alpha: float,
    alpha_tensor: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *options, is_differentiated = rest
    exponent = _unpack(alpha, alpha_tensor)
    with torch.autocast(hidden.device.type, enabled=False):
        loss, stats = linear.forward(
            Head(hidden, weight, bias), target, exponent, Options(*options), is_differentiated
        )
    return loss, *stats


def _backward(grad_loss: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    head, stats = Head(*arguments[:3]), RowStatistics(*arguments[3:6])
    target, alpha, alpha_tensor, *options, needed = arguments[6:]
    exponent = _unpack(alpha, alpha_tensor)
    with torch.autocast(head.hidden.device.type, enabled=False):
        grads = linear.backward(
            grad_loss, head, target, exponent, stats, Options(*options), Needed(*needed)
        )
    return tuple(head.hidden.new_empty(0) if grad is None else grad for grad in grads)


@torch.library.register_fake("softmax_gradient_tampering::linear_cross_entropy")
def _fake_forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    alpha: float,
    alpha_tensor: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    options, rows = Options(*rest[:-1]), hidden.shape[:1]
    loss = hidden.new_empty(rows if options.reduction == "none" else (), dtype=options.loss_dtype)
    dtype = compute_dtype(hidden.dtype)
    return loss, *(hidden.new_empty(rows, dtype=dtype) for _ in RowStatistics._fields)


@torch.library.register_fake("softmax_gradient_tampering::linear_cross_entropy_backward")
def _fake_backward(grad_loss: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if is_needed
        else arguments[0].new_empty(0)
        for tensor, is_needed in zip(arguments[:3], arguments[-1], strict=True)
    )


_library.impl("linear_cross_entropy", _forward, "CompositeExplicitAutograd")
_library.impl("linear_cross_entropy_backward", _backward, "CompositeExplicitAutograd")
