"""The options of the cross-entropy, as every kernel receives them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Options(NamedTuple):
    """F.cross_entropy's options, the dtype in which it returns the loss, and the kernel's name."""

    weight: Tensor | None
    ignore_index: int
    reduction: str
    label_smoothing: float
    loss_dtype: torch.dtype
    kernel: str = "auto"


DEFAULTS = Options(None, -100, "mean", 0.0, torch.float32)

# Asked of one of these, torch raises. It answers torch.amp.is_autocast_available, but
# torch.compile of 2.11 does not trace that question.
_WITHOUT_AUTOCAST = ("meta", "lazy", "vulkan", "fpga", "ve", "opengl", "opencl", "ideep", "hip")


def is_index(target: Tensor) -> bool:
    """Whether the target holds class indices (else it holds class probabilities)."""
    return not target.is_floating_point()


def is_dense(*tensors: Tensor | None) -> bool:
    """Whether all numbers of every tensor lie in memory by strides: none is sparse or jagged."""
    return all(tensor.layout == torch.strided for tensor in tensors if tensor is not None)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for the half types: the arithmetic inside the loss never runs in half."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def is_autocast(device: torch.device) -> bool:
    """Whether operations on this device are cast to autocast's dtype."""
    return device.type not in _WITHOUT_AUTOCAST and torch.is_autocast_enabled(device.type)


def along_classes(values: Tensor, z: Tensor) -> Tensor:
    """A number of every class, (C,), as it is broadcast against z (N, C, d1, ...)."""
    return values.reshape(-1, *(1,) * (z.dim() - 2))


def loss_divisor(target: Tensor, options: Options, like: Tensor) -> Tensor:
    """What the reduction divides by, 0-d in the compute dtype of the logits `like`.

    For "mean" the number of rows, or the summed weights of the rows that count; else 1.
    """
    dtype = compute_dtype(like.dtype)
    if options.reduction != "mean":
        return torch.ones((), dtype=dtype, device=like.device)
    if not is_index(target):
        num_rows = target.shape[0] * math.prod(target.shape[2:])
        return torch.full((), num_rows, dtype=dtype, device=like.device)
    counted = target != options.ignore_index
    if options.weight is None:
        return counted.sum().to(dtype)
    row_weight = options.weight.to(dtype)[torch.where(counted, target, 0)]
    return torch.where(counted, row_weight, 0).sum()


def row_scale(grad_loss: Tensor, target: Tensor, divisor: Tensor, options: Options) -> Tensor:
    """The incoming gradient of every row, 0 in ignored rows: (N, 1, d1, ...), or 0-d.

    Args:
        grad_loss: gradient of the loss, 0-d, or (N, d1, ...) where the reduction is "none".
        target: (N, d1, ...) class indices, or (N, C, d1, ...) probabilities.
        divisor: as `loss_divisor` gives it.
        options: the loss's options.
    """
    scale = grad_loss.to(divisor.dtype) / divisor
    if is_index(target):
        # Not a product with the mask: where every row is ignored that is 0 * inf.
        scale = torch.where(target != options.ignore_index, scale, 0)
    return scale.unsqueeze(1) if scale.dim() else scale
