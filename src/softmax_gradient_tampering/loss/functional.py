"""The tampered cross-entropy as a function: F.cross_entropy with one more argument."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softmax_gradient_tampering.loss import direct
from softmax_gradient_tampering.loss.alpha import (
    Alpha,
    check_alpha,
    is_symbolic,
    record,
    refuse_onnx,
)
from softmax_gradient_tampering.loss.generic import (
    composite_cross_entropy,
    is_for_operations,
    tamper,
)
from softmax_gradient_tampering.loss.kernels.options import (
    Options,
    compute_dtype,
    is_autocast,
    is_dense,
    is_index,
)
from softmax_gradient_tampering.loss.kernels.selection import check_kernel
from softmax_gradient_tampering.loss.operator import differentiable_cross_entropy
from softmax_gradient_tampering.loss.torch_internals import has_tangent, is_plain, is_unobserved

LOGITS_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INDEX_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def tampered_cross_entropy(
    input: Tensor,
    target: Tensor,
    alpha: Alpha,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    kernel: str = "auto",
) -> Tensor:
    """Cross-entropy whose gradient uses p' = p^alpha / sum(p^alpha) in the place of p.

    With z the input, p = softmax(z) and q the target distribution::

        value      L = F.cross_entropy(z, target)
        gradient   dL/dz = (p' - q) / N,   p' = softmax(alpha z)

    The gradient is exactly that of `F.cross_entropy(alpha * z, target, ...) / alpha` with
    the same options, for any of them; the value is that of `F.cross_entropy(z, target, ...)`.
    A target that requires a gradient gets the former's as well. The arithmetic is float32
    inside for half types; the input is not written to, nothing is read back from a device.

    Args:
        input: logits z, of shape (C,), (N, C) or (N, C, d1, ...), floating-point.
        target: class indices of shape (), (N,) or (N, d1, ...), or class probabilities of
            the input's shape.
        alpha: the exponent: any finite number >= 0, or a 0-d tensor (a tensor on a device
            is not read, so a schedule neither synchronises nor recompiles). 1 is ordinary
            cross-entropy, the published values are 0.05 to 0.92, and 0 is the limit: p'
            uniform over the classes whose logit is not -inf.
        weight: (C,) weight of every class, in the input's dtype.
        ignore_index: class index that counts neither in the value nor in the gradient.
        reduction: "mean", "sum" or "none"; torch's rules for empty and all-ignored batches.
        label_smoothing: in [0, 1]: q becomes (1 - e) q + e / C, in value and gradient.
        kernel: what computes it: "auto" (the fastest for the device), "reference", "cpu" or
            "triton"; for comparisons. Where a kernel cannot do it, plain torch does.

    Returns:
        The loss, 0-d or, for reduction "none", of the target's shape of class indices; in
        the dtype that F.cross_entropy returns (float32 under autocast).

    Raises:
        ValueError: alpha is negative, not finite, a tensor with dimensions, or requires a
            gradient; the kernel is unknown or not for this device.
        IndexError, RuntimeError, ValueError: whatever F.cross_entropy raises.

    >>> z = torch.tensor([[2.0, 0.0, -2.0]], requires_grad=True)
    >>> loss = tampered_cross_entropy(z, torch.tensor([0]), alpha=0.25)
    >>> loss.backward()
    >>> p_tampered = torch.softmax(0.25 * z, dim=1)
    >>> torch.allclose(z.grad, p_tampered - torch.tensor([[1.0, 0.0, 0.0]]))
    True
    >>> torch.allclose(loss, torch.nn.functional.cross_entropy(z, torch.tensor([0])))
    True

    Source: arXiv 2111.12495, section 3.
    """
    given = (weight, ignore_index, reduction, label_smoothing, kernel)
    if torch.compiler.is_compiling():
        from softmax_gradient_tampering.loss.kernels import in_graph  # loads torch's compiler

        if in_graph.takes(input, target, alpha, given):
            return in_graph.cross_entropy_in_graph(input, target, alpha, *given[:4], input.dtype)
    elif type(alpha) is float and is_direct(input, target, alpha, given):
        loss = direct.direct_cross_entropy(input, target, alpha, kernel)
        if loss is not None:
            return loss
    kwargs: dict[str, Any] = {
        "weight": weight,
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
    }
    if is_symbolic(input, target, alpha, weight):
        return record(tampered_cross_entropy, input, target, alpha, **kwargs, kernel=kernel)
    refuse_onnx()
    alpha = check_alpha(alpha)
    if not _is_regular(input, target, weight, ignore_index, reduction, label_smoothing):
        # If an argument is wrong, torch's own function says what.
        return tamper(F.cross_entropy, alpha)(input, target, **kwargs)
    if kernel != "auto" and not torch.compiler.is_compiling():  # there the operator checks
        check_kernel(kernel, input.device)
    options = Options(**kwargs, loss_dtype=loss_dtype_of(input, target, weight), kernel=kernel)
    if _is_for_torch(input, target, weight):
        return composite_cross_entropy(input, target, alpha, options)
    shape = target.shape if is_index(target) else input.shape[:1] + input.shape[2:]
    if input.dim() == 1:
        input, target = input.unsqueeze(0), target.unsqueeze(0)
        shape = torch.Size()
    elif input.dim() > 2 and _is_of_rows(input):
        input = input.movedim(1, -1).flatten(0, -2)
        target = target.flatten() if is_index(target) else target.movedim(1, -1).flatten(0, -2)
    if is_index(target) and target.dtype != torch.int64:
        target = target.long()
    loss = differentiable_cross_entropy(input, target, alpha, options)
    return loss.reshape(shape) if reduction == "none" else loss


def is_direct(input: Tensor, target: Tensor, alpha: float, options: tuple[Any, ...]) -> bool:
    """Whether a call may go straight to a kernel, if `direct` takes its tensors.

    Every further step would do nothing.

    Args:
        input, target, alpha: as the caller gives them.
        options: weight, ignore_index, reduction, label_smoothing and kernel, likewise.
    """
    weight, ignore_index, reduction, label_smoothing, kernel = options
    return (
        alpha <= 1.0
        and weight is None
        and type(input) is Tensor
        and type(target) is Tensor
        and type(ignore_index) is int
        and ignore_index == -100
        and type(label_smoothing) is float
        and label_smoothing == 0.0
        and reduction == "mean"
        and (kernel == "auto" or kernel == "blocks")
        and is_unobserved()
    )


def _is_of_rows(input: Tensor) -> bool:
    """Whether the kernel is better given rows: where they lie so in memory."""
    return input.movedim(1, -1).is_contiguous()


def _is_for_torch(input: Tensor, target: Tensor, weight: Tensor | None) -> bool:
    """Whether right arguments are beyond the operator, which torch's own operations can do."""
    return (
        target.requires_grad
        or is_for_operations()
        or has_tangent(target, weight)
        or not is_plain(input, target)
    )


def _is_regular(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> bool:
    """Whether the arguments are right: a loss of these exists."""
    if not isinstance(input, Tensor) or not isinstance(target, Tensor):
        return False
    if not is_dense(input, target) or input.device != target.device:
        return False
    if input.dim() == 0 or input.dtype not in LOGITS_DTYPES:
        return False
    if not isinstance(ignore_index, int) or isinstance(ignore_index, bool):
        return False
    if not isinstance(label_smoothing, (int, float)):
        return False
    if is_index(target):
        of_input = input.shape[:1] + input.shape[2:] if input.dim() > 1 else ()
        fits = target.shape == of_input and target.dtype in INDEX_DTYPES
    else:
        fits = target.shape == input.shape and ignore_index < 0
    if weight is not None:
        if not isinstance(weight, Tensor) or weight.device != input.device:
            return False
        fits &= weight.shape == input.shape[min(1, input.dim() - 1) :][:1]
        fits &= weight.dtype == input.dtype or is_autocast(input.device)
        fits &= not weight.requires_grad and is_dense(weight)
    return fits and reduction in ("mean", "sum", "none") and 0.0 <= label_smoothing <= 1.0


def loss_dtype_of(input: Tensor, target: Tensor, weight: Tensor | None) -> torch.dtype:
    """The dtype in which F.cross_entropy returns the loss of these arguments."""
    dtype = input.dtype
    for other in (None if is_index(target) else target, weight):
        if other is not None and other.dtype != dtype:
            dtype = torch.promote_types(dtype, other.dtype)
    return compute_dtype(dtype) if is_autocast(input.device) else dtype
