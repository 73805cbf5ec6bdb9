"""Tampering with any loss of logits: the value l(z), the gradient of l(alpha z) / alpha."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from softmax_gradient_tampering.loss.alpha import (
    Alpha,
    check_alpha,
    check_tensors,
    is_symbolic,
    keep_alpha,
    record,
    refuse_onnx,
)
from softmax_gradient_tampering.loss.dispatcher import define_operator
from softmax_gradient_tampering.loss.kernels.options import Options, compute_dtype, is_index
from softmax_gradient_tampering.loss.torch_internals import (
    below_autograd,
    has_tangent,
    is_functionalized,
    is_nested_forward_mode,
    is_traced,
    is_transformed,
    is_transformed_or_dual,
)


def tamper(loss_fn: Callable[..., Tensor], alpha: Alpha) -> Callable[..., Tensor]:
    """Turn a loss of logits into its tampered form.

        value      l(z)
        gradient   that of l(alpha z) / alpha

    For the cross-entropy this is `tampered_cross_entropy`, which is faster; for a loss of
    sigmoid(z) it replaces p by sigmoid(alpha z). Tensors other than the logits that
    require a gradient get that of l(alpha z) / alpha too.

    Args:
        loss_fn: a function or module, called `loss_fn(logits, *args, **kwargs)`; it is
            called twice for every value, so it should be a pure function.
        alpha: as in `tampered_cross_entropy`. At 0 the gradient is the limit, that of l at
            z = 0, and cannot be differentiated again, nor by torch.func; a tensor that is not
            read (on a device, or under torch.compile) must be above 0.

    Returns:
        A function of the same arguments, returning the loss in loss_fn's shape and dtype.

    Raises:
        ValueError: alpha is negative, not finite, a tensor with dimensions, or requires a
            gradient.

    >>> loss_fn = tamper(torch.nn.functional.multi_margin_loss, alpha=0.5)
    >>> z = torch.tensor([[0.5, -0.5]], requires_grad=True)
    >>> loss_fn(z, torch.tensor([0])).item()
    0.0
    >>> loss_fn(z, torch.tensor([0])).backward()
    >>> z.grad
    tensor([[-0.5000,  0.5000]])

    Source: follows from arXiv 2111.12495, as p' = softmax(alpha z).
    """
    return partial(_tampered_loss, loss_fn, keep_alpha(alpha))


def tampered_binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    alpha: Alpha,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy whose gradient uses p' = sigmoid(alpha z) in the place of p.

        value      F.binary_cross_entropy_with_logits(z, target)
        gradient   (p' - target) / number of elements,  p' = sigmoid(alpha z)

    Args:
        input: logits z, of any shape.
        target: probabilities in [0, 1], of the input's shape.
        alpha: as in `tampered_cross_entropy`.
        weight: rescaling of every element, broadcast against the input.
        reduction: "mean", "sum" or "none".
        pos_weight: weight of the positive class, broadcast against the input.

    Returns:
        The loss, 0-d or, for reduction "none", of the input's shape.

    Raises:
        ValueError: alpha is negative, not finite, a tensor with dimensions, or requires a
            gradient; or whatever F.binary_cross_entropy_with_logits raises.

    >>> z = torch.tensor([3.0], requires_grad=True)
    >>> tampered_binary_cross_entropy_with_logits(z, torch.tensor([1.0]), alpha=0.5).backward()
    >>> torch.allclose(z.grad, torch.sigmoid(0.5 * z) - 1)
    True

    Source: follows from arXiv 2111.12495 for two classes.
    """
    kwargs: dict[str, Any] = {"weight": weight, "reduction": reduction, "pos_weight": pos_weight}
    if is_symbolic(input, target, alpha, weight, pos_weight):
        return record(tampered_binary_cross_entropy_with_logits, input, target, alpha, **kwargs)
    check_tensors(input=input, target=target)
    return tamper(F.binary_cross_entropy_with_logits, alpha)(input, target, **kwargs)


def composite_cross_entropy(
    logits: Tensor, target: Tensor, alpha: Alpha, options: Options
) -> Tensor:
    """The tampered cross-entropy as `tamper` makes it of torch's, in the options' loss dtype."""
    dtype, weight = compute_dtype(logits.dtype), options.weight
    loss = _tampered_loss(
        F.cross_entropy,
        alpha,
        logits.to(dtype),
        target if is_index(target) else target.to(dtype),
        weight=None if weight is None else weight.to(dtype),
        ignore_index=options.ignore_index,
        reduction=options.reduction,
        label_smoothing=options.label_smoothing,
    )
    return loss.to(options.loss_dtype)


