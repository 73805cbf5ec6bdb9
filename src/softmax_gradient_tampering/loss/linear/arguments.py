"""What the arguments of the loss of hidden states may be, in messages that speak of them.

The exceptions are of the types that F.linear and F.cross_entropy raise. What these two say in the
caller's own terms (reduction, label_smoothing, ignore_index, labels out of bounds) is left to them.
"""

from torch import Tensor

from softmax_gradient_tampering.loss.functional import INDEX_DTYPES
from softmax_gradient_tampering.loss.kernels.options import is_autocast, is_dense, is_index


def check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Refuse what makes no logits.

    Raises:
        RuntimeError: a shape, a dtype or a device does not fit.
    """
    _check_dense(hidden=hidden, weight=weight, bias=bias)
    if hidden.dim() == 0:
        raise RuntimeError("expected hidden of shape (N, D), (D,) or (..., D), got a 0-d tensor")
    if weight.dim() < 2:
        raise RuntimeError(f"expected weight of shape (C, D), got {tuple(weight.shape)}")
    if hidden.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            "expected equal last dimensions D of hidden and weight, got "
            f"{hidden.shape[-1]} and {weight.shape[-1]}"
        )
    if weight.dim() > 2 and hidden.dim() != 2:
        raise RuntimeError(
            f"a K-dimensional weight (C, d1, ..., D), here {tuple(weight.shape)}, takes hidden of "
            f"shape (N, D), got {tuple(hidden.shape)}"
        )
    if not hidden.is_floating_point():
        raise RuntimeError(f"expected hidden of a floating-point dtype, got {hidden.dtype}")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None:
            continue
        _check_device(name, tensor, hidden)
        if tensor.dtype != hidden.dtype:
            raise RuntimeError(
                f"expected {name} of hidden's dtype {hidden.dtype}, got {tensor.dtype}"
            )
    if bias is not None and bias.shape != weight.shape[:-1]:
        raise RuntimeError(
            f"expected bias of shape {tuple(weight.shape[:-1])}, as weight has classes, "
            f"got {tuple(bias.shape)}"
        )


def check_target(
    target: Tensor, hidden: Tensor, weight: Tensor, class_weight: Tensor | None
) -> None:
    """Refuse a target or class weights that do not fit the logits of hidden and weight.

    Raises:
        RuntimeError, ValueError: a shape, a dtype or a device does not fit.
    """
    num_classes, *extra = weight.shape[:-1]
    rows = tuple(hidden.shape[:-1])
    of_indices = (*rows, *extra)
    of_probabilities = (*rows, num_classes, *extra)
    _check_dense(target=target, class_weight=class_weight)
    _check_device("target", target, hidden)
    shape = tuple(target.shape)
    if shape != (of_indices if is_index(target) else of_probabilities):
        message = (
            f"target of shape {shape} and dtype {target.dtype} does not fit hidden of shape "
            f"{tuple(hidden.shape)}: class indices (integers) are of shape {of_indices}, class "
            f"probabilities (floating-point) of {of_probabilities}"
        )
        # As F.cross_entropy has it: too many or too few, or of another kind.
        is_other_number = is_index(target) and len(shape) == len(of_indices)
        raise (ValueError if is_other_number or len(rows) > 1 else RuntimeError)(message)
    if is_index(target) and target.dtype not in INDEX_DTYPES:
        raise RuntimeError(
            f"expected target of torch.int64, or of int32, int16, int8 or uint8, got {target.dtype}"
        )
    if class_weight is None:
        return
    _check_device("class_weight", class_weight, hidden)
    if class_weight.shape != (num_classes,):
        raise RuntimeError(
            f"expected class_weight of shape ({num_classes},), got {tuple(class_weight.shape)}"
        )
    if class_weight.dtype != hidden.dtype and not is_autocast(hidden.device):
        raise RuntimeError(
            f"expected class_weight of hidden's dtype {hidden.dtype}, got {class_weight.dtype}"
        )


def _check_dense(**named: Tensor | None) -> None:
    for name, tensor in named.items():
        if tensor is not None and not is_dense(tensor):
            raise RuntimeError(
                f"expected {name} of a dense layout, got {tensor.layout}; to_dense() makes one of "
                "a sparse tensor, values() of a jagged one"
            )


def _check_device(name: str, tensor: Tensor, hidden: Tensor) -> None:
    if tensor.device != hidden.device:
        raise RuntimeError(
            f"expected {name} on hidden's device {hidden.device}, got {tensor.device}"
        )
