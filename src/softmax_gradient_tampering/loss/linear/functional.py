"""The tampered cross-entropy of hidden states and a classifier, for large vocabularies."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import (
    Alpha,
    check_alpha,
    check_tensors,
    is_symbolic,
    record,
    refuse_onnx,
)
from softmax_gradient_tampering.loss.functional import loss_dtype_of, tampered_cross_entropy
from softmax_gradient_tampering.loss.kernels.options import Options, is_autocast, is_index
from softmax_gradient_tampering.loss.linear.arguments import check_head, check_target
from softmax_gradient_tampering.loss.linear.kernel import Head
from softmax_gradient_tampering.loss.linear.operator import differentiable_linear_cross_entropy
from softmax_gradient_tampering.loss.torch_internals import is_jit_traced, is_transformed


def tampered_linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    alpha: Alpha,
    bias: Tensor | None = None,
    *,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The tampered cross-entropy of `F.linear(hidden, weight, bias)`, without these logits.

    With z = hidden weight^T + bias, p' = softmax(alpha z) and q the target distribution::

        value      L = F.cross_entropy(z, target)
        gradients  of hidden, weight and bias, through dL/dz = (p' - q) / N

    They are those of `tampered_cross_entropy(F.linear(hidden, weight, bias), target, alpha)`.
    The (N, C) logits are never whole: blocks of classes are made, used and forgotten, and made
    again in the backward pass, which costs a fourth matrix product where the logits cost three.
    A block takes under 10 % of the logits' memory (or 16,384 numbers, where that is more);
    beside it and the gradients there are a few numbers a row, and for half types, which are
    computed in float32 inside, hidden and its gradient in float32.

    On a CPU, float32 logits against class indices are kept between the passes as far as the memory
    of weight's gradient holds them, D / N of them, which saves that product: it is taken in the
    forward pass already, and the gradient is written over the logits.

    Inputs are not written to, and nothing is read back from a device. It works under
    autocast, as F.linear does, and torch.compile. Under torch.func, for a second derivative,
    and where target or class_weight requires a gradient, the logits are made after all;
    forward-mode AD raises.

    Args:
        hidden: hidden states, (N, D), or (..., D) of any other number of dimensions.
        weight: (C, D) weight of the classifier, in hidden's dtype. (C, d1, ..., dK, D), for a
            K-dimensional loss, gives the loss of logits (N, C, d1, ..., dK), which are made whole.
        target: class indices of shape (N,), or (...); or class probabilities, (N, C), or
            (..., C). Of a K-dimensional weight (N, d1, ..., dK), or (N, C, d1, ..., dK).
        alpha: the exponent, as in `tampered_cross_entropy`.
        bias: (C,) bias of the classifier, in hidden's dtype; or of weight's shape without D.
        class_weight: (C,) weight of every class: `weight` of F.cross_entropy.
        ignore_index: class index that counts neither in the value nor in the gradient.
        reduction: "mean", "sum" or "none"; torch's rules for empty and all-ignored batches.
        label_smoothing: in [0, 1]: q becomes (1 - e) q + e / C, in value and gradient.

    Returns:
        The loss, 0-d or, for reduction "none", of hidden's shape without its last dimension;
        in the dtype that F.cross_entropy returns (float32 under autocast).

    Raises:
        TypeError: one of hidden, weight, target, bias and class_weight is no tensor.
        ValueError: alpha is negative, not finite, a tensor with dimensions, or requires a
            gradient.
        IndexError, RuntimeError, ValueError: where F.linear or F.cross_entropy raise them: a
            shape, a dtype, a device or an option does not fit.

    >>> _ = torch.manual_seed(0)
    >>> hidden, weight = torch.randn(6, 4), torch.randn(1000, 4, requires_grad=True)
    >>> target = torch.randint(1000, (6,))
    >>> loss = tampered_linear_cross_entropy(hidden, weight, target, alpha=0.25)
    >>> loss.backward()
    >>> torch.allclose(loss, F.cross_entropy(F.linear(hidden, weight), target))
    True
    >>> p_tampered = torch.softmax(0.25 * F.linear(hidden, weight), dim=1)
    >>> grad_z = (p_tampered - F.one_hot(target, 1000)) / 6
    >>> torch.allclose(weight.grad, grad_z.T @ hidden, atol=1e-6)
    True

    Source: arXiv 2111.12495, section 3; the gradients follow by the chain rule.
    """
    kwargs: dict[str, Any] = {
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
    }
    if is_symbolic(hidden, weight, target, alpha, bias, class_weight):
        tensors = (hidden, weight, target, alpha, bias)
        return record(tampered_linear_cross_entropy, *tensors, class_weight=class_weight, **kwargs)
    kwargs["weight"] = class_weight
    named = {"hidden": hidden, "weight": weight, "target": target, "bias": bias}
    check_tensors(("bias", "class_weight"), **named, class_weight=class_weight)
    refuse_onnx()
    alpha = check_alpha(alpha)
    hidden, weight, bias = (_autocast(tensor) for tensor in (hidden, weight, bias))
    check_head(hidden, weight, bias)
    check_target(target, hidden, weight, class_weight)
    shape, is_sequence = hidden.shape[:-1], hidden.dim() != 2
    if is_sequence:
        hidden = hidden.reshape(-1, hidden.shape[-1])
        target = target.reshape(-1) if is_index(target) else target.reshape(-1, target.shape[-1])
    head, options = Head(hidden, weight, bias), Options(**kwargs, loss_dtype=hidden.dtype)
    if _has_blocks(head, target, options):
        options = options._replace(loss_dtype=loss_dtype_of(hidden, target, class_weight))
        target = target.long() if is_index(target) else target
        loss = differentiable_linear_cross_entropy(head, target, alpha, options)
    else:
        loss = tampered_cross_entropy(_logits(head), target, alpha, **kwargs)
    return loss.reshape(shape) if is_sequence and reduction == "none" else loss


def _autocast(tensor: Tensor | None) -> Any:
    """The tensor in the dtype that F.linear would take it in."""
    if tensor is None or not is_autocast(tensor.device):
        return tensor
    is_cast = tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.to(torch.get_autocast_dtype(tensor.device.type)) if is_cast else tensor


def _has_blocks(head: Head, target: Tensor, options: Options) -> bool:
    """Whether the blocks can do it. Where an option is wrong, torch's own function says so."""
    weight, class_weight = head.weight, options.weight
    if weight.dim() != 2 or 0 in weight.shape or is_transformed():
        return False
    if is_jit_traced():  # torch.jit.trace does not follow a loop over blocks
        return False
    if target.requires_grad or (class_weight is not None and class_weight.requires_grad):
        return False
    is_known = options.reduction in ("mean", "sum", "none") and 0 <= options.label_smoothing <= 1
    return is_known and (is_index(target) or options.ignore_index < 0)


def _logits(head: Head) -> Tensor:
    """The whole logits, (N, C); of a K-dimensional weight (N, C, d1, ...)."""
    hidden, weight, bias = head
    bias = None if bias is None else bias.flatten()
    logits = F.linear(hidden, weight.flatten(0, -2), bias)
    return logits.unflatten(-1, weight.shape[:-1]) if weight.dim() > 2 else logits