def is_for_operations() -> bool:
    """Whether torch would lose, without a word, what a Function says of its derivatives.

    That is inside torch.func's transforms and forward-mode AD where torch.compile traces them,
    and in forward mode within forward mode.

    Raises:
        NotImplementedError: torch.func.functionalize is active, which loses it in any case.
    """
    if not is_transformed_or_dual():
        return False
    if torch.compiler.is_compiling():
        return True
    if is_functionalized():
        raise NotImplementedError(
            "torch.func.functionalize cannot take a tampered gradient along; leave it out: "
            "torch.export, make_fx and torch.compile take the loss without it"
        )
    return is_nested_forward_mode()


def _tampered_loss(
    loss_fn: Callable[..., Tensor], alpha: Alpha, /, input: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """The loss that `tamper` returns, of its first two arguments."""
    refuse_onnx()
    alpha = check_alpha(alpha)  # of a tensor its value now: a schedule may have written to it
    value = loss_fn(input, *args, **kwargs)
    if isinstance(value, (tuple, list, dict)):  # torch 2.9 cannot compile a union of types
        raise TypeError(
            f"the loss to tamper with must return a tensor, not a {type(value).__name__}; pass a "
            "function that returns the loss alone"
        )
    if isinstance(alpha, float) and alpha == 0:
        surrogate = loss_fn(_at_zero(input), *args, **kwargs)
    else:
        surrogate = loss_fn(alpha * input, *args, **kwargs) / alpha
    return report(value, surrogate)


def report(value: Tensor, surrogate: Tensor) -> Tensor:
    """The value of one tensor with the derivatives of another."""
    if is_symbolic(value, surrogate):
        return record(report, value, surrogate)
    value = value.detach()  # a gradient of None, in compiled autograd, is added to others of it
    if is_for_operations():
        return _report_by_operations(value, surrogate)
    if _is_in_a_graph():
        reported: Tensor = _report_operator(value, surrogate)
        return reported
    if torch.compiler.is_compiling():
        return _Report.apply(value, surrogate)  # dynamo traces no Function that has a jvp
    return _ForwardModeReport.apply(value, surrogate)


def _report_by_operations(value: Tensor, surrogate: Tensor) -> Tensor:
    """The same in operations of torch: the number is written over where nothing records it.

    A sum that begins with the value would have no derivative where the surrogate is infinite.
    """
    reported = surrogate.to(value.dtype, copy=True)
    reported.detach().copy_(value)
    return reported


class _Report(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, surrogate: Tensor) -> Tensor:
        if not _is_in_a_graph():
            return value.clone()
        with below_autograd():
            return _report_operator(value, surrogate)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.dtype = output.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad


class _ForwardModeReport(_Report):
    @staticmethod
    def jvp(ctx: Any, value_tangent: Tensor, surrogate_tangent: Tensor) -> Tensor:
        # Divided by a number, a 0-d tangent under vmap becomes float64 (torch 2.15).
        return surrogate_tangent.to(ctx.dtype, copy=True)


def _is_in_a_graph() -> bool:
    """Whether a graph is made, of operators alone, that somebody may differentiate later on."""
    is_it = torch.compiler.is_exporting() if torch.compiler.is_compiling() else is_traced()
    return is_it and not is_transformed()


def _at_zero(logits: Tensor) -> Tensor:
    """0 for every logit, passing the gradient on as it is: l(alpha z) / alpha at alpha = 0."""
    if is_symbolic(logits):
        return record(_at_zero, logits)
    if is_transformed() or has_tangent(logits):
        # A second derivative, which would be wrong, could not be told from a first.
        raise NotImplementedError(
            "a loss tampered with at alpha 0 is not differentiated by torch.func, nor in forward "
            "mode; take a small alpha such as 1e-3, or, where torch.compile does not compile it, "
            "tampered_cross_entropy, which has this limit"
        )
    # A Function that torch.compile looks into would not refuse to be differentiated again.
    is_operator = _is_in_a_graph() or torch.compiler.is_compiling()
    zero: Tensor = (_at_zero_operator if is_operator else _AtZero.apply)(logits)
    return zero


class _AtZero(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        if not _is_in_a_graph():
            return _zero(logits)
        with below_autograd():
            return _at_zero_operator(logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def _zero(logits: Tensor) -> Tensor:
    return torch.where(logits == -torch.inf, logits, 0)


_report_operator = define_operator(
    "report",
    "(Tensor value, Tensor surrogate) -> Tensor",
    run=lambda value, surrogate: value.clone(),
    fake=lambda value, surrogate: value.clone(),
    differentiate=lambda value, surrogate: (
        _report_by_operations if is_for_operations() else _ForwardModeReport.apply
    )(value.detach(), surrogate),
)
_at_zero_operator = define_operator(
    "at_zero",
    "(Tensor logits) -> Tensor",
    run=_zero,
    fake=_zero,
    differentiate=lambda logits: _AtZero.apply(logits),
)
